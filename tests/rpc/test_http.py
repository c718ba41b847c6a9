"""Requests and answers as values."""

import pytest

from meshd.rpc import HttpRequest, HttpResponse, refusal
from meshd.rpc.http import request_of, response_fields, split_target


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/bootstrap", ("cp:5678", "/bootstrap", "")),
        ("/a?b=c?d", ("cp:5678", "/a", "b=c?d")),
        ("/?next=http://x/", ("cp:5678", "/", "next=http://x/")),
        ("/a#b?c", ("cp:5678", "/a", "")),
        ("*", ("cp:5678", "*", "")),
        ("https://other:1/a?b", ("other:1", "/a", "b")),
        ("https://user:secret@other", ("other", "/", "")),
    ],
)
def test_a_target_is_split(target, expected) -> None:
    assert split_target(target, "cp:5678") == expected


@pytest.mark.parametrize("target", ["", "a", "?a", "http://[/"])
def test_what_is_no_target_is_refused(target) -> None:
    with pytest.raises(ValueError):
        split_target(target, "h")


@pytest.mark.parametrize(
    ("response", "is_head", "expected"),
    [
        (HttpResponse(200, b"abc"), False, {b"content-type": b"text/plain; charset=utf-8", b"content-length": b"3"}),
        (
            HttpResponse(200, b"abc", "application/json", (("X-A", "1"),)),
            True,
            {b"content-type": b"application/json", b"content-length": b"3", b"x-a": b"1"},
        ),
        (HttpResponse(404), False, {b"content-length": b"0"}),
        (HttpResponse(204), False, {}),
    ],
)
def test_the_headers_of_an_answer(response, is_head, expected) -> None:
    fields = dict(response_fields(response, is_head=is_head))
    assert fields.pop(b"date").endswith(b" GMT")
    assert fields == expected


def test_a_request_of_http2_has_no_pseudo_headers() -> None:
    headers = ((":method", "PUT"), (":path", "/a?b"), (":authority", "cp:1"), ("accept", "x"), ("accept", "y"))
    request = request_of(dict(headers), headers, b"body", "peer:1")
    assert request == HttpRequest("PUT", "/a", "b", "cp:1", (("accept", "x"), ("accept", "y")), b"body", peer="peer:1")
    assert (request.header("accept"), request.header("none")) == ("x", "")


def test_a_refusal_says_its_status_or_more() -> None:
    assert refusal(404).body == b"Not Found\n"
    assert refusal(405, "only POST").body == b"only POST\n"
