"""The demo: a global, two zones and an example HTTP service in each, in one process, as an ordinary user.

Usage: python conf/demo/demo.py [--check]

``--check`` asks the questions that it would otherwise print, and ends with code 0 if every answer is right.
State is under var/demo; delete it to start anew.
"""

import logging
import os
import signal
import sys
from functools import partial
from pathlib import Path

import dnslib
import httpx
import trio

from meshd.app import run_roles
from meshd.cli.known import decode
from meshd.config import ConfigErrors, LoadedConfig, check_together, load_files
from meshd.model.codec import load_documents
from meshd.model.errors import MeshdError
from meshd.runtime import log as process_log
from meshd.runtime.listen import open_listeners
from meshd.runtime.supervisor import leaves

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
STATE = ROOT / "var" / "demo"
GLOBAL = "http://127.0.0.1:15681"
SERVICES = {"hello": ("zone-a", 25080), "payments": ("zone-b", 26080)}
"""Service -> the zone and port of its application."""
DNS = {"zone-a": 25653, "zone-b": 26653}
VIP_PORT = 8080
READY_S = 60

log = logging.getLogger("demo")


def main() -> int:
    """Run until Ctrl-C, or until everything was checked."""
    is_check = sys.argv[1:] == ["--check"]
    if sys.argv[1:] and not is_check:
        print(__doc__)
        return 2
    STATE.mkdir(parents=True, exist_ok=True, mode=0o700)
    process_log.set_up("warning" if is_check else "info", "text")
    try:
        files = [HERE / f"{role}.yaml" for role in ("global", "zone-a", "zone-b")]
        roles = load_files(files, os.environ, decode())
        check_together(roles)
    except ConfigErrors as error:
        print(*error.problems, sep="\n", file=sys.stderr)
        return 2
    code = 0
    try:
        code = trio.run(run, roles, is_check)
    except* MeshdError as group:
        for error in leaves(group):
            print(f"demo: {error}", file=sys.stderr)
        code = 2
    return code


async def run(roles: tuple[LoadedConfig, ...], is_check: bool) -> int:
    """The applications outside, the roles inside: they end first, then nobody is left to serve."""
    stop = trio.Event()
    code = 0
    async with trio.open_nursery() as outside:
        for service, (zone, port) in SERVICES.items():
            answer = f"{service} in {zone}\n".encode()
            listeners = await open_listeners("127.0.0.1", port, f"the application of {service}")
            outside.start_soon(trio.serve_listeners, partial(application, answer), listeners)
        outside.start_soon(stop_on_signal, stop)
        async with trio.open_nursery() as inside:
            inside.start_soon(run_roles, roles, stop, lambda: None)
            async with trio.open_nursery() as operator:
                operator.start_soon(cancel_on_stop, stop, operator.cancel_scope)
                code = await operate(is_check)
                if code == 0 and not is_check:
                    await stop.wait()
                operator.cancel_scope.cancel()
            stop.set()
        outside.cancel_scope.cancel()
    return code


async def cancel_on_stop(stop: trio.Event, scope: trio.CancelScope) -> None:
    """Do not finish setting up what is about to end."""
    await stop.wait()
    scope.cancel()


async def operate(is_check: bool) -> int:
    """Set the mesh up, ask every service by name from zone-a, and say what came of it."""
    answers: dict[str, str] = {}
    with trio.move_on_after(READY_S):
        await set_up()
        vips = {name: await resolved("zone-a", name) for name in SERVICES}
        answers = {name: await fetched(vip) for name, vip in vips.items()}
    if answers != {name: f"{name} in {zone}" for name, (zone, _) in SERVICES.items()}:
        print(f"demo: not complete within {READY_S} s, answers: {answers}; the log says more", file=sys.stderr)
        return 1
    print(f"demo: {answers}" if is_check else instructions(vips), flush=True)
    return 0


async def stop_on_signal(stop: trio.Event) -> None:
    """Ctrl-C or SIGTERM ends it in order."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            stop.set()


async def application(answer: bytes, stream: trio.SocketStream) -> None:
    """A small HTTP service: one answer for every request, then goodbye."""
    try:
        async with stream:
            head = b""
            while b"\r\n\r\n" not in head and len(head) < 65536:
                chunk = await stream.receive_some()
                if not chunk:
                    return
                head += chunk
            length = f"Content-Length: {len(answer)}\r\n".encode()
            await stream.send_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n" + length + b"\r\n" + answer)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return


async def set_up() -> None:
    """What an operator does once: a mesh with mTLS, a permission, and a token for each zone's control plane."""
    async with httpx.AsyncClient(base_url=GLOBAL, timeout=10) as client:
        while True:
            try:
                (await client.get("/")).raise_for_status()
                break
            except httpx.TransportError:
                await trio.sleep(0.1)
        for zone in DNS:
            answer = await client.post("/tokens/zone", json={"zone": zone, "scope": ["cp"], "validFor": "720h"})
            answer.raise_for_status()
            token = STATE / f"{zone}.token"
            token.touch(mode=0o600)
            token.write_text(answer.text)
        for resource in mesh_resources():
            kind = "" if resource["type"] == "Mesh" else f"/meshtrafficpermissions/{resource['name']}"
            path = f"/meshes/default{kind}"
            (await client.put(path, json=resource)).raise_for_status()


def mesh_resources() -> list[dict[str, object]]:
    """The documents of resources/mesh.yaml."""
    path = HERE / "resources" / "mesh.yaml"
    return [dict(document.data) for document in load_documents(path.read_text(), str(path))]


async def resolved(zone: str, service: str) -> str:
    """The address of ``service.mesh`` as the resolver of ``zone`` gives it, once it does."""
    socket = trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM)
    with socket:
        await socket.connect(("127.0.0.1", DNS[zone]))
        while True:
            with trio.move_on_after(1):
                try:
                    await socket.send(dnslib.DNSRecord.question(f"{service}.mesh").pack())
                    answer = dnslib.DNSRecord.parse(await socket.recv(4096))
                    if answer.rr:
                        return str(answer.rr[0].rdata)
                except ConnectionRefusedError:
                    pass
            await trio.sleep(0.1)


async def fetched(vip: str) -> str:
    """What answers at a VIP, once something does."""
    async with httpx.AsyncClient(timeout=5) as client:
        while True:
            try:
                return (await client.get(f"http://{vip}:{VIP_PORT}/")).text.strip()
            except httpx.TransportError:
                await trio.sleep(0.1)


def instructions(vips: dict[str, str]) -> str:
    """What to try."""
    payments = vips["payments"]
    return f"""
The mesh is up: a global, zone-a and zone-b, with mTLS. From zone-a, ask for the service that lives in zone-b:

  dig @127.0.0.1 -p {DNS["zone-a"]} payments.mesh
  curl http://{payments}:{VIP_PORT}/
  curl --resolve payments.mesh:{VIP_PORT}:{payments} http://payments.mesh:{VIP_PORT}/

What the global knows, and the connections that zone-a's proxies have carried or refused:

  .venv/bin/meshd --cp {GLOBAL} get zones
  .venv/bin/meshd --cp {GLOBAL} get dataplanes -m default
  curl -s http://127.0.0.1:25680/metrics | grep meshd_l4_connections

Through zone-a's egress instead: set zoneEgress: true in conf/demo/resources/mesh.yaml, then

  .venv/bin/meshd --cp {GLOBAL} apply -f conf/demo/resources/mesh.yaml

Ctrl-C ends it. State is kept in var/demo.
"""


if __name__ == "__main__":
    sys.exit(main())
