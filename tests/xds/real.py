"""A real Envoy that has resources as its static configuration, and clients of a mesh that talk to it."""

import json
import os
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import trio

from meshd.ca import x509
from meshd.ca.identity import Credentials, Identity
from meshd.ca.origination import pem_path
from meshd.xds import tls
from meshd.xds.resources import CLUSTER, ENDPOINTS, LISTENER, SECRET, XdsResource, resource
from tests.l4 import pki
from tests.l4.envoy import Running, wait_ready
from tests.l4.lab import LOCAL
from tests.ports import free_port
from tests.xds.support import document_of
from tests.xds.validate import envoy_binary


def identity(*uris: str, mesh: str = "default") -> Identity:
    """A certificate with exactly these URI SANs, in this order."""
    return x509.issue(x509.load_signer(pki.root(mesh, 0)), mesh, uris, pki.NOW, timedelta(hours=1))


def secrets(*uris: str, mesh: str = "default") -> list[XdsResource]:
    """What a proxy with these URIs shows and trusts."""
    credentials = Credentials(identity(*uris, mesh=mesh), pki.trust(mesh))
    return [resource(SECRET, document) for document in tls.secrets(mesh, credentials)]


def static(resources: Iterable[XdsResource]) -> dict[str, list[Any]]:
    """Resources as ``static_resources``: endpoints inside their clusters, secrets by name."""
    found: dict[str, dict[str, Any]] = {CLUSTER: {}, ENDPOINTS: {}, LISTENER: {}, SECRET: {}}
    for item in resources:
        document = _without_sds(document_of(item))
        document.pop("@type")
        found[item.type_url][item.name] = document
    for name, cluster in found[CLUSTER].items():
        if cluster.pop("edsClusterConfig", None):
            cluster["type"] = "STATIC"
            cluster["loadAssignment"] = found[ENDPOINTS][name]
    kinds = {"clusters": CLUSTER, "listeners": LISTENER, "secrets": SECRET}
    return {key: list(found[kind].values()) for key, kind in kinds.items()}


def _without_sds(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_sds(inner) for key, inner in value.items() if key != "sdsConfig"}
    return [_without_sds(inner) for inner in value] if isinstance(value, list) else value


@asynccontextmanager
async def envoy(directory: Path, resources: Iterable[XdsResource]) -> AsyncIterator[Running]:
    """A running Envoy of one worker that has bound its listeners."""
    admin = free_port()
    path = directory / f"envoy-{admin}.json"
    address = {"socketAddress": {"address": LOCAL, "portValue": admin}}
    path.write_text(json.dumps({"admin": {"address": address}, "staticResources": static(resources)}))
    log = path.with_suffix(".log")
    options = ["--concurrency", "1", "--disable-hot-restart", "--log-path", str(log), "-l", "warn"]
    command = [envoy_binary(), "-c", str(path), *options]
    process = subprocess.Popen(command, env={**os.environ, "TERM": "dumb"})  # noqa: ASYNC220
    try:
        await trio.to_thread.run_sync(wait_ready, process, admin, log)
        yield Running(process.pid, admin)
    finally:
        process.kill()
        process.wait()


def client_context(shown: Identity | None, mesh: str = "default", alpn: Sequence[str] = ("kuma",)) -> ssl.SSLContext:
    """A client of the mesh; it does not look at the server's name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=pki.trust(mesh).pem.decode())
    context.set_alpn_protocols(list(alpn))
    if shown is not None:
        with pem_path(shown.chain_pem + shown.key_pem) as path:
            context.load_cert_chain(path)
    return context


async def ask(
    port: int,
    context: ssl.SSLContext | None,
    data: bytes,
    sni: str = "web{mesh=default}",
    *,
    to_the_end: bool = False,
) -> bytes:
    """What is answered at first (or until the end), empty if the connection ends without an answer."""
    got = b""
    try:
        with trio.fail_after(5):
            stream: trio.abc.Stream = await trio.open_tcp_stream(LOCAL, port)
            if context is not None:
                name: Any = sni.encode()  # as text it would have to be a DNS name
                stream = trio.SSLStream(stream, context, server_hostname=name, https_compatible=True)
            async with stream:
                if data:
                    await stream.send_all(data)
                got = await stream.receive_some()
                while to_the_end and (more := await stream.receive_some()):
                    got += more
    except (OSError, trio.BrokenResourceError, ssl.SSLError):
        pass
    return got
