"""The global towards zones that do, and do not, behave."""

# Channels and their calls read better nested, and a refusal may come at any step of a call.
# ruff: noqa: SIM117, PT012

import logging
import random
from datetime import timedelta

import pytest
import trio

from meshd.ca import access, rsa_pem
from meshd.discovery import DeltaRequest, DeltaResponse, Entry, Node, wire
from meshd.discovery.wire import any_bytes
from meshd.kds.admin.wire import What
from meshd.kds.crossing import HEADER_FEATURES, NODE_FEATURES
from meshd.kds.ledger import State
from meshd.kds.quarantine import Direction
from meshd.kds.server import GLOBAL_SERVICE, GLOBAL_TO_ZONE, HEALTH_CHECK, ZONE_TO_GLOBAL
from meshd.kinds.secret import Secret
from meshd.kinds.zone import Zone
from meshd.model.resource import Resource, ResourceKey
from meshd.rpc import RpcError, Status
from meshd.store.store import Delete, Put
from tests.kds.lab import dataplane, ingress, lab, mesh, now

FEATURES = tuple(("features", f) for f in HEADER_FEATURES)


def metadata(zone: str = "zone-a", token: str = "") -> list[tuple[str, str]]:
    return [("client-id", zone), *FEATURES, *([("authorization", token)] if token else [])]


def node(zone: str = "zone-a", instance: str = "i-1") -> Node:
    return Node(zone, metadata={"features": list(NODE_FEATURES), "control-plane-id": instance})


async def ask(stream, kind: str, who: Node) -> DeltaResponse:
    await stream.send(wire.encode_request(DeltaRequest(kind, subscribe=("*",), node=who)))
    return wire.decode_response(await stream.receive())


async def tell(stream, response: DeltaResponse, who: str = "zone-a") -> None:
    await stream.send(wire.encode_request(DeltaRequest(response.type_url, nonce=response.nonce, node=Node(who))))


KEY = rsa_pem.new_private_key()


async def with_key(it) -> None:
    await it.store("global").write(
        [Put(Resource(ResourceKey("GlobalSecret", "", "zone-token-signing-key-1"), Secret(data=KEY)))]
    )


def token(it, zone: str = "zone-a", scope: str = "cp", life: float = 3600) -> str:
    return access.issue_zone_token(it.store("global"), zone, [scope], timedelta(seconds=life), now())


# ---------------------------------------------------------------- what a zone is sent


async def test_each_kind_gets_one_response_and_unknown_ones_an_empty_one(autojump_clock) -> None:
    async with lab("global") as it, it.dial("zone-a") as channel:
        async with channel.stream(GLOBAL_TO_ZONE, metadata()) as stream:
            await it.put("global", mesh())
            await it.settle()
            first = await ask(stream, "Mesh", node())
            assert [e.name for e in first.resources] == ["default."]
            assert (first.nonce, first.control_plane) == ("1", "global")
            second = await ask(stream, "MeshFuture", node())
            assert (second.resources, second.nonce) == ((), "2")


async def test_a_nack_is_on_record_and_nothing_is_sent_again(autojump_clock) -> None:
    async with lab("global") as it, it.dial("zone-a") as channel:
        await it.put("global", mesh())
        await it.settle()
        async with channel.stream(GLOBAL_TO_ZONE, metadata()) as stream:
            first = await ask(stream, "Mesh", node())
            nack = DeltaRequest("Mesh", ("*",), nonce=first.nonce, error=wire.Rejection("no such"), node=Node("zone-a"))
            await stream.send(wire.encode_request(nack))
            with trio.move_on_after(5) as silence:
                await stream.receive()
            assert silence.cancelled_caught
            [held] = it.global_kds.quarantine.items.value
            assert (held.zone, held.kind, held.direction.value, held.reason) == ("zone-a", "Mesh", "sent", "no such")
            await it.put("global", mesh("other"))
            response = wire.decode_response(await stream.receive())
            assert [e.name for e in response.resources] == ["other."]
            await tell(stream, response)
            await it.settle(0.1)
            assert it.global_kds.quarantine.items.value == ()


# ---------------------------------------------------------------- admission


async def refusal(it, path: str, *, sent: list, who: Node | None = None) -> RpcError:
    async with it.dial("zone-a") as channel:
        with pytest.raises(RpcError) as caught:
            async with channel.stream(path, sent) as stream:
                await ask(stream, "Mesh", who or node())
        return caught.value


async def test_tokens_are_checked_before_anything_else(autojump_clock) -> None:
    async with lab("global", admitted=()) as it:
        await with_key(it)
        expired = token(it, life=1)
        await trio.sleep(60)
        for path in (GLOBAL_TO_ZONE, ZONE_TO_GLOBAL, HEALTH_CHECK, *[GLOBAL_SERVICE + what.value for what in What]):
            for bad, reason in (
                ("", "shows no zone token"),
                (token(it, "zone-b"), "is for zone 'zone-b'"),
                (expired, "expired"),
                (token(it, scope="ingress"), "which does not contain 'cp'"),
                ("garbage", "not a JSON Web Token"),
            ):
                error = await refusal(it, path, sent=metadata(token=bad))
                assert error.status is Status.UNAUTHENTICATED, path
                assert reason in error.message
        assert it.store("global").list("Zone") == ()
        assert {r.zone for r in it.global_kds.refused.value} == {"zone-a"}
        assert len(it.global_kds.refused.value) == 5


async def test_a_host_under_ever_new_names_hides_nothing(autojump_clock, caplog) -> None:
    async with lab("global", admitted=()) as it:
        async with it.dial("zone-a") as channel:
            for number in range(60):
                with pytest.raises(RpcError):
                    await channel.unary(HEALTH_CHECK, b"", metadata(f"z{number}"))
        refused = it.global_kds.refused.value
        assert [r.zone for r in refused] == [f"z{number}" for number in range(40, 60)]
        assert len([r for r in caplog.records if "is refused" in r.getMessage()]) == 20


async def test_a_zone_that_showed_a_token_cannot_come_without(autojump_clock) -> None:
    async with lab("global") as it:
        await with_key(it)
        async with it.dial("zone-a") as channel, channel.stream(GLOBAL_TO_ZONE, metadata(token=token(it))) as stream:
            await ask(stream, "Mesh", node())
        await it.settle()
        error = await refusal(it, GLOBAL_TO_ZONE, sent=metadata())
        assert "has shown a zone token before" in error.message
        await it.stop("global")
        await it.start("global")
        error = await refusal(it, GLOBAL_TO_ZONE, sent=metadata())
        assert "has shown a zone token before" in error.message


async def test_a_token_that_expires_ends_the_link(autojump_clock) -> None:
    async with lab("global") as it, it.dial("zone-a") as channel:
        await with_key(it)
        async with channel.stream(GLOBAL_TO_ZONE, metadata(token=token(it, life=30))) as stream:
            await tell(stream, await ask(stream, "Mesh", node()))
            with pytest.raises(RpcError, match="expired at"):
                await stream.receive()
            assert 30 < trio.current_time() < 45
        assert "expired" in it.global_kds.zones.value["zone-a"].reason


async def test_who_waited_while_a_token_was_shown_is_refused_too(autojump_clock) -> None:
    async with lab("global") as it, it.dial("zone-a") as channel, it.dial("zone-a") as other:
        await with_key(it)
        async with channel.stream(GLOBAL_TO_ZONE, metadata()) as without:
            await it.settle(1)  # past the first check, before its first request
            async with other.stream(GLOBAL_TO_ZONE, metadata(token=token(it))) as shown:
                await tell(shown, await ask(shown, "Mesh", node()))
                with pytest.raises(RpcError, match="has shown a zone token before"):
                    await ask(without, "Mesh", node())
                assert it.global_kds.zones.value["zone-a"].authenticated


async def test_the_payload_may_not_name_another_zone(autojump_clock) -> None:
    async with lab("global") as it:
        error = await refusal(it, GLOBAL_TO_ZONE, sent=metadata(), who=node("zone-b"))
        assert error.status is Status.INVALID_ARGUMENT
        assert "node.id is 'zone-b'" in error.message


async def test_uploads_alone_are_refused(autojump_clock) -> None:
    async with lab("global") as it, it.dial("zone-a") as channel:
        with pytest.raises(RpcError, match="has no GlobalToZoneSync"):
            async with channel.stream(ZONE_TO_GLOBAL, metadata()) as stream:
                await stream.receive()


async def test_asking_by_name_or_for_endless_kinds_is_refused(autojump_clock) -> None:
    async with lab("global") as it:
        async with it.dial("zone-a") as channel, channel.stream(GLOBAL_TO_ZONE, metadata()) as stream:
            with pytest.raises(RpcError, match="more than 256 kinds"):
                for number in range(300):
                    await tell(stream, await ask(stream, f"Kind{number}", node()))
        async with it.dial("zone-a") as channel, channel.stream(GLOBAL_TO_ZONE, metadata()) as stream:
            request = DeltaRequest("Mesh", subscribe=("x",), node=node())
            await stream.send(wire.encode_request(request))
            with pytest.raises(RpcError, match="by name"):
                await stream.receive()
        async with it.dial("zone-a") as channel, channel.stream(GLOBAL_TO_ZONE, metadata()) as stream:
            with pytest.raises(RpcError, match="a kind of 1000 characters"):
                await ask(stream, "K" * 1000, node())


async def test_a_first_response_is_complete_whatever_the_zone_says_it_has(autojump_clock) -> None:
    async with lab("global") as it, it.dial("zone-a") as channel:
        await it.put("global", mesh())
        await it.settle()
        async with channel.stream(GLOBAL_TO_ZONE, metadata()) as stream:
            [held] = (await ask(stream, "Mesh", node())).resources
        async with channel.stream(GLOBAL_TO_ZONE, metadata()) as stream:
            request = DeltaRequest("Mesh", ("*",), initial_versions={held.name: held.version, "x.": "1"}, node=node())
            await stream.send(wire.encode_request(request))
            response = wire.decode_response(await stream.receive())
            assert (response.resources, response.removed) == ((held,), ())


@pytest.mark.parametrize(("message", "shown"), [("", "no reason given"), ("x" * 100_000, "x" * 497 + "...")])
async def test_what_a_nack_says_is_kept_within_bounds(autojump_clock, message: str, shown: str) -> None:
    async with lab("global") as it, it.dial("zone-a") as channel:
        async with channel.stream(GLOBAL_TO_ZONE, metadata()) as stream:
            first = await ask(stream, "Mesh", node())
            nack = DeltaRequest("Mesh", ("*",), nonce=first.nonce, error=wire.Rejection(message), node=Node("zone-a"))
            await stream.send(wire.encode_request(nack))
            await it.settle(0.1)
            assert [q.reason for q in it.global_kds.quarantine.items.value] == [shown]


# ---------------------------------------------------------------- two connections under one name


async def test_the_same_instance_replaces_its_older_connection(autojump_clock) -> None:
    async with lab("global") as it, it.dial("zone-a") as old, it.dial("zone-a") as new:
        async with old.stream(GLOBAL_TO_ZONE, metadata()) as first, new.stream(GLOBAL_TO_ZONE, metadata()) as second:
            await tell(first, await ask(first, "Mesh", node()))
            await ask(second, "Mesh", node())
            with pytest.raises(RpcError, match="connected again") as caught:
                await first.receive()
            assert caught.value.status is Status.UNAVAILABLE
            assert it.global_kds.zones.value["zone-a"].online


async def test_another_instance_is_refused_while_the_first_answers(autojump_clock) -> None:
    async with lab("global") as it, it.dial("zone-a") as old, it.dial("zone-a") as new:
        await with_key(it)
        async with old.stream(GLOBAL_TO_ZONE, metadata(token=token(it))) as first:
            await tell(first, await ask(first, "Mesh", node()))
            with pytest.raises(RpcError, match="connected already") as caught:
                async with new.stream(GLOBAL_TO_ZONE, metadata(token=token(it))) as second:
                    await ask(second, "Mesh", node(instance="i-2"))
            assert caught.value.status is Status.ALREADY_EXISTS
            assert "instance 'i-1'" in caught.value.message
            assert "'i-2'" in it.global_kds.refused.value[-1].reason
            await it.put("global", mesh())
            assert wire.decode_response(await first.receive()).resources


async def test_another_instance_with_a_token_replaces_one_that_is_dead(autojump_clock) -> None:
    async with lab("global") as it, it.dial("zone-a") as old:
        await with_key(it)
        dead = it.cables["zone-a"]
        async with old.stream(GLOBAL_TO_ZONE, metadata(token=token(it))) as first:
            await tell(first, await ask(first, "Mesh", node()))
            await it.settle(0.1)
            dead.vanish()
            began = trio.current_time()
            async with it.dial("zone-a") as new, new.stream(GLOBAL_TO_ZONE, metadata(token=token(it))) as second:
                await ask(second, "Mesh", node(instance="i-2"))
                assert 1.9 < trio.current_time() - began < 2.5
                assert it.global_kds.zones.value["zone-a"].instance_id == "i-2"


async def test_another_instance_without_a_token_waits_for_the_dead_one(autojump_clock) -> None:
    async with lab("global") as it, it.dial("zone-a") as old:
        dead = it.cables["zone-a"]
        async with old.stream(GLOBAL_TO_ZONE, metadata()) as first:
            await tell(first, await ask(first, "Mesh", node()))
            await it.settle(0.1)
            dead.vanish()
            error = await refusal(it, GLOBAL_TO_ZONE, sent=metadata(), who=node(instance="i-2"))
            assert error.status is Status.ALREADY_EXISTS


# ---------------------------------------------------------------- who is online


async def test_an_unacknowledged_response_takes_the_zone_offline(autojump_clock, caplog) -> None:
    caplog.set_level(logging.INFO)
    async with lab("global") as it, it.dial("zone-a") as channel:
        async with channel.stream(GLOBAL_TO_ZONE, metadata()) as stream:
            await tell(stream, await ask(stream, "Secret", node()))
            await it.settle(60)
            assert it.global_kds.zones.value["zone-a"].online
            await ask(stream, "Mesh", node())
            began = trio.current_time()
            with pytest.raises(RpcError, match="Mesh: a response was not acknowledged within 10 s"):
                await stream.receive()
            assert trio.current_time() - began == pytest.approx(10, abs=0.1)
        await it.settle(0.2)
        state = it.global_kds.zones.value["zone-a"]
        assert not state.online
        assert "Mesh" in state.reason
        [insight] = it.store("global").list("ZoneInsight")
        assert not insight.spec.is_online
        assert "Mesh" in insight.labels["meshd.io/offline-reason"]


async def test_a_link_that_is_down_takes_the_zone_offline_within_11_s(autojump_clock) -> None:
    async with lab("global", "zone-a") as it:
        await it.settle(30)
        it.cables["zone-a"].vanish()
        it.reachable["zone-a"] = False
        began = trio.current_time()
        while it.global_kds.zones.value["zone-a"].online:
            await trio.sleep(0.1)
        assert trio.current_time() - began < 11
        assert "ping" in it.global_kds.zones.value["zone-a"].reason


async def test_a_cut_that_is_over_soon_costs_no_connection(autojump_clock, caplog) -> None:
    """Calls that the global ended would have a Kuma zone wait for its backoff, up to a minute."""
    caplog.set_level(logging.INFO)
    async with lab("global", "zone-a") as it:
        await it.settle(12)
        before = it.global_kds.zones.value["zone-a"]
        it.cables["zone-a"].hold()
        await it.put("global", mesh("new"))
        await it.put("zone-a", dataplane("dp-new"))
        await it.settle(9.5)
        state = it.global_kds.zones.value["zone-a"]
        assert not state.online
        assert "ping" in state.reason
        await it.settle(0.1)
        [insight] = it.store("global").list("ZoneInsight")
        assert not insight.spec.is_online
        assert "ping" in insight.labels["meshd.io/offline-reason"]
        sync = it.global_kds.sync_of("zone-a")
        assert {k.state for k in sync[Direction.RECEIVED]} == {State.UNKNOWN}
        await it.cables["zone-a"].release()
        await it.settle(0.1)
        assert it.connections == 1
        state = it.global_kds.zones.value["zone-a"]
        assert (state.online, state.reason) == (True, "")
        assert state.since > before.since
        assert it.names("zone-a", "Mesh") == ["new"]
        assert it.names("global", "Dataplane") == ["dp-new"]
        await it.settle(1.1)
        [insight] = it.store("global").list("ZoneInsight")
        assert insight.spec.is_online
        assert len(insight.spec.subscriptions) == 1
        assert "meshd.io/offline-reason" not in insight.labels
        await it.settle(60)
        assert it.connections == 1
    assert caplog.text.count("is offline: no answer to an HTTP/2 ping") == 1
    assert caplog.text.count("is online again") == 1


async def test_a_silent_zone_is_online_again_once_what_waited_is_acknowledged(autojump_clock) -> None:
    async with lab("global") as it, it.dial("zone-a") as channel:
        async with channel.stream(GLOBAL_TO_ZONE, metadata()) as stream:
            await tell(stream, await ask(stream, "Secret", node()))
            await it.settle(12)
            await ask(stream, "Mesh", node())
            it.cables["zone-a"].hold()
            while it.global_kds.zones.value["zone-a"].online:
                await trio.sleep(0.1)
            await it.cables["zone-a"].release()
            began = trio.current_time()
            await it.settle(5)
            assert not it.global_kds.zones.value["zone-a"].online
            with pytest.raises(RpcError, match="Mesh: a response was not acknowledged within 10 s"):
                await stream.receive()
            assert trio.current_time() - began == pytest.approx(10, abs=0.3)


async def test_a_zone_that_falls_silent_again_before_it_has_caught_up_is_given_up(autojump_clock) -> None:
    async with lab("global") as it, it.dial("zone-a") as channel:
        async with channel.stream(GLOBAL_TO_ZONE, metadata()) as stream:
            await tell(stream, await ask(stream, "Secret", node()))
            await it.settle(12)
            await ask(stream, "Mesh", node())
            it.cables["zone-a"].hold()
            while it.global_kds.zones.value["zone-a"].online:
                await trio.sleep(0.1)
            await it.cables["zone-a"].release()
            began = trio.current_time()
            await it.settle(5)
            it.cables["zone-a"].hold()
            while "zone-a" in it.global_kds._links:
                await trio.sleep(0.1)
            assert not it.global_kds.zones.value["zone-a"].online
            # 10 s since it was heard, and 5 for an answer to a ping.
            assert trio.current_time() - began == pytest.approx(15, abs=0.3)


async def test_what_was_late_before_the_silence_is_not_forgiven_for_it(autojump_clock) -> None:
    async with lab("global") as it, it.dial("zone-a") as channel:
        async with channel.stream(GLOBAL_TO_ZONE, metadata()) as stream:
            await tell(stream, await ask(stream, "Secret", node()))
            await it.settle(12)
            began = trio.current_time()
            await ask(stream, "Mesh", node())
            await it.settle(8.5)  # the pings at 15 and 20 s were answered, that at 25 s would be missed at 30 s
            it.cables["zone-a"].hold()
            while it.global_kds.zones.value["zone-a"].online:
                await trio.sleep(0.1)
            assert trio.current_time() - began == pytest.approx(15, abs=0.3)
            assert "Mesh: a response was not acknowledged" in it.global_kds.zones.value["zone-a"].reason


async def test_a_connection_that_stays_silent_is_given_up(autojump_clock) -> None:
    async with lab("global") as it, it.dial("zone-a") as channel:
        async with channel.stream(GLOBAL_TO_ZONE, metadata()) as stream:
            await tell(stream, await ask(stream, "Secret", node()))
            it.cables["zone-a"].hold()
            began = trio.current_time()
            while "zone-a" in it.global_kds._links:
                await trio.sleep(0.1)
            assert trio.current_time() - began == pytest.approx(30, abs=1)


async def test_a_stopped_global_ends_streams_with_unavailable(autojump_clock) -> None:
    async with lab("global") as it, it.dial("zone-a") as channel:
        async with channel.stream(GLOBAL_TO_ZONE, metadata()) as stream:
            await tell(stream, await ask(stream, "Mesh", node()))
            it.process("global").scope.cancel()
            with pytest.raises(RpcError) as caught:
                await stream.receive()
            assert caught.value.status is Status.UNAVAILABLE
        await it.settle(5)
        [insight] = it.store("global").list("ZoneInsight")
        assert not insight.spec.is_online


async def test_a_clean_end_of_one_stream_ends_the_link(autojump_clock) -> None:
    async with lab("global") as it, it.dial("zone-a") as channel:
        async with channel.stream(GLOBAL_TO_ZONE, metadata()) as down, channel.stream(ZONE_TO_GLOBAL, metadata()) as up:
            await tell(down, await ask(down, "Mesh", node()))
            await up.receive()
            await up.end()
            with pytest.raises(RpcError) as caught:
                await down.receive()
            assert caught.value.status is Status.UNAVAILABLE


async def test_deleting_a_zone_deletes_what_it_sent_and_cuts_it(autojump_clock) -> None:
    async with lab("global", "zone-a") as it:
        await it.put("zone-a", dataplane("dp"))
        await it.settle()
        assert it.names("global", "Dataplane") == ["dp"]
        it.reachable["zone-a"] = False
        await it.store("global").write([Delete(ResourceKey("Zone", "", "zone-a"))])
        await it.settle()
        assert it.names("global", "Dataplane") == []
        assert not it.zone_kds("zone-a").status.value.connected
        assert (
            "was deleted" in it.zone_kds("zone-a").status.value.error
            or "refused" in it.zone_kds("zone-a").status.value.error
        )
        it.reachable["zone-a"] = True
        await it.settle(30)
        assert it.names("global", "Dataplane") == ["dp"]


async def test_admin_streams_are_held_and_health_checks_answered(autojump_clock) -> None:
    async with lab("global") as it, it.dial("zone-a") as channel:
        async with channel.stream(GLOBAL_TO_ZONE, metadata()) as stream:
            await tell(stream, await ask(stream, "Mesh", node()))
            assert await channel.unary(HEALTH_CHECK, b"", metadata(), timeout_s=1) == b""
            async with channel.stream(GLOBAL_SERVICE + What.STATS.value, metadata()) as admin:
                with trio.move_on_after(60) as held:
                    await admin.receive()
                assert held.cancelled_caught
            await it.settle(2)
            [insight] = it.store("global").list("ZoneInsight")
            assert insight.spec.health_check.time is not None
            # The zone left the admin stream: no reason to be offline.
            assert it.global_kds.zones.value["zone-a"].online


async def test_an_admin_stream_that_another_took_the_place_of_leaves_its_record_alone(autojump_clock) -> None:
    async with lab("global") as it, it.dial("zone-a") as channel:
        async with channel.stream(GLOBAL_TO_ZONE, metadata()) as stream:
            await tell(stream, await ask(stream, "Mesh", node()))
            async with channel.stream(GLOBAL_SERVICE + What.STATS.value, metadata()) as first:
                await it.settle(1)
                async with channel.stream(GLOBAL_SERVICE + What.STATS.value, metadata()):
                    await it.settle(1)
                    await first.end()
                    await it.settle(2)
                    [insight] = it.store("global").list("ZoneInsight")
                    assert insight.spec.kds_streams.stats is not None
            await it.settle(2)
            [insight] = it.store("global").list("ZoneInsight")
            assert insight.spec.kds_streams.stats is None


async def test_a_health_check_before_the_link_counts(autojump_clock) -> None:
    async with lab("global") as it, it.dial("zone-a") as channel:
        # As a Kuma zone does: it checks first of all.
        await channel.unary(HEALTH_CHECK, b"", metadata(), timeout_s=1)
        await it.settle(1)
        async with channel.stream(GLOBAL_TO_ZONE, metadata()) as stream:
            await tell(stream, await ask(stream, "Mesh", node()))
            await it.settle(2)
            [insight] = it.store("global").list("ZoneInsight")
            assert (now() - insight.spec.health_check.time).total_seconds() == 3


async def test_a_zone_that_hangs_up_is_offline_at_once_with_the_reason(autojump_clock) -> None:
    async with lab("global") as it:
        async with it.dial("zone-a") as channel, channel.stream(GLOBAL_TO_ZONE, metadata()) as stream:
            await tell(stream, await ask(stream, "Mesh", node()))
        await it.settle(0.1)
        state = it.global_kds.zones.value["zone-a"]
        assert not state.online
        assert "the peer" in state.reason


# ---------------------------------------------------------------- bad content


async def test_garbage_on_a_stream_costs_that_zone_its_link_and_nobody_else(autojump_clock) -> None:
    async with lab("global", "zone-b") as it:
        rng = random.Random(7)
        for path in (GLOBAL_TO_ZONE, ZONE_TO_GLOBAL, HEALTH_CHECK):
            async with it.dial("zone-a") as channel:
                with pytest.raises(RpcError):
                    async with channel.stream(path, metadata()) as stream:
                        await stream.send(rng.randbytes(200))
                        await stream.end()
                        while await stream.receive() is not None:
                            pass
                        raise RpcError(Status.OK, "a health check has no content to be wrong")
        await it.put("global", mesh())
        await it.settle()
        assert it.names("zone-b", "Mesh") == ["default"]
        assert it.zone_kds("zone-b").status.value.synced


async def test_a_poisoned_resource_is_quarantined_and_the_rest_applied(autojump_clock) -> None:
    async with lab("global") as it, it.dial("zone-a") as channel:
        await it.put("global", mesh())
        async with channel.stream(GLOBAL_TO_ZONE, metadata()) as down, channel.stream(ZONE_TO_GLOBAL, metadata()) as up:
            await tell(down, await ask(down, "Mesh", node()))
            wanted = set()
            while "Dataplane" not in wanted:
                wanted.add(wire.decode_request(await up.receive()).type_url)
            poison = Entry("poison.default", "", any_bytes("type.googleapis.com/x.Y", b"zzz"))
            await up.send(wire.encode_response(DeltaResponse("Dataplane", (poison,), nonce="1")))
            answer = None
            while answer is None or answer.nonce != "1":
                answer = wire.decode_request(await up.receive())
            assert "poison" in answer.error.message
            [held] = it.global_kds.quarantine.items.value
            assert (held.zone, held.name, held.direction.value) == ("zone-a", "poison", "received")
            await up.send(wire.encode_response(DeltaResponse("Dataplane", removed=("poison.default",), nonce="2")))
            assert wire.decode_request(await up.receive()).error is None
            await it.settle(0.1)
            assert it.global_kds.quarantine.items.value == ()


async def test_a_broken_signing_key_is_reported_and_everything_else_goes(autojump_clock) -> None:
    async with lab() as it:
        await it.put("global", mesh())
        broken = Resource(ResourceKey("GlobalSecret", "", "zone-token-signing-key-1"), Secret(data=b"junk"))
        await it.store("global").write([Put(broken)])
        await it.start("global", "zone-a")
        await it.settle()
        assert it.names("zone-a", "Mesh") == ["default"]
        [held] = it.global_kds.quarantine.items.value
        assert held.name == "zone-token-signing-key-1"


# ---------------------------------------------------------------- disabled zones


async def test_a_disabled_zone_is_hidden_from_the_others_and_comes_back(autojump_clock) -> None:
    async with lab("global", "zone-a", "zone-b") as it:
        await it.put("zone-b", ingress("in-b"))
        await it.settle()
        assert it.names("zone-a", "ZoneIngress") == ["in-b"]
        [stored] = [z for z in it.store("global").list("Zone") if z.key.name == "zone-b"]
        await it.store("global").write([Put(Resource(stored.key, Zone(enabled=False)))])
        await it.settle()
        assert it.names("zone-a", "ZoneIngress") == []
        assert it.names("global", "ZoneIngress") == ["in-b"]
        await it.put("global", mesh())
        await it.settle()
        assert it.names("zone-b", "Mesh") == ["default"]
        await it.store("global").write([Put(Resource(stored.key, Zone(enabled=True)))])
        await it.settle()
        assert it.names("zone-a", "ZoneIngress") == ["in-b"]
