"""The control plane that is measured: a zone as ``meshd`` runs it, or any other at an address."""

import json
import os
import ssl
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from meshd import __version__
from tests.bench.l4.load import cpu_seconds
from tests.e2e import lab as lab_
from tests.e2e.lab import Lab

STOP_S = 30


@dataclass
class Plane:
    """Where it takes proxies and resources, and the process whose costs are counted."""

    address: str
    api: httpx.Client
    pid: int
    ca: Path
    name: str
    dp_version: str
    token: Path | None = None
    turns: Path | None = None

    @property
    def cpu_s(self) -> float:
        """User and system seconds so far."""
        return cpu_seconds(self.pid)

    def memory_mb(self, what: str = "VmRSS") -> float:
        """Resident now (VmRSS) or at most so far (VmHWM)."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(what):
                return int(line.split()[1]) / 1024
        raise ValueError(what)

    def put(self, path: str, body: dict[str, Any]) -> None:
        """Apply a resource."""
        answer = self.api.put(path, json=body)
        assert answer.status_code in (200, 201), f"PUT {path}: {answer.status_code} {answer.text}"

    def put_dataplane(self, index: int, service: str, address: str) -> None:
        """A Dataplane ``dp-index`` with one inbound, http if the index is even, on a host that redirects."""
        protocol = "tcp" if index % 2 else "http"
        body = {
            "type": "Dataplane",
            "mesh": "default",
            "name": f"dp-{index}",
            "networking": {
                "address": address,
                "inbound": [
                    {
                        "port": 80,
                        "servicePort": 8080,
                        "tags": {"kuma.io/service": service, "kuma.io/protocol": protocol},
                    }
                ],
                "transparentProxying": {"redirectPortInbound": 15006, "redirectPortOutbound": 15001},
            },
        }
        self.put(f"/meshes/default/dataplanes/dp-{index}", body)

    def turns_so_far(self) -> dict[str, Any]:
        """How long the turns of its loop and the steps of its tasks were since the last call; empty unless watched."""
        if self.turns is None:
            return {}
        self.turns.unlink(missing_ok=True)
        os.kill(self.pid, TURNS_SIGNAL)
        lab_.eventually(self.turns.exists)
        return dict(json.loads(self.turns.read_text()))


TURNS_SIGNAL = 12
"""SIGUSR2."""


@contextmanager
def own_zone(directory: Path, *, watched: bool) -> Iterator[Plane]:
    """A standalone zone with SQLite, TLS, tokens and all defaults. ``watched``: its loop's turns are timed."""
    with Lab(directory) as lab:
        zone = lab.configure_zone("zone-a", federated=False)
        turns = directory / "turns.json" if watched else None
        if turns is None:
            lab.start("zone-a")
        else:
            argv = [sys.executable, "-m", "tests.bench.xds.watched", str(turns), "--config", str(zone.path)]
            root = str(Path(__file__).resolve().parents[3])
            zone.process = lab.spawn("zone-a", argv, env={"PYTHONPATH": root})
            lab.ready("zone-a")
        with httpx.Client(base_url=lab.url("zone-a"), timeout=30) as api:
            token = directory / "dataplane.token"
            answer = api.post("/tokens/dataplane", json={"mesh": "default", "validFor": "24h"})
            assert answer.status_code == 200, answer.text
            token.write_text(answer.text)
            (ca,) = (directory / "zone-a").rglob("dp-server/ca.crt")
            assert zone.process is not None
            pid = zone.process.popen.pid
            yield Plane(f"127.0.0.1:{zone.dp}", api, pid, ca, "localhost", __version__, token, turns)
        zone.process.stop(STOP_S)


@contextmanager
def other(directory: Path, address: str, rest: str, pid: int, dp_version: str) -> Iterator[Plane]:
    """A control plane that runs already, without authentication of Dataplanes and with a certificate for localhost."""
    host, _, port = address.rpartition(":")
    ca = directory / "ca.crt"
    ca.write_text(ssl.get_server_certificate((host, int(port))))
    with httpx.Client(base_url=rest, timeout=30) as api:
        yield Plane(address, api, pid, ca, "localhost", dp_version)


@contextmanager
def using(plane: Plane) -> Iterator[dict[str, float]]:
    """What it uses inside of the block: ``cpu_s`` and ``wall_s``, there when the block has ended."""
    used: dict[str, float] = {}
    cpu, wall = plane.cpu_s, time.monotonic()
    yield used
    used["wall_s"] = time.monotonic() - wall
    used["cpu_s"] = plane.cpu_s - cpu
