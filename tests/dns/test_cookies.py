import pytest

from meshd.dns.cookies import MAX_KEPT, Cookies

NOW = 1_800_000_030.0
HERE = b"\x0a\0\0\1"


def test_a_cookie_is_known_again_from_the_same_address_for_an_hour() -> None:
    cookies = Cookies(b"secret", NOW)
    option = cookies.option(b"clientid", HERE)
    assert option[:12] == b"\0\x0a\0\x18clientid"
    cookie = option[4:]
    assert cookies.is_ours(cookie, HERE)
    assert cookies.option(cookie, HERE) == option
    assert not cookies.is_ours(cookie, b"\x0a\0\0\2")
    assert not cookies.is_ours(b"clientie" + cookie[8:], HERE)
    assert not cookies.is_ours(cookie[:-1] + bytes((cookie[-1] ^ 1,)), HERE)
    cookies.tick(NOW + 3600)
    assert cookies.is_ours(cookie, HERE)
    assert cookies.option(cookie, HERE) != option
    cookies.tick(NOW + 3700)
    assert not cookies.is_ours(cookie, HERE)


def test_one_secret_makes_the_same_cookies_everywhere_and_another_does_not() -> None:
    cookie = Cookies(b"secret", NOW).option(b"clientid", HERE)[4:]
    assert Cookies(b"secret", NOW).is_ours(cookie, HERE)
    assert Cookies(b"secret", NOW - 200).is_ours(cookie, HERE)
    assert not Cookies(b"secret", NOW - 2000).is_ours(cookie, HERE)
    assert not Cookies(b"other", NOW).is_ours(cookie, HERE)


@pytest.mark.parametrize("cookie", [b"", b"clientid", b"clientid" + b"x" * 8, b"clientid" + b"x" * 16])
def test_what_is_no_cookie_of_ours(cookie: bytes) -> None:
    assert not Cookies(b"secret", NOW).is_ours(cookie, HERE)


def test_what_clients_ask_does_not_grow_memory() -> None:
    cookies = Cookies(b"secret", NOW)
    for i in range(2 * MAX_KEPT + 10):
        cookies.keep(i.to_bytes(8), b"record")
        assert cookies.records[i.to_bytes(8)] == b"record"
    assert len(cookies.records) <= MAX_KEPT


def test_a_record_is_kept_no_longer_than_its_time() -> None:
    cookies = Cookies(b"secret", NOW)
    cookies.keep(b"key", b"record")
    cookies.tick(NOW + 1)
    assert cookies.records
    cookies.tick(NOW + 60)
    assert not cookies.records
