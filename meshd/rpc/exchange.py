"""One plain HTTP request on a stream of an HTTP/2 connection, and its answer."""

import trio

from meshd.rpc.headers import Header, Metadata
from meshd.rpc.http import HttpRequest, HttpResponse, refusal, request_of, response_fields
from meshd.rpc.http1 import RefusedError, Respond
from meshd.rpc.stream import Stream


async def exchange(stream: Stream, headers: Metadata, respond: Respond) -> int:
    """Read the request, answer it, end our side; returns the answer's status. The stream may be reset meanwhile.

    Raises:
        RpcError, UnavailableError: the client has reset the stream, or the connection is lost.
    """
    fields = dict(headers)
    try:
        response = await respond(await _request(stream, fields, headers))
    except RefusedError as error:
        response = refusal(error.status, str(error))
    await _send(stream, response, is_head=fields.get(":method") == "HEAD")
    return response.status


async def _request(stream: Stream, fields: dict[str, str], headers: Metadata) -> HttpRequest:
    if fields.get(":method") == "CONNECT":
        raise RefusedError(405, "", "CONNECT is not served here")
    body = await _body(stream, fields.get("expect", ""))
    try:
        return request_of(fields, headers, body, stream.peer)
    except ValueError as error:
        raise RefusedError(400, "", str(error)) from None


async def _body(stream: Stream, expect: str) -> bytes:
    limits = stream.connection.limits
    if expect.lower() == "100-continue":
        stream.connection.send_headers(stream, [(b":status", b"100")])
    body = bytearray()
    with trio.move_on_after(limits.body_s):
        while data := await stream.receive_some():
            body += data
            if len(body) > limits.max_body_bytes:
                raise RefusedError(413, "", f"the body is longer than {limits.max_body_bytes} bytes")
        return bytes(body)
    raise RefusedError(408, "", f"the request's body took longer than {limits.body_s:g} s")


async def _send(stream: Stream, response: HttpResponse, *, is_head: bool) -> None:
    status: list[Header] = [(b":status", str(response.status).encode())]
    headers = status + response_fields(response, is_head=is_head)
    body = b"" if is_head else response.body
    stream.connection.send_headers(stream, headers, end=not body)
    if body:
        with trio.move_on_after(stream.connection.limits.response_s):  # cut in the middle, the stream is reset
            await stream.send_raw(body)
