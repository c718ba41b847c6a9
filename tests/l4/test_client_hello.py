import contextlib
import ssl

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshd.l4.client_hello import MAX_MESSAGE_BYTES, MAX_RAW_BYTES, RECORD_HEADER, ClientHello, ClientHelloReader


def real_hello(server_name: bytes | None = b"payments{mesh=default}", alpn: list[str] | None = None) -> bytes:
    """What OpenSSL sends."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    if alpn:
        context.set_alpn_protocols(alpn)
    outgoing = ssl.MemoryBIO()
    connection = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=server_name)
    with pytest.raises(ssl.SSLWantReadError):
        connection.do_handshake()
    return outgoing.read()


def vector(data: bytes, size: int) -> bytes:
    return len(data).to_bytes(size, "big") + data


def extension(kind: int, body: bytes) -> bytes:
    return kind.to_bytes(2, "big") + vector(body, 2)


def sni(*names: bytes) -> bytes:
    return extension(0, vector(b"".join(b"\0" + vector(n, 2) for n in names), 2))


def message(extensions: bytes | None, tail: bytes = b"") -> bytes:
    body = b"\3\3" + bytes(32) + vector(bytes(32), 1) + vector(b"\x13\x01", 2) + vector(b"\0", 1)
    if extensions is not None:
        body += vector(extensions, 2)
    body += tail
    return b"\1" + vector(body, 3)


def records(handshake: bytes, size: int) -> bytes:
    return b"".join(b"\x16\3\1" + vector(handshake[i : i + size], 2) for i in range(0, len(handshake), size))


def read(raw: bytes, step: int) -> ClientHello | None:
    reader = ClientHelloReader()
    for at in range(0, len(raw), step):
        if (hello := reader.feed(raw[at : at + step])) is not None:
            assert bytes(reader.raw) == raw[: at + step]
            return hello
    return None


def test_openssl_hello_split_at_every_byte():
    raw = real_hello(alpn=["kuma", "h2"])
    wanted = ClientHello(b"payments{mesh=default}", (b"kuma", b"h2"))
    for cut in range(1, len(raw)):
        reader = ClientHelloReader()
        assert reader.feed(raw[:cut]) is None
        assert reader.feed(raw[cut:]) == wanted
    assert read(raw, 1) == wanted


@pytest.mark.parametrize("record", [1, 2, 5, 100, 16384])
@pytest.mark.parametrize("step", [1, 3, 1400])
def test_hello_over_many_records_and_segments(record, step):
    hello = message(sni(b"Web{mesh=default}") + extension(16, vector(b"\4kuma", 2)))
    assert read(records(hello, record), step) == ClientHello(b"Web{mesh=default}", (b"kuma",))


def test_sixteen_kibibytes_are_read_and_not_one_more():
    padding = MAX_MESSAGE_BYTES - (len(message(sni(b"a") + extension(21, b""))) - 4)
    full = message(sni(b"a") + extension(21, bytes(padding)))
    assert len(full) - 4 == MAX_MESSAGE_BYTES
    for record in (11, 100, 16384):
        assert read(records(full, record), 1500) == ClientHello(b"a", ())
    with pytest.raises(ValueError, match="at most 16384"):
        read(records(message(sni(b"a") + extension(21, bytes(padding + 1))), 16384), 1500)


def test_a_hello_of_four_kibibytes_may_come_in_records_of_one_byte():
    padding = 4096 - len(message(sni(b"a") + extension(21, b"")))
    full = records(message(sni(b"a") + extension(21, bytes(padding))), 1)
    assert len(full) == MAX_RAW_BYTES
    for step in (1, 1500, len(full)):
        assert read(full, step) == ClientHello(b"a", ())


@pytest.mark.parametrize("step", [1, 1500, 16384, 1 << 20])
def test_record_headers_do_not_make_us_hold_more(step):
    """However the bytes arrive: the same hello is refused, and before more of it is buffered."""
    raw = records(b"\1\0\x40\0" + bytes(MAX_MESSAGE_BYTES), 1)
    reader = ClientHelloReader()

    def feed_all() -> None:
        for at in range(0, len(raw), step):
            assert len(reader.raw) < MAX_RAW_BYTES + RECORD_HEADER
            assert reader.feed(raw[at : at + step]) is None

    with pytest.raises(ValueError, match="in the first 24576 bytes"):
        feed_all()
    assert len(reader.raw) < MAX_RAW_BYTES + RECORD_HEADER + step


def test_bytes_after_the_hello_are_kept_for_the_upstream():
    raw = records(message(sni(b"a")), 16384) + b"early data"
    reader = ClientHelloReader()
    assert reader.feed(raw) == ClientHello(b"a", ())
    assert bytes(reader.raw) == raw


def test_hello_without_server_name():
    assert read(real_hello(None), 7) == ClientHello(None, ())
    assert read(records(message(None), 99), 7) == ClientHello(None, ())


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"G", "type 71"),
        (b"\x16\x02", "version 2"),
        (b"\x16\3\1\0\0", "0 bytes"),
        (b"\x16\3\1\xff\xff", "65535 bytes"),
        (records(b"\2\0\0\1\0", 99), "type 2"),
        (records(message(sni(b"a", b"b")), 9999), "two"),
        (records(message(sni(b"")), 9999), "empty"),
        (records(message(extension(0, b"\0\0")), 9999), "without a host name"),
        (records(message(extension(0, b"\0\0\0")), 9999), "after the list"),
        (records(message(extension(16, b"\0\1\0")), 9999), "empty ALPN"),
        (records(message(extension(16, b"\0\2\1a\0")), 9999), "after the list"),
        (records(message(sni(b"a") + sni(b"a")), 9999), "twice"),
        (records(message(b"\0"), 9999), "cut short"),
        (records(message(b"", tail=b"x"), 9999), "after the extensions"),
        (records(b"\1\0\0\3\3\3\0", 9999), "cut short"),
    ],
)
def test_anything_else_is_refused(raw, reason):
    with pytest.raises(ValueError, match=reason):
        ClientHelloReader().feed(raw)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(max_size=80), max_size=8))
def test_random_bytes_raise_nothing_but_value_error(parts):
    reader = ClientHelloReader()
    with contextlib.suppress(ValueError):
        for part in parts:
            reader.feed(part)


GOOD = records(message(sni(b"web{mesh=default}") + extension(16, vector(b"\4kuma", 2))), 40)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), max_size=4), st.integers(1, 60))
def test_damaged_hello_raises_nothing_but_value_error(damage, step):
    raw = bytearray(GOOD)
    for at, value in damage:
        raw[at] = value
    with contextlib.suppress(ValueError):
        read(bytes(raw), step)
