"""The three contenders in one shape: a passthrough by SNI, and an outbound with an inbound behind it; one thread."""

import multiprocessing
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from tests.bench.l4.load import LOCAL
from tests.l4 import envoy, pki
from tests.l4.lab import dataplane, endpoint, ingress, running, service, view
from tests.ports import free_port

MESH = "default"
SNI = "web{mesh=default}"


@dataclass(frozen=True)
class Ports:
    """Where a contender listens: ``passthrough`` -> ``sink``, ``outbound`` -> ``inbound`` -> ``application``."""

    passthrough: int
    outbound: int
    inbound: int
    sink: int
    application: int


def ports(sink: int, application: int) -> Ports:
    return Ports(free_port(), free_port(), free_port(), sink, application)


def wait_for(*listening: int) -> None:
    deadline = time.monotonic() + 20
    for port in listening:
        while True:
            try:
                socket.create_connection((LOCAL, port), timeout=1).close()
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)


async def run_meshd(p: Ports) -> None:
    async with AsyncExitStack() as stack:
        entry = view(ingress=[service("web", endpoint(p.sink))])
        await stack.enter_async_context(running(ingress(p.passthrough), entry))
        target = view(service("web", endpoint(p.inbound)))
        inbound = dataplane("web", inbound=[(p.inbound, p.application, "web")])
        await stack.enter_async_context(running(inbound, target))
        outbound = dataplane("shop", gateway="shop", outbound=[(p.outbound, "web")])
        await stack.enter_async_context(running(outbound, target))
        await trio.sleep_forever()


@contextmanager
def meshd(p: Ports, _: Path) -> Iterator[int]:
    process = multiprocessing.get_context("fork").Process(target=trio.run, args=(run_meshd, p), daemon=True)
    process.start()
    try:
        wait_for(p.passthrough, p.outbound, p.inbound)
        assert process.pid is not None
        yield process.pid
    finally:
        process.kill()
        process.join()


CLIENT = f"sni str({SNI}) alpn kuma no-ssl-reuse no-tls-tickets"
HAPROXY = """
global
  nbthread 1
  maxconn 400
  ssl-server-verify required
  tune.ssl.cachesize 0
defaults
  mode tcp
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend passthrough
  bind {local}:{p.passthrough}
  tcp-request inspect-delay 5s
  tcp-request content accept if {{ req_ssl_hello_type 1 }}
  use_backend sink if {{ req.ssl_sni -m str -i "{sni}" }}
backend sink
  server one {local}:{p.sink}
frontend outbound
  bind {local}:{p.outbound}
  default_backend mesh
backend mesh
  server one {local}:{p.inbound} ssl crt {shop} ca-file {ca} verify none {client}
frontend inbound
  bind {local}:{p.inbound} ssl crt {web} ca-file {ca} verify required alpn kuma no-tls-tickets
  default_backend application
backend application
  server one {local}:{p.application}
"""


@contextmanager
def haproxy(p: Ports, directory: Path) -> Iterator[int]:
    files = {"ca": directory / "ca.pem", "web": directory / "web.pem", "shop": directory / "shop.pem"}
    files["ca"].write_bytes(pki.trust(MESH).pem)
    for name in ("web", "shop"):
        one = pki.identity(MESH, name)
        files[name].write_bytes(one.chain_pem + one.key_pem)
    config = directory / "haproxy.cfg"
    config.write_text(HAPROXY.format(p=p, local=LOCAL, sni=SNI, client=CLIENT, **files))
    process = subprocess.Popen(["haproxy", "-db", "-q", "-f", str(config)])
    try:
        wait_for(p.passthrough, p.outbound, p.inbound)
        yield process.pid
    finally:
        process.kill()
        process.wait()


@contextmanager
def envoys(p: Ports, directory: Path) -> Iterator[int]:
    trust = pki.trust(MESH)
    through, sinks = envoy.passthrough(p.passthrough, {SNI: p.sink})
    out, mesh = envoy.outbound(p.outbound, p.inbound, pki.identity(MESH, "shop"), trust, "web")
    into, application = envoy.inbound(p.inbound, p.application, pki.identity(MESH, "web"), trust)
    mesh["transport_socket"]["typed_config"]["max_session_keys"] = 0
    downstream = into["filter_chains"][0]["transport_socket"]["typed_config"]
    downstream["disable_stateless_session_resumption"] = True
    downstream["disable_stateful_session_resumption"] = True
    with envoy.envoy(directory, [through, out, into], [*sinks, mesh, application]) as running_envoy:
        wait_for(p.passthrough, p.outbound, p.inbound)
        yield running_envoy.pid


CONTENDERS = {"meshd": meshd, "haproxy": haproxy, "envoy": envoys}
