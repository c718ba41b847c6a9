"""Random changes, cuts and restarts over a global and three zones; in the end every store is what the promises say."""

import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meshd.kds.crossing import to_global, to_zone
from meshd.kds.ledger import State
from meshd.kds.quarantine import Direction
from meshd.model import labels as label
from meshd.model.resource import Resource, ResourceKey
from meshd.model.resource_type import Flow
from tests.kds.lab import REGISTRY, ZONES, Lab, dataplane, ingress, lab, mesh, permission

NAMES = st.sampled_from(("x", "y", "z"))
ZONE = st.sampled_from(ZONES)
STEPS = st.one_of(
    st.tuples(st.just("policy"), NAMES, st.sampled_from(("Allow", "Deny"))),
    st.tuples(st.just("no policy"), NAMES),
    st.tuples(st.just("ingress"), ZONE, NAMES, st.integers(1, 9)),
    st.tuples(st.just("no ingress"), ZONE, NAMES),
    st.tuples(st.just("dataplane"), ZONE, NAMES, NAMES),
    st.tuples(st.just("no dataplane"), ZONE, NAMES),
    st.tuples(st.just("cut"), ZONE),
    st.tuples(st.just("heal"), ZONE),
    st.tuples(st.just("restart"), st.sampled_from(("global", *ZONES))),
    st.tuples(st.just("enable"), ZONE, st.booleans()),
    st.tuples(st.just("wait"), st.sampled_from((0.0, 0.001, 0.03, 0.2, 5.0, 30.0))),
)


async def take(it: Lab, step: tuple) -> None:
    match step:
        case ("policy", name, action):
            await it.put("global", permission(name, action))
        case ("no policy", name):
            await drop(it, "global", "MeshTrafficPermission", name)
        case ("ingress", zone, name, number):
            await it.put(zone, ingress(name, f"10.1.0.{number}"))
        case ("no ingress", zone, name):
            await drop(it, zone, "ZoneIngress", name)
        case ("dataplane", zone, name, service):
            await it.put(zone, dataplane(name, service))
        case ("no dataplane", zone, name):
            await drop(it, zone, "Dataplane", name)
        case ("cut", zone):
            it.reachable[zone] = False
            if zone in it.cables:
                it.cables[zone].vanish()
        case ("heal", zone):
            it.reachable[zone] = True
        case ("restart", name):
            await it.stop(name)
            await it.start(name)
        case ("enable", zone, enabled):
            if it.store("global").get(ResourceKey("Zone", "", zone)):
                await it.put("global", {"type": "Zone", "name": zone, "enabled": enabled})
        case ("wait", seconds):
            await trio.sleep(seconds)


async def drop(it: Lab, at: str, kind: str, name: str) -> None:
    """Delete one that the process made itself, that of the name if there is one."""
    own = [r for r in it.store(at).list(kind) if r.labels.get(label.ORIGIN, "zone") == "zone"]
    own.sort(key=lambda r: r.key.name != name)
    if own:
        await it.delete(at, kind, own[0].key.name, own[0].key.mesh)


def contents(resources: list[Resource]) -> dict[ResourceKey, tuple]:
    return {r.key: (r.spec, dict(r.labels)) for r in resources}


def check(it: Lab) -> None:
    """Every copy is there, is what its owner has now, and nothing else is there."""
    on_global = it.store("global")
    enabled = {z.key.name for z in on_global.list("Zone") if z.spec.is_enabled}
    for type_ in REGISTRY:
        if Flow.ZONE_TO_GLOBAL in type_.flow:
            wanted = [
                to_global(type_, r, zone)
                for zone in ZONES
                for r in it.store(zone).list(type_.kind)
                if r.labels.get(label.ORIGIN) == label.ORIGIN_ZONE
            ]
            found = [r for r in on_global.list(type_.kind) if label.ZONE in r.labels]
            assert {r.key: dict(r.labels) for r in found} == {r.key: dict(r.labels) for r in wanted}
        if not type_.flow & (Flow.GLOBAL_TO_ZONE | Flow.ACROSS_ZONES):
            continue
        for zone in ZONES:
            wanted = []
            for r in on_global.list(type_.kind):
                sent = to_zone(type_, r)
                source = r.labels.get(label.ZONE)
                if sent is not None and (source is None or (source != zone and source in enabled)):
                    wanted.append(sent)
            found = [r for r in it.store(zone).list(type_.kind) if r.labels.get(label.ORIGIN) == label.ORIGIN_GLOBAL]
            assert contents(found) == contents(wanted), f"{type_.kind} in {zone}"
    for zone in ZONES:
        assert it.zone_kds(zone).status.value.synced
        assert it.global_kds.zones.value[zone].online
        at_global, at_zone = it.global_kds.sync_of(zone), it.zone_kds(zone).sync()
        for here, there in ((at_global, at_zone), (at_zone, at_global)):
            received = {one.kind: one for one in there[Direction.RECEIVED]}
            for one in here[Direction.SENT]:
                assert one.state is State.IN_SYNC
                assert received[one.kind].state is State.IN_SYNC
                assert received[one.kind].sum == one.sum
        insight = on_global.get(ResourceKey("ZoneInsight", "", zone))
        assert sum(s.is_open for s in insight.spec.subscriptions) == 1
        for kds in (it.zone_kds(zone), it.global_kds):
            assert kds.quarantine.items.value == ()


async def whole_run(steps: list[tuple]) -> None:
    async with lab() as it:
        await it.put("global", mesh())
        await it.start("global", *ZONES)
        for step in steps:
            await take(it, step)
        for zone in ZONES:
            it.reachable[zone] = True
        # Longer than any backoff and any deadline of the two sides together.
        await trio.sleep(120)
        check(it)
        versions = {name: [(r.key, r.version) for t in REGISTRY for r in it.store(name).list(t.kind)] for name in ZONES}
        for name in ("global", *ZONES):
            await it.stop(name)
            await it.start(name)
        await trio.sleep(120)
        check(it)
        # A restart causes no churn (promise P6).
        after = {name: [(r.key, r.version) for t in REGISTRY for r in it.store(name).list(t.kind)] for name in ZONES}
        assert after == versions


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(STEPS, min_size=5, max_size=30))
def test_every_store_ends_as_promised(steps: list[tuple]) -> None:
    trio.run(whole_run, steps, clock=trio.testing.MockClock(autojump_threshold=0))
