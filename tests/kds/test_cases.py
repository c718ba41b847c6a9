"""Folder cases: stores before, steps, and stores after, of a global and its zones.

``tests/cases/kds/<case>/``: ``<process>.input.yaml`` (documents), ``steps.yaml`` (see ``STEPS``), and after them
``<process>.golden.yaml``. ``UPDATE_GOLDEN=1`` writes the goldens.
"""

import os
from pathlib import Path

import pytest
import trio
import yaml

from meshd.discovery import Entry
from meshd.discovery.wire import any_bytes
from meshd.kds.client import ZoneKds
from meshd.kds.outbox import Outgoing
from meshd.kds.server import GlobalKds
from meshd.model import codec
from meshd.rpc import Channel, ClientStream
from tests.kds.lab import REGISTRY, Lab, lab

CASES = Path(__file__).parents[1] / "cases" / "kds"
PROCESSES = ("global", "zone-a", "zone-b", "zone-c")
STEPS = ("start", "stop", "put", "delete", "settle", "cut", "heal", "refuse", "cut-when", "end-upload", "poison")


async def step(it: Lab, action: dict) -> None:
    [(what, value)] = action.items()
    match what:
        case "start":
            for name in value:
                # "zone-c as zone-a": a process that has the name of another zone.
                process, _, zone = name.partition(" as ")
                await it.start(process, zone=zone)
        case "stop":
            await it.stop(value)
        case "put":
            await it.put(value["at"], *value["documents"])
        case "delete":
            await it.delete(value["at"], value["kind"], value["name"], value.get("mesh", ""))
        case "settle":
            await it.settle(value)
        case "cut":
            it.reachable[value] = False
            it.cables[value].vanish()
        case "heal":
            it.reachable[value] = True
        case "cut-when":
            # A partition in the middle of a sync: as soon as the zone has one resource of the kind.
            while not it.store(value["at"]).list(value["kind"]):
                await trio.sleep(0.0001)
            it.reachable[value["at"]] = False
            it.cables[value["at"]].vanish()
        case "end-upload":
            [stream] = [s for s in UPLOADS if s.connection is CHANNELS[value].connection]
            await stream.end()
        case "poison":
            # The zone has, among what it sends, a resource that nobody can read.
            kds = it.zone_kds(value["zone"])
            entry = Entry(value["name"], "poisoned", any_bytes("x/y.Z", b"junk"))
            source = it.store(value["zone"]).list(value["kind"])[0]
            kds._outbox._by_name[value["kind"]][value["name"]] = Outgoing(entry, source)
            kds._sending.changed(value["kind"], [value["name"]])
        case _:
            raise ValueError(f"{what!r} is no step; there are {STEPS}")


UPLOADS: list[ClientStream] = []
CHANNELS: dict[str, Channel] = {}


def outcome(it: Lab, name: str) -> dict:
    """What a golden file holds: stores without times and versions, who is online and what is refused."""
    documents = []
    for type_ in REGISTRY:
        if type_.kind == "ZoneInsight":
            continue
        for resource in it.store(name).list(type_.kind):
            document = codec.encode_document(resource, REGISTRY)
            for field in ("creationTime", "modificationTime", "kri"):
                document.pop(field, None)
            documents.append(document)
    found: dict = {"resources": documents}
    kds = it.processes[name].kds
    if isinstance(kds, GlobalKds):
        found["zones"] = {
            zone: {"online": state.online, "instance": state.instance_id, "reason": state.reason}
            for zone, state in sorted(kds.zones.value.items())
        }
        found["refused"] = [{"zone": r.zone, "reason": r.reason} for r in kds.refused.value]
    elif isinstance(kds, ZoneKds):
        found["status"] = {"synced": kds.status.value.synced, "error": kds.status.value.error}
    if kds is not None:
        found["quarantine"] = [
            {"zone": q.zone, "direction": q.direction.value, "kind": q.kind, "name": q.name, "reason": q.reason}
            for q in kds.quarantine.items.value
        ]
    return found


@pytest.mark.parametrize("case", sorted(p.name for p in CASES.iterdir() if p.is_dir()))
async def test_case(case: str, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = CASES / case
    UPLOADS.clear()
    CHANNELS.clear()
    remember_uploads(monkeypatch)
    async with lab() as it:
        for name in PROCESSES:
            given = folder / f"{name}.input.yaml"
            if given.exists():
                await it.put(name, *(d for d in yaml.safe_load_all(given.read_text()) if d))
        for action in yaml.safe_load((folder / "steps.yaml").read_text()):
            await step(it, action)
        found = {name: outcome(it, name) for name in PROCESSES if name in it.processes}
    for name, state in found.items():
        golden = folder / f"{name}.golden.yaml"
        text = yaml.safe_dump(state, sort_keys=False, width=120)
        if os.environ.get("UPDATE_GOLDEN"):
            golden.write_text(text)
        assert text == golden.read_text(), f"{golden}: differs; UPDATE_GOLDEN=1 writes it anew"


def remember_uploads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let steps reach into the calls of a zone."""
    send = ZoneKds._send

    async def remembering(self: ZoneKds, channel: Channel) -> None:
        CHANNELS[self._zone] = channel
        await send(self, channel)

    original = Channel.stream

    def stream(self: Channel, path: str, *args: object, **options: object):
        made = original(self, path, *args, **options)
        if not path.endswith("ZoneToGlobalSync"):
            return made
        return Remembered(made)

    monkeypatch.setattr(ZoneKds, "_send", remembering)
    monkeypatch.setattr(Channel, "stream", stream)


class Remembered:
    """A call that is put on a list while it is open."""

    def __init__(self, inner: object) -> None:
        self._inner = inner

    async def __aenter__(self) -> ClientStream:
        self._stream = await self._inner.__aenter__()
        UPLOADS.append(self._stream)
        return self._stream

    async def __aexit__(self, *error: object) -> bool | None:
        UPLOADS.remove(self._stream)
        return await self._inner.__aexit__(*error)
