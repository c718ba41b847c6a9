import pytest
import trio

from meshd.discovery import DeltaRequest, DeltaResponse, Entry, Node, Waiting, wire
from meshd.discovery.fields import bytes_field, submessages
from meshd.discovery.messages import Rejection
from meshd.discovery.wire import any_bytes, any_parts
from meshd.kds.envelope import KUMA_RESOURCE, SPEC, TYPE_PREFIX
from meshd.kds.ledger import State
from meshd.kds.outbox import Outgoing
from meshd.kds.quarantine import Direction
from meshd.kds.server import GLOBAL_TO_ZONE
from meshd.kds.session import always, watch_overdue
from meshd.model import labels as label
from meshd.model.errors import UnavailableError
from meshd.store.store import Delete, Put
from tests.kds.lab import dataplane, ingress, lab, mesh, permission
from tests.kds.test_client import Scripted, entry, send, zone
from tests.kds.test_server import ask, metadata, node, tell

SENT, RECEIVED = Direction.SENT, Direction.RECEIVED


def of(sync, way, kind):
    return next(one for one in sync[way] if one.kind == kind)


def views(it, name="zone-a"):
    return it.global_kds.sync_of(name), it.zone_kds(name).sync()


def sums(view, way):
    return {one.kind: one.sum for one in view[way] if one.state is not State.WAITING}


# ---------------------------------------------------------------- both ends know the same


async def test_both_ends_have_the_same_digests(autojump_clock) -> None:
    async with lab() as it:
        await it.put("global", mesh(), permission("allow-all"))
        await it.put("zone-a", dataplane("dp-1"), dataplane("dp-2"))
        await it.put("zone-b", ingress("in-b"))
        await it.start("global", "zone-a", "zone-b")
        await it.settle()
        for name in ("zone-a", "zone-b"):
            at_global, at_zone = views(it, name)
            assert sums(at_global, SENT) == sums(at_zone, RECEIVED)
            assert sums(at_global, RECEIVED) == sums(at_zone, SENT)
            for view in (at_global, at_zone):
                assert {one.state for way in Direction for one in view[way]} <= {State.IN_SYNC, State.WAITING}
        at_global, at_zone = views(it)
        assert of(at_global, RECEIVED, "Dataplane").sum.count == 2
        assert of(at_global, SENT, "ZoneIngress").sum.count == 1
        before = of(at_zone, SENT, "Dataplane")
        await it.settle(100)
        await it.put("zone-a", dataplane("dp-1", "other"))
        await it.delete("zone-a", "Dataplane", "dp-2", "default")
        await it.settle()
        at_global, at_zone = views(it)
        after = of(at_zone, SENT, "Dataplane")
        assert after.sum == of(at_global, RECEIVED, "Dataplane").sum != before.sum
        assert after.sequence > before.sequence
        assert 100 <= (after.at - before.at).total_seconds() < 102


async def test_what_a_zone_misses_is_counted_and_dated(autojump_clock) -> None:
    async with lab("global", "zone-a") as it:
        await it.put("global", mesh())
        await it.settle()
        it.reachable["zone-a"] = False
        it.cables["zone-a"].vanish()
        await it.put("global", permission("one"), permission("two"))
        await it.settle(5)
        at_global, _ = views(it)
        policies = of(at_global, SENT, "MeshTrafficPermission")
        assert (policies.state, policies.behind) == (State.BEHIND, 2)
        began = policies.since
        await it.settle(60)
        at_global, at_zone = views(it)
        assert of(at_global, SENT, "MeshTrafficPermission").since == began
        assert of(at_global, SENT, "Mesh").state is State.IN_SYNC
        assert of(at_global, RECEIVED, "Dataplane").state is State.UNKNOWN
        assert of(at_zone, RECEIVED, "Mesh").state is State.UNKNOWN
        # What happens while there is no stream counts from its end.
        await it.put("global", mesh("second"))
        await it.settle()
        at_global, _ = views(it)
        assert of(at_global, SENT, "Mesh").behind == 1
        assert of(at_global, SENT, "Mesh").since == it.global_kds.zones.value["zone-a"].since
        it.reachable["zone-a"] = True
        await it.settle(10)
        at_global, at_zone = views(it)
        assert sums(at_global, SENT) == sums(at_zone, RECEIVED)
        assert of(at_global, SENT, "MeshTrafficPermission").state is State.IN_SYNC


def junk(kind: str, good: Entry) -> bytes:
    """A body that is not to be taken: of another message, with a spec that is none, or with one that is not valid."""
    parts = dict(submessages(any_parts(good.body)[1]))
    url, _ = any_parts(parts[SPEC])
    match kind:
        case "envelope":
            return any_bytes("x/y.Z", b"junk")
        case "spec":
            parts[SPEC] = any_bytes(url, b"\xff\xff\xff")
        case "validation":
            parts[SPEC] = any_bytes(url, b"")  # a Dataplane and a ZoneIngress have an address
    return any_bytes(TYPE_PREFIX + KUMA_RESOURCE, b"".join(bytes_field(n, part) for n, part in sorted(parts.items())))


@pytest.mark.parametrize("poison", ["envelope", "spec", "validation"])
@pytest.mark.parametrize("way", ["zone to global", "global to zone"])
async def test_a_poison_is_told_at_both_ends_stops_nothing_and_heals(autojump_clock, way, poison) -> None:
    async with lab() as it:
        await it.put("global", mesh())
        await it.put("zone-b", ingress("in-b"))
        await it.start("global", "zone-a", "zone-b")
        await it.settle()
        sender, receiver, end = (
            (it.zone_kds("zone-b"), it.global_kds, "zone-b")
            if way == "zone to global"
            else (it.global_kds, it.zone_kds("zone-a"), "zone-a")
        )
        at_global, at_zone = views(it, end)
        entries = sender._outbox._by_name["ZoneIngress"]
        [(name, good)] = entries.items()
        entries[name] = Outgoing(Entry(name, "poisoned", junk(poison, good.entry)), good.source)
        streams = [sender._sending] if sender is not it.global_kds else [it.global_kds._links["zone-a"].sending]
        for stream in streams:
            stream.changed("ZoneIngress", [name])
        await it.settle()
        at_global, at_zone = views(it, end)
        here, there = (at_zone, at_global) if way == "zone to global" else (at_global, at_zone)
        for view, direction in ((here, SENT), (there, RECEIVED)):
            ingresses = of(view, direction, "ZoneIngress")
            assert ingresses.state is State.REFUSED
            assert name[:-1] in ingresses.reason
        assert [q.name for q in receiver.quarantine.items.value] == [name[:-1]]
        # Everything else goes on, both ways, and the last good state of the bad one stays.
        await it.put("zone-b", ingress("second"))
        await it.put("global", permission("allow-all"))
        await it.settle()
        assert it.names("zone-a", "ZoneIngress") == ["in-b", "second"]
        assert it.names("zone-a", "MeshTrafficPermission") == ["allow-all"]
        # Mended by its owner: no stream was cut, nothing was restarted.
        entries[name] = good
        for stream in streams:
            stream.changed("ZoneIngress", [name])
        await it.settle()
        for view in views(it, end):
            assert {one.state for one in (*view[SENT], *view[RECEIVED])} <= {State.IN_SYNC, State.WAITING}
        assert receiver.quarantine.items.value == ()
        assert it.connections == 2


async def test_what_was_rejected_is_offered_again_until_it_is_taken(autojump_clock) -> None:
    async with lab("global") as it:
        await it.put("global", mesh("one"), mesh("two"))
        await it.settle()
        async with it.dial("zone-a") as channel, channel.stream(GLOBAL_TO_ZONE, metadata()) as stream:
            first = await ask(stream, "Mesh", node())
            refusal = DeltaRequest("Mesh", ("*",), nonce=first.nonce, error=Rejection("no room"), node=Node("zone-a"))
            await stream.send(wire.encode_request(refusal))
            began = trio.current_time()
            again = wire.decode_response(await stream.receive())
            assert trio.current_time() - began == 30
            assert [e.name for e in again.resources] == ["one.", "two."]
            assert again.version == first.version
            assert of(it.global_kds.sync_of("zone-a"), SENT, "Mesh").state is State.REFUSED
            await tell(stream, again)
            await it.settle()
            assert of(it.global_kds.sync_of("zone-a"), SENT, "Mesh").state is State.IN_SYNC
            with trio.move_on_after(300):
                raise AssertionError(await stream.receive())


# ---------------------------------------------------------------- copies are what they were


@pytest.mark.parametrize("change", ["delete", "relabel"])
async def test_a_copy_that_something_changed_is_seen_and_made_good(autojump_clock, change) -> None:
    async with lab() as it:
        await it.put("global", mesh())
        await it.put("zone-a", dataplane("dp-1"))
        await it.start("global", "zone-a")
        await it.settle()
        [copy] = it.store("global").list("Dataplane")
        if change == "delete":
            await it.store("global").write([Delete(copy.key)])
        else:
            await it.store("global").write([Put(type(copy)(copy.key, copy.spec, labels={label.ZONE: "zone-a"}))])
        await it.settle()
        at_global, _ = views(it)
        assert of(at_global, RECEIVED, "Dataplane").state is State.DIVERGED
        assert str(copy.key) in of(at_global, RECEIVED, "Dataplane").reason
        await it.settle(15)
        [again] = it.store("global").list("Dataplane")
        assert again.same_content(copy)
        assert it.connections == 2
        at_global, _ = views(it)
        assert of(at_global, RECEIVED, "Dataplane").state is State.IN_SYNC
        await it.settle(100)
        assert it.connections == 2


async def test_a_response_that_does_not_add_up_begins_everything_anew(autojump_clock, caplog) -> None:
    script = Scripted()
    async with zone(script) as (kds, store):
        await trio.sleep(0.1)
        wrong = "meshd-sum:5:" + "0" * 32
        # As a whole it is only noted: another stream would bring the same.
        await send(script, DeltaResponse("Mesh", (entry(mesh("one")),), nonce="1", version=wrong))
        assert [r.key.name for r in store.list("Mesh")] == ["one"]
        assert of(kds.sync(), RECEIVED, "Mesh").state is State.DIVERGED
        assert "what arrived is meshd-sum:1:" in caplog.text
        assert script.opened.count(GLOBAL_TO_ZONE) == 1
        await send(script, DeltaResponse("Mesh", (entry(mesh("two")),), nonce="2", version=wrong))
        await trio.sleep(5)
        assert script.opened.count(GLOBAL_TO_ZONE) == 2


# ---------------------------------------------------------------- what is not acknowledged


async def test_only_what_waits_too_long_is_overdue(autojump_clock) -> None:
    waiting: dict[str, Waiting] = {}
    news = trio.Event()
    ended = []

    async def watch() -> None:
        try:
            await watch_overdue(lambda: waiting, lambda: news, always)
        except UnavailableError as error:
            ended.append((trio.current_time(), str(error)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        await trio.sleep(100)
        began = trio.current_time()
        waiting["Mesh"] = Waiting("1", began)
        news.set()
        await trio.sleep(5)
        waiting["Mesh"] = Waiting("2", began + 5)
        await trio.sleep(20)
    [(at, reason)] = ended
    assert at - began == 15
    assert reason == "Mesh: a response was not acknowledged within 10 s"


async def test_a_limit_that_floats_cannot_say_exactly_is_reached(autojump_clock) -> None:
    since = 120.79650577834225
    assert (since + 10.0) - since < 10.0
    await trio.sleep_until(since)
    with trio.move_on_after(60):
        with pytest.raises(UnavailableError, match="Mesh"):
            await watch_overdue(lambda: {"Mesh": Waiting("1", since)}, trio.Event, always)
    assert trio.current_time() == since + 10.0


async def test_what_is_late_for_the_silence_of_the_transport_has_as_long_again(autojump_clock) -> None:
    began = trio.current_time()

    async def answers_since() -> float:
        await trio.sleep_until(began + 27)
        return began + 25

    with pytest.raises(UnavailableError, match="Mesh"):
        await watch_overdue(lambda: {"Mesh": Waiting("1", began)}, trio.Event, answers_since)
    assert trio.current_time() == began + 25 + 10


async def test_an_answer_that_comes_while_the_transport_is_asked_is_in_time(autojump_clock) -> None:
    waiting = {"Mesh": Waiting("1", trio.current_time())}

    async def answers_since() -> float:
        await trio.sleep(0.1)
        waiting["Mesh"] = Waiting("2", trio.current_time())
        return 0.0

    with trio.move_on_after(15) as scope:
        await watch_overdue(lambda: dict(waiting), trio.Event, answers_since)
    assert scope.cancelled_caught
