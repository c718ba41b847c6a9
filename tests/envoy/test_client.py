"""How an admin interface is asked, and what is said of one that does not answer."""

import ssl
from pathlib import Path

import pytest
import trio

from meshd.envoy import client
from meshd.envoy.client import CONNECT_S, TIMEOUT_S, Admin, AtListener, AtSocket, reason_of
from meshd.model.errors import UnavailableError

NOT_OURS = "its certificate is not the one that this control plane gave it: "


class Pretended:
    """A place at which this answers; nothing that is asked there is looked at."""

    def __init__(self, answer=None, *, opens=True):
        self.answer, self.opens = answer, opens

    def __str__(self):
        return "here"

    async def open(self):
        if not self.opens:
            await trio.sleep_forever()
        ours, theirs = trio.testing.memory_stream_pair()
        if self.answer is not None:
            await theirs.send_all(self.answer)
            await theirs.send_eof()
        return ours


def chunked(body, status="200 OK"):
    head = f"HTTP/1.1 {status}\r\ntransfer-encoding: chunked\r\n\r\n".encode()
    return head + b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body, b"more")) + b"0\r\n\r\n"


async def test_an_answer_is_put_together():
    assert await Admin(Pretended(chunked(b"one and "))).clusters(as_json=False) == b"one and more"


@pytest.mark.parametrize(
    ("place", "after_s", "reason"),
    [
        (Pretended(opens=False), CONNECT_S, "no answer"),
        (Pretended(), TIMEOUT_S, "no answer"),
        (Pretended(b""), 0, "the connection ended early"),
        (Pretended(chunked(b"no")[:-9]), 0, "peer closed connection without sending complete message body"),
        (Pretended(chunked(b"not here, ", "404 Not Found")), 0, "status 404: not here, more"),
        (Pretended(b"\x15\x03\x01"), 0, "illegal request line"),
        (Pretended(chunked(bytes(2000))), 0, "more than 1000 bytes"),
    ],
)
async def test_no_answer_is_a_reason_in_bounded_time(place, after_s, reason, autojump_clock, monkeypatch):
    monkeypatch.setattr(client, "MAX_DUMP", 1000)
    began = trio.current_time()
    with pytest.raises(UnavailableError) as error:
        await Admin(place).clusters(as_json=True)
    assert str(error.value).startswith("admin interface here: /clusters?format=json: ")
    assert reason in str(error.value)
    assert trio.current_time() - began == pytest.approx(after_s)


def because(error, cause):
    error.__cause__ = cause
    return error


def not_verified():
    error = ssl.SSLCertVerificationError(1, "certificate verify failed: Hostname mismatch")
    error.verify_message = "Hostname mismatch, certificate is not valid for 'x'"
    return error


def alert():
    error = ssl.SSLError(1, "[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] tlsv13 alert certificate required (_ssl.c:2576)")
    error.reason = "TLSV13_ALERT_CERTIFICATE_REQUIRED"
    return error


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (trio.TooSlowError(), "no answer"),
        (ConnectionRefusedError(111, "Error connecting to ('10.0.0.9', 9901)"), "connection refused"),
        (because(OSError("all attempts failed"), ConnectionRefusedError(111, "x")), "connection refused"),
        (because(OSError("all attempts failed"), ExceptionGroup("", [OSError(113, "x")])), "no route to host"),
        (because(trio.BrokenResourceError(), alert()), "TLS: tlsv13 alert certificate required"),
        (
            because(trio.BrokenResourceError(), not_verified()),
            f"{NOT_OURS}Hostname mismatch, certificate is not valid for 'x'",
        ),
        (because(ValueError("status 503"), OSError(1, "x")), "status 503"),
        (trio.BrokenResourceError(), "BrokenResourceError"),
    ],
)  # fmt: skip
def test_reasons_are_of_the_error_beneath(error, reason):
    assert reason_of(error) == reason


@pytest.mark.parametrize(
    ("place", "shown"),
    [
        (AtSocket(Path("/v/admin.sock")), "/v/admin.sock"),
        (AtListener("10.0.0.9", 9901, "x", None), "10.0.0.9:9901"),
        (AtListener("fd00::9", 9901, "x", None), "[fd00::9]:9901"),
    ],
)
def test_places_have_names(place, shown):
    assert str(place) == shown
