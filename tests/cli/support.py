"""Running commands in this process, against a control plane's API without sockets."""

import httpx
import trio
from click.testing import CliRunner

from meshd.cli.command import root
from meshd.cli.remote import ControlPlane


class Transport(httpx.BaseTransport):
    """Hands each request to an ASGI application, in a loop of its own."""

    def __init__(self, plane):
        self.plane = plane
        self.requests = []

    def handle_request(self, request):
        self.requests.append(request)

        async def ask():
            headers = {k: v for k, v in request.headers.items() if k != "host"}
            url = str(request.url.raw_path, "ascii")
            return await self.plane.client.request(request.method, url, content=request.content, headers=headers)

        answer = trio.run(ask)
        headers = {"content-type": answer.headers.get("content-type", "")}
        return httpx.Response(answer.status_code, content=answer.content, headers=headers)


def run(*args, plane=None, stdin=None, env=None, token=""):
    """The result of ``meshd ARGS``."""
    control_plane = ControlPlane("http://127.0.0.1:5681", token, Transport(plane)) if plane is not None else None
    return CliRunner().invoke(root, args, obj=control_plane, input=stdin, env=env, prog_name="meshd")
