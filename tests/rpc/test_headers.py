"""Metadata, deadlines and status in headers."""

import pytest

from meshd.model.errors import InvalidError
from meshd.rpc.headers import (
    decode_headers,
    encode_metadata,
    request_headers,
    status_of_answer,
    timeout_of,
    trailers,
    user_metadata,
)
from meshd.rpc.status import RpcError, Status


def test_repeated_keys_stay_apart_and_transport_headers_go() -> None:
    headers = decode_headers(
        [
            (b":path", b"/s/m"),
            (b"te", b"trailers"),
            (b"grpc-timeout", b"1S"),
            (b"features", b"zone-ping-health"),
            (b"features", b"hash-suffix"),
            (b"odd", b"\xff"),
        ]
    )
    assert user_metadata(headers) == (("features", "zone-ping-health"), ("features", "hash-suffix"), ("odd", "\xff"))


def test_metadata_that_grpc_cannot_carry_is_named_all_at_once() -> None:
    with pytest.raises(InvalidError) as caught:
        encode_metadata([("Upper", "x"), ("ok", "x"), ("line", "a\r\nb"), ("grpc-x", ""), ("te", "x")])
    assert [v.field for v in caught.value.violations] == ["Upper", "line", "grpc-x", "te"]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("1H", 3600), ("2M", 120), ("3S", 3), ("250m", 0.25), ("9u", 9e-6), ("8n", 8e-9), (None, None)],
)
def test_timeouts(value, seconds) -> None:
    assert timeout_of({} if value is None else {"grpc-timeout": value}) == (seconds and pytest.approx(seconds))


@pytest.mark.parametrize("value", ["", "1", "S", "1s", "-1S", "1.5S", "123456789S", "1S "])
def test_no_timeouts(value) -> None:
    with pytest.raises(RpcError, match="no timeout"):
        timeout_of({"grpc-timeout": value})


@pytest.mark.parametrize("seconds", [0.0, 0.001, 0.5, 5.0, 300.0, 86400.0])
def test_a_timeout_told_is_understood(seconds) -> None:
    fields = dict(decode_headers(request_headers("/s/m", "a", "http", (), gzip=True, timeout_s=seconds)))
    assert timeout_of(fields) == pytest.approx(seconds)
    assert fields["grpc-encoding"] == "gzip"


@pytest.mark.parametrize("message", ["", "plain", "100% zürich\n\x00\x7f", "🚦 end"])
def test_status_messages_survive_escaping(message) -> None:
    wire = trailers(Status.ABORTED, message)
    assert all(0x20 <= byte < 0x7F for _, value in wire for byte in value)
    got = status_of_answer(dict(decode_headers(wire)))
    assert (got.status, got.message) == (Status.ABORTED, message)


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({":status": "503"}, Status.UNAVAILABLE),
        ({":status": "404"}, Status.UNIMPLEMENTED),
        ({":status": "200"}, Status.UNKNOWN),
        ({":status": "x"}, Status.UNKNOWN),
        ({":status": "503", "grpc-status": "7"}, Status.PERMISSION_DENIED),
        ({"grpc-status": "99"}, Status.UNKNOWN),
        ({"grpc-status": "-1"}, Status.UNKNOWN),
    ],
)
def test_answers_that_are_no_grpc(fields, status) -> None:
    assert status_of_answer(fields).status is status
