from ipaddress import IPv4Network, IPv6Network, ip_address

import pytest

from meshd.dns.guard import MAX_HOSTS, MAX_PREFIXES, Guard, Verdict

ALLOW = (IPv4Network("10.0.0.0/8"), IPv6Network("2001:db8::/32"))


@pytest.mark.parametrize(
    ("host", "may"),
    [
        ("127.0.0.1", None),
        ("127.9.9.9", None),
        ("::1", None),
        ("::ffff:127.0.0.1", None),
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("2001:db8::1", True),
        ("192.0.2.1", False),
        ("2001:db9::1", False),
        ("::ffff:192.0.2.1", False),
    ],
)
def test_this_host_and_those_who_are_named_may_ask(host: str, may: bool | None) -> None:
    guard = Guard(ALLOW, 0)
    for _ in range(2):
        assert guard.may(ip_address(host).packed) is may
        assert guard.judge(ip_address(host).packed, 1) is (Verdict.REFUSE if may is False else Verdict.ANSWER)


def verdicts(guard: Guard, host: str, count: int, second: int = 1) -> list[str]:
    return [guard.judge(ip_address(host).packed, second).name[0] for _ in range(count)]


def test_a_network_over_the_limit_is_told_to_come_by_tcp_every_other_time() -> None:
    guard = Guard(ALLOW, 3)
    assert "".join(verdicts(guard, "10.0.0.1", 2) + verdicts(guard, "10.0.0.2", 5)) == "AAADBDB"
    assert verdicts(guard, "10.0.1.1", 1) == ["A"]
    assert verdicts(guard, "10.0.0.1", 1, second=2) == ["A"]


def test_who_may_not_ask_is_not_answered_any_more_over_the_limit() -> None:
    assert "".join(verdicts(Guard(ALLOW, 2), "192.0.2.1", 5)) == "RRDDD"


def test_this_host_is_not_limited() -> None:
    assert set(verdicts(Guard((), 1), "127.0.0.1", 100)) == {"A"}


def test_an_ipv6_customer_is_one_network() -> None:
    guard = Guard(ALLOW, 1)
    assert verdicts(guard, "2001:db8::1", 1) + verdicts(guard, "2001:db8:0:ff::1", 1) == ["A", "D"]
    assert verdicts(guard, "2001:db8:0:100::1", 1) == ["A"]


def test_many_senders_do_not_grow_memory() -> None:
    guard = Guard((IPv4Network("0.0.0.0/0"),), 1)
    for i in range(MAX_PREFIXES + 100):
        guard.judge((i << 8).to_bytes(4), 1)
    assert len(guard._counts) <= MAX_PREFIXES + 1
    assert len(guard._may) <= MAX_HOSTS
    assert guard.judge(bytes((99, 99, 99, 1)), 1) is not Verdict.ANSWER
