"""Proxies without a data plane, many in one process: delta ADS clients that ask, read and acknowledge as Envoy does.

They run on gRPC's C library, which is what Envoy's client for kuma-dp is (``google_grpc``). Takes commands as lines of
JSON on stdin, answers each with one line:

    {"do": "connect", "first": 0, "count": 500}   the proxies dp-0 ... connect; with what they have kept, if anything
    {"do": "expect", "counts": {type: n}, "marker": "..."}   count from here
    {"do": "wait", "within_s": 60}                how far they are, once all have what is expected
    {"do": "drop"} {"do": "forget"}               end all connections; and keep nothing
"""

import argparse
import asyncio
import contextlib
import gc
import json
import resource
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from meshd.discovery import DeltaRequest, Node
from meshd.discovery.wire import encode_request
from tests.bench.xds.answers import CLUSTER, ENDPOINTS, LISTENER, SECRET, Reader

METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
MAX_CONNECTING = 64
"""Connections that one process opens at a time: Envoys are that slow together, too, on few cores."""


@dataclass(frozen=True)
class Target:
    """Where the control plane is and how to be let in."""

    address: str
    ca: bytes | None
    name: str
    token: str
    dp_version: str

    def channel(self) -> grpc.aio.Channel:
        options = [
            ("grpc.use_local_subchannel_pool", 1),  # a connection of its own
            ("grpc.ssl_target_name_override", self.name),
            ("grpc.enable_retries", 0),
        ]
        if self.ca is None:
            return grpc.aio.insecure_channel(self.address, options)
        return grpc.aio.secure_channel(self.address, grpc.ssl_channel_credentials(self.ca), options)


@dataclass
class Phase:
    """What is expected of every proxy from some moment on."""

    counts: dict[str, int]
    marker: bytes = b""
    done: dict[str, float] = field(default_factory=dict)
    """When each proxy had sent the acknowledgement of the last of it (``time.monotonic``)."""
    messages: int = 0
    resources: Counter[str] = field(default_factory=Counter)
    received_bytes: int = 0
    failures: list[str] = field(default_factory=list)
    complete: asyncio.Event = field(default_factory=asyncio.Event)


class Proxy:
    """One proxy: what it has, and its stream while it is connected."""

    def __init__(self, name: str, crowd: "Crowd") -> None:
        self.name = name
        self._crowd = crowd
        self.held: dict[str, dict[str, str]] = {CLUSTER: {}, ENDPOINTS: {}, SECRET: {}, LISTENER: {}}
        self.wanted: dict[str, set[str]] = {ENDPOINTS: set(), SECRET: set()}
        self.phase_counts: Counter[str] = Counter()
        self.marked = False
        self._asked: set[str] = set()

    async def run(self) -> None:
        """Connect, and answer until the connection ends or this is cancelled."""
        crowd = self._crowd
        async with crowd.connecting:
            channel = crowd.target.channel()
            await channel.channel_ready()
        try:
            metadata = [("authorization", crowd.target.token)] if crowd.target.token else None
            call = channel.stream_stream(METHOD)(metadata=metadata)
            self._asked = set()
            if self.held[CLUSTER]:  # Envoy asks for all it had at once
                for type_url in (CLUSTER, ENDPOINTS, SECRET, LISTENER):
                    await self._ask(call, type_url, sorted(self.wanted.get(type_url, ())))
            else:
                await self._ask(call, CLUSTER, [])
            while (data := await call.read()) is not grpc.aio.EOF:
                await self._take(call, data)
            raise ConnectionError(f"ended: {await call.code()} {await call.details()}")
        finally:
            await channel.close()

    async def _ask(self, call: Any, type_url: str, names: list[str]) -> None:
        first = type_url not in self._asked
        node = self._node() if not self._asked else None
        self._asked.add(type_url)
        request = DeltaRequest(type_url, tuple(names), initial_versions=self.held[type_url] if first else {}, node=node)
        await call.write(encode_request(request))

    async def _take(self, call: Any, data: bytes) -> None:
        answer = self._crowd.reader.read(data)
        held = self.held.setdefault(answer.type_url, {})
        endpoints: set[str] = set()
        secrets: set[str] = set()
        for told in answer.told:
            held[told.name] = told.version
            secrets.update(told.secrets)
            if told.wants_endpoints:
                endpoints.add(told.name)
        for name in answer.removed:
            held.pop(name, None)
        gone = self.wanted[ENDPOINTS].intersection(answer.removed) if answer.type_url == CLUSTER else set()
        self.wanted[ENDPOINTS] -= gone
        for name in gone:
            self.held[ENDPOINTS].pop(name, None)
        await call.write(encode_request(DeltaRequest(answer.type_url, nonce=answer.nonce)))
        acknowledged = time.monotonic()
        for type_url, names in ((ENDPOINTS, endpoints), (SECRET, secrets)):
            more = names - self.wanted[type_url]
            self.wanted[type_url] |= more
            if more or (type_url == ENDPOINTS and gone):
                request = DeltaRequest(
                    type_url, tuple(sorted(more)), tuple(sorted(gone)) if type_url == ENDPOINTS else ()
                )
                if type_url in self._asked:
                    await call.write(encode_request(request))
                else:
                    await self._ask(call, type_url, sorted(more))
        if LISTENER not in self._asked and self._is_warm():
            await self._ask(call, LISTENER, [])
        self._count(answer.type_url, len(answer.told) + len(answer.removed), data, acknowledged)

    def _is_warm(self) -> bool:
        """Whether every cluster has what it waits for: Envoy asks for listeners then."""
        return all(self.wanted[t] <= self.held[t].keys() for t in (ENDPOINTS, SECRET)) and bool(self.held[CLUSTER])

    def _count(self, type_url: str, resources: int, data: bytes, now: float) -> None:
        phase = self._crowd.phase
        phase.messages += 1
        phase.received_bytes += len(data)
        phase.resources[type_url] += resources
        self.phase_counts[type_url] += resources
        self.marked = self.marked or not phase.marker or phase.marker in data
        if self.name in phase.done or not self.marked:
            return
        if self._is_warm() and all(self.phase_counts[t] >= n for t, n in phase.counts.items()):
            self._crowd.has_all(self.name, now)

    def begin(self) -> None:
        """Count from here."""
        self.phase_counts.clear()
        self.marked = False

    def forget(self) -> None:
        """Keep nothing."""
        for kept in (*self.held.values(), *self.wanted.values()):
            kept.clear()

    def _node(self) -> Node:
        version = {"kumaDp": {"version": self._crowd.target.dp_version}, "envoy": {"version": "1.38.0"}}
        metadata: dict[str, Any] = {
            "dataplane.proxyType": "dataplane",
            "features": ["feature-tcp-accesslog-via-named-pipe"],
            "version": version,
        }
        return Node(f"default.{self.name}", self.name, metadata)


class Crowd:
    """All proxies of this process."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.reader = Reader()
        self.phase = Phase({})
        self.connecting = asyncio.Semaphore(MAX_CONNECTING)
        self._proxies: dict[str, Proxy] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def has_all(self, name: str, now: float) -> None:
        self.phase.done[name] = now
        if len(self.phase.done) >= len(self._tasks):
            self.phase.complete.set()

    async def _run(self, proxy: Proxy) -> None:
        try:
            await proxy.run()
        except Exception as error:  # noqa: BLE001 - told with the answer of the next wait
            self.phase.failures.append(f"{proxy.name}: {error!r}"[:500])

    async def do(self, command: dict[str, Any]) -> dict[str, Any]:
        match command["do"]:
            case "connect":
                for i in range(command["first"], command["first"] + command["count"]):
                    proxy = self._proxies.setdefault(f"dp-{i}", Proxy(f"dp-{i}", self))
                    self._tasks[proxy.name] = asyncio.create_task(self._run(proxy))
            case "expect":
                self.phase = Phase(command["counts"], command.get("marker", "").encode())
                self.reader.forget()
                for proxy in self._proxies.values():
                    proxy.begin()
            case "wait":
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.phase.complete.wait(), command["within_s"])
                return self._told()
            case "told":
                return self._told()
            case "drop":
                for task in self._tasks.values():
                    task.cancel()
                await asyncio.gather(*self._tasks.values(), return_exceptions=True)
                self._tasks.clear()
                gc.collect()
            case "forget":
                for proxy in self._proxies.values():
                    proxy.forget()
        return {}

    def _told(self) -> dict[str, Any]:
        phase = self.phase
        return {
            "done": sorted(phase.done.values()),
            "missing": len(self._tasks) - len(phase.done),
            "messages": phase.messages,
            "resources": dict(phase.resources),
            "bytes": phase.received_bytes,
            "failures": phase.failures[:3],
        }


async def main(target: Target) -> None:
    crowd = Crowd(target)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        answer = await crowd.do(json.loads(line))
        answer["cpu_s"] = time.process_time()
        print(json.dumps(answer), flush=True)
    await crowd.do({"do": "drop"})


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("--ca", type=Path)
    parser.add_argument("--name", default="localhost")
    parser.add_argument("--token", type=Path)
    parser.add_argument("--dp-version", required=True)
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(
        main(
            Target(
                options.address,
                options.ca.read_bytes() if options.ca else None,
                options.name,
                options.token.read_text().strip() if options.token else "",
                options.dp_version,
            )
        )
    )
