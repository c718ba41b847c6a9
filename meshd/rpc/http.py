"""Plain HTTP beside gRPC on one port: a request and its answer as values, whichever version carried them. No I/O."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from urllib.parse import urlsplit

from meshd.rpc.headers import Header

TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One request, whole. ``host`` is what its client called us, port and all; ``path`` is as sent, undecoded.

    ``headers`` have lower-case names; repeated ones are apart, in order. ``peer`` is the client's ``ip:port``.
    """

    method: str
    path: str
    query: str = ""
    host: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    peer: str = ""

    def header(self, name: str) -> str:
        """The first header of that (lower-case) name; empty if there is none."""
        return next((value for key, value in self.headers if key == name), "")


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """One answer. The server adds length and date; an empty ``content_type`` adds none."""

    status: int = 200
    body: bytes = b""
    content_type: str = TEXT
    headers: tuple[tuple[str, str], ...] = ()


HttpHandler = Callable[[HttpRequest], Awaitable[HttpResponse]]
"""Answers one request. What it raises is a bug: 500, logged. Over HTTP/2 it is cancelled when its client is gone."""


def refusal(status: int, detail: str = "") -> HttpResponse:
    """A short answer in plain text."""
    return HttpResponse(status, (detail or HTTPStatus(status).phrase).encode() + b"\n")


def split_target(target: str, host: str) -> tuple[str, str, str]:
    """A request's target and Host -> host, path, query. An absolute target brings its own host (RFC 9112, 3.2.2).

    Raises:
        ValueError: it is no target that a URL can be made of.
    """
    if "://" in target.partition("?")[0]:
        parts = urlsplit(target)
        return parts.netloc.rpartition("@")[2] or host, parts.path or "/", parts.query
    path, _, query = target.partition("#")[0].partition("?")
    if not path.startswith("/") and path != "*":
        raise ValueError("the request's target is no path")
    return host, path, query


def response_fields(response: HttpResponse, *, is_head: bool) -> list[Header]:
    """The headers of an answer. One to HEAD says the length that it would have had."""
    fields = [(name.lower().encode("ascii"), value.encode("latin-1")) for name, value in response.headers]
    if response.content_type and (response.body or is_head):
        fields.append((b"content-type", response.content_type.encode("ascii")))
    if response.status >= 200 and response.status not in (204, 304):
        fields.append((b"content-length", str(len(response.body)).encode()))
    fields.append((b"date", formatdate(usegmt=True).encode()))
    return fields


def request_of(fields: Mapping[str, str], headers: Iterable[tuple[str, str]], body: bytes, peer: str) -> HttpRequest:
    """The request that an HTTP/2 stream carried. ``fields`` are its headers by name, pseudo-headers among them.

    Raises:
        ValueError: see ``split_target``.
    """
    authority = fields.get(":authority") or fields.get("host", "")
    host, path, query = split_target(fields.get(":path", ""), authority)
    own = tuple((name, value) for name, value in headers if not name.startswith(":"))
    return HttpRequest(fields.get(":method", ""), path, query, host, own, body, peer)
