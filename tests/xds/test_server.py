"""Proxies that do, and do not, behave, at the control plane's end of their streams."""

# Streams and what is done on them read better nested, and a refusal may come at any step of a call.
# ruff: noqa: SIM117, PT012

import logging
from datetime import timedelta

import pytest
import trio

from meshd.discovery import DeltaRequest, Node, Rejection, StateRequest
from meshd.discovery.fields import bytes_field, varint_field
from meshd.discovery.wire import encode_node
from meshd.kinds.dataplane import InboundState
from meshd.model.errors import Violation
from meshd.model.resource import ResourceKey
from meshd.rpc import RpcError, Status
from meshd.store.store import Delete, Put
from meshd.xds import session
from meshd.xds.arrivals import AT_ONCE, EVERY_S
from meshd.xds.auth import Authn
from meshd.xds.resources import CLUSTER, ENDPOINTS, LISTENER, SECRET
from meshd.xds.server import DELTA_AGGREGATED, STREAM_AGGREGATED, STREAM_HEALTH_CHECK
from meshd.xds.service import CLEAN_EVERY_S, RETURN_S, TAKEN, Settings
from tests.xds.ads import (
    WEB,
    Delta,
    authorization,
    cluster,
    dataplane_token,
    document,
    endpoints,
    lab,
    listener,
    node,
    now,
    zone_token,
)

INSIGHT = ResourceKey("DataplaneInsight", "default", "web-1")
TOKENS = Settings(Authn("zone-1"))
PATHS = (DELTA_AGGREGATED, STREAM_AGGREGATED, STREAM_HEALTH_CHECK)


def hello(path: str, who: Node) -> bytes:
    """A first message of a proxy."""
    match path:
        case _ if path == STREAM_HEALTH_CHECK:
            return bytes_field(1, bytes_field(1, encode_node(who)))
        case _ if path == DELTA_AGGREGATED:
            return bytes_field(1, encode_node(who)) + bytes_field(2, CLUSTER.encode())
        case _:
            return bytes_field(2, encode_node(who)) + bytes_field(4, CLUSTER.encode())


async def refusal(it, path: str, message: bytes, *metadata: tuple[str, str]) -> RpcError:
    """How a call that begins with ``message`` ends."""
    async with it.dial() as channel:
        with pytest.raises(RpcError) as caught:
            async with channel.stream(path, list(metadata)) as stream:
                await stream.send(message)
                with trio.fail_after(60):
                    while True:
                        await stream.receive()
        return caught.value


# ---------------------------------------------------------------- what a proxy is sent


async def test_delta_sends_clusters_then_endpoints_then_listeners_and_only_what_is_asked(autojump_clock) -> None:
    async with lab() as it:
        async with it.delta(node(passed=document()), types=(LISTENER, CLUSTER)) as proxy:
            await proxy.ask(DeltaRequest(ENDPOINTS, subscribe=("b", "none")))
            await trio.sleep(0.1)
            seen = [await proxy.taken() for _ in range(3)]
            assert sorted(seen) == [
                (CLUSTER, ["a", "b"], []),
                (ENDPOINTS, ["b"], ["none"]),
                (LISTENER, ["in"], []),
            ]
            assert await proxy.is_silent()
            it.shelf.layer.put([listener("in", 1001), endpoints("a", 3), endpoints("b", 4), cluster("c")])
            it.shelf.layer.remove(CLUSTER, ["a"])
            assert [await proxy.taken() for _ in range(3)] == [
                (CLUSTER, ["c"], []),
                (ENDPOINTS, ["b"], []),
                (LISTENER, ["in"], []),
            ]
            assert await proxy.taken() == (CLUSTER, [], ["a"])
            assert await proxy.is_silent()
        assert it.answers.count((WEB, CLUSTER)) == 3


async def test_state_of_the_world_sends_everything_of_whole_types(autojump_clock) -> None:
    async with lab() as it:
        async with it.sotw(node(passed=document())) as proxy:
            first = await proxy.take()
            assert (first.type_url, len(first.resources), first.control_plane) == (CLUSTER, 2, "cp-1")
            await proxy.ack(first)
            assert await proxy.is_silent()
            it.shelf.layer.put([cluster("c")])
            second = await proxy.take()
            assert len(second.resources) == 3
            assert second.version != first.version


async def test_nothing_is_said_before_the_proxy_is_rendered(autojump_clock) -> None:
    async with lab() as it:
        it.shelf.is_ready = False
        async with it.delta(node(passed=document())) as proxy:
            assert await proxy.is_silent()
            [feed] = it.shelf.attached
            feed.show((it.shelf.layer,))
            assert await proxy.taken() == (CLUSTER, ["a", "b"], [])


async def test_a_proxy_that_does_not_answer_gets_one_response_a_type(autojump_clock) -> None:
    async with lab() as it:
        async with it.delta(node(passed=document())) as proxy:
            first = await proxy.take()
            for seconds in range(2, 100):
                it.shelf.layer.put([cluster("a", f"{seconds}s"), cluster(f"n{seconds}")])
                await trio.sleep(0.01)
            assert await proxy.is_silent()
            await proxy.ack(first)
            response = await proxy.take()
            assert len(response.resources) == 99
            assert await proxy.is_silent()


async def test_what_a_proxy_holds_is_not_sent_to_it_again(autojump_clock) -> None:
    async with lab() as it:
        async with it.delta(node(passed=document()), types=(CLUSTER,)) as proxy:
            response = await proxy.take()
            await proxy.ack(response)
            held = {e.name: e.version for e in response.resources}
            await trio.sleep(1)
            assert it.xds.accepted(WEB, CLUSTER) == held
        async with it.dial() as channel, channel.stream(DELTA_AGGREGATED) as stream:
            proxy = Delta(stream)
            await proxy.ask(DeltaRequest(CLUSTER, initial_versions={**held, "b": "old", "gone": "1"}, node=node()))
            assert await proxy.taken() == (CLUSTER, ["b"], [])
            assert await proxy.taken() == (CLUSTER, [], ["gone"])


async def test_unknown_types_are_answered_as_empty(autojump_clock) -> None:
    async with lab() as it:
        async with it.delta(node(passed=document()), types=("type.googleapis.com/what.Ever",)) as proxy:
            assert await proxy.taken() == ("type.googleapis.com/what.Ever", [], [])
        async with it.sotw(node(), types=("type.googleapis.com/what.Ever",)) as proxy:
            assert await proxy.is_silent()


# ---------------------------------------------------------------- NACKs


async def test_a_nack_is_shown_counted_and_logged_once(autojump_clock, caplog) -> None:
    async with lab() as it:
        async with it.delta(node(passed=document())) as proxy:
            with caplog.at_level(logging.INFO, "meshd.xds.session"):
                for timeout in ("2s", "3s"):
                    it.shelf.layer.put([cluster("a", timeout)])
                    response = await proxy.take()
                    await proxy.ack(response, error=Rejection("Error adding/updating cluster(s) a: too slow", 13))
                    it.shelf.layer.put([cluster("b", timeout)])
                    # the other one has not changed since
                    assert await proxy.taken() == (CLUSTER, ["b"], [])
                    assert await proxy.is_silent(1)
            insight = it.insight()
            assert insight.metadata["refused"] == {"Cluster a": "too slow (the proxy has none)"}
            assert insight.subscriptions[0].status.cds.responses_rejected == 2
            assert [r.levelname for r in caplog.records if "refuses cds a" in r.message] == ["WARNING", "WARNING"]
            it.shelf.layer.put([cluster("a", "4s")])
            await proxy.taken()
            await trio.sleep(1)
            assert it.insight().metadata is None
            assert it.insight().subscriptions[0].generation > 1


# ---------------------------------------------------------------- who may be which proxy


async def test_every_call_is_authenticated(autojump_clock) -> None:
    async with lab(settings=TOKENS) as it:
        good = dataplane_token(it)
        for path in PATHS:
            message = hello(path, node(passed=document()))
            for sent, reason in (
                ([], "no dataplane token given"),
                ([good, good], "must have exactly one 'authorization', this has 2"),
                ([f"Bearer {good}"], "is not a JSON Web Token"),
                ([dataplane_token(it, name="other")], "is for 'other', this is 'web-1'"),
                ([dataplane_token(it, tags={"kuma.io/service": ["db"]})], "its token allows [db]"),
                ([zone_token(it, "ingress")], "signature"),
            ):
                error = await refusal(it, path, message, *[("authorization", t) for t in sent])
                assert error.status is Status.UNAUTHENTICATED, (path, reason)
                assert reason in error.message, (path, reason)
            error = await refusal(it, path, hello(path, Node("web-1")), *authorization(good))
            assert "node id 'web-1' names no proxy; it must be <mesh>.<name>" in error.message
        assert it.dataplane() is None
        assert it.shelf.attached == {}
        async with it.delta(node(passed=document()), token=good) as proxy:
            assert await proxy.taken() == (CLUSTER, ["a", "b"], [])


async def test_zone_proxies_need_a_token_of_their_zone_and_scope(autojump_clock) -> None:
    networking = {"address": "10.0.0.1", "port": 10001}
    async with lab(settings=TOKENS) as it:
        for kind, word, other in (("ZoneIngress", "ingress", "egress"), ("ZoneEgress", "egress", "ingress")):
            passed = {"type": kind, "name": "z-1", "networking": networking}
            who = node("z-1", passed, mesh="", **{"dataplane.proxyType": word})
            for sent, reason in (
                ("", "no zone token given"),
                (zone_token(it, other), "does not contain"),
                (zone_token(it, word, zone="zone-2"), "is for zone 'zone-2'"),
                (dataplane_token(it), "signature"),
            ):
                error = await refusal(it, DELTA_AGGREGATED, hello(DELTA_AGGREGATED, who), *authorization(sent))
                assert (error.status, reason in error.message) == (Status.UNAUTHENTICATED, True), error
            async with it.delta(who, token=zone_token(it, word)) as proxy:
                assert await proxy.taken() == (CLUSTER, ["a", "b"], [])
                key = ResourceKey(kind, "", "z-1")
                await trio.sleep(1)
                assert it.insight(key).is_online
            await trio.sleep(11)
            assert it.store.get(key) is None


async def test_a_token_of_one_service_does_not_take_over_another(autojump_clock) -> None:
    async with lab(settings=TOKENS) as it:
        await it.put(document(service="bank"))
        token = dataplane_token(it, tags={"kuma.io/service": ["web"]})
        error = await refusal(
            it, DELTA_AGGREGATED, hello(DELTA_AGGREGATED, node(passed=document())), *authorization(token)
        )
        assert error.status is Status.UNAUTHENTICATED
        assert "kuma.io/service=bank" in error.message
        assert it.dataplane().services() == ("bank",)


@pytest.mark.parametrize(
    ("who", "status", "reason"),
    [
        (Node(""), Status.INVALID_ARGUMENT, "must have a node with an id"),
        (Node("default"), Status.INVALID_ARGUMENT, "names no proxy"),
        (Node("default."), Status.INVALID_ARGUMENT, "names no proxy"),
        (Node(".web-1"), Status.INVALID_ARGUMENT, "it must be <mesh>.<name>"),
        (node(**{"dataplane.proxyType": "ingress"}), Status.INVALID_ARGUMENT, "it must be .<name>"),
        (node(**{"dataplane.proxyType": "gateway"}), Status.INVALID_ARGUMENT, "is none of dataplane, ingress, egress"),
        (node(), Status.NOT_FOUND, "create a Dataplane first or pass it as an argument to kuma-dp"),
        (node("web-2", document()), Status.INVALID_ARGUMENT, "does not match proxy resource"),
        (node(passed=document(networking={"address": "x y"})), Status.INVALID_ARGUMENT, "networking.address"),
        (node(passed=document(mesh="other"), mesh="other"), Status.NOT_FOUND, "mesh not found"),
        (node(passed={"type": "Mesh", "name": "default"}), Status.INVALID_ARGUMENT, "does not match"),
        (node(passed=document(service="Web")), Status.INVALID_ARGUMENT, "only by case"),
    ],
)
async def test_who_is_nobody_is_refused(autojump_clock, who: Node, status: Status, reason: str) -> None:
    async with lab() as it:
        await it.put(document("other", "web"))
        for path in (DELTA_AGGREGATED, STREAM_AGGREGATED):
            error = await refusal(it, path, hello(path, who))
            assert error.status is status, error
            assert reason in error.message


async def test_a_mesh_may_keep_proxies_out(autojump_clock) -> None:
    async with lab() as it:
        rules = {"requirements": [{"tags": {"team": "*"}}]}
        await it.put({"type": "Mesh", "name": "default", "constraints": {"dataplaneProxy": rules}})
        error = await refusal(it, DELTA_AGGREGATED, hello(DELTA_AGGREGATED, node(passed=document())))
        assert "cannot be a member of mesh 'default' with tags kuma.io/service=web" in error.message
        assert it.dataplane() is None


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ({"meshd.io/config-file": "true"}, "is in this control plane's configuration file"),
        ({"kuma.io/zone": "zone-2"}, "is of zone 'zone-2'"),
        ({"kuma.io/origin": "global"}, "is of zone ''"),
    ],
)
async def test_what_is_somebody_elses_stays(autojump_clock, labels, reason) -> None:
    async with lab() as it:
        await it.put(document(service="old", labels=labels))
        error = await refusal(it, DELTA_AGGREGATED, hello(DELTA_AGGREGATED, node(passed=document())))
        assert reason in error.message
        assert it.dataplane().services() == ("old",)


async def test_the_proxy_of_a_file_connects_without_a_resource(autojump_clock) -> None:
    async with lab() as it:
        await it.put(document(labels={"meshd.io/config-file": "true"}))
        async with it.delta(node()) as proxy:
            assert await proxy.taken() == (CLUSTER, ["a", "b"], [])
        await trio.sleep(3600)
        assert it.dataplane() is not None


# ---------------------------------------------------------------- broken streams


async def test_junk_costs_the_stream_and_nothing_else(autojump_clock) -> None:
    async with lab() as it:
        for path in PATHS:
            error = await refusal(it, path, b"\xff\xff\xff")
            assert error.status is Status.INVALID_ARGUMENT
            error = await refusal(it, path, b"")
            assert "must have a node" in error.message
        async with it.delta(node(passed=document())) as proxy:
            await proxy.taken()
            await proxy.stream.send(b"\x0f")
            with pytest.raises(RpcError, match="no discovery request"):
                await proxy.take()


async def test_a_call_that_says_nothing_is_ended(autojump_clock) -> None:
    async with lab() as it:
        async with it.dial() as channel, channel.stream(DELTA_AGGREGATED) as stream:
            with pytest.raises(RpcError, match="no request within 10 s"):
                await stream.receive()


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (DeltaRequest(LISTENER, node=Node("default.web-2")), "cannot become 'default.web-2'"),
        (DeltaRequest("x" * 1000), "a type url of 1000 characters"),
        (DeltaRequest(""), "a type url of 0 characters"),
        (DeltaRequest(ENDPOINTS, subscribe=tuple(f"n{i}" for i in range(100_001))), "more than 100000 names"),
    ],
)
async def test_a_stream_is_held_to_its_bounds(autojump_clock, request_: DeltaRequest, reason: str) -> None:
    async with lab() as it:
        async with it.delta(node(passed=document())) as proxy:
            await proxy.taken()
            await proxy.ask(request_)
            with pytest.raises(RpcError, match=reason):
                await proxy.take()
        async with it.delta(node(), types=tuple(f"t{i}" for i in range(32))) as proxy:
            await proxy.ask(DeltaRequest("one more"))
            with pytest.raises(RpcError, match="more than 32 types"):
                while True:
                    await proxy.take()


@pytest.mark.parametrize("form", ["delta", "sotw"])
async def test_names_of_what_there_is_count_for_nothing(autojump_clock, monkeypatch, form: str) -> None:
    monkeypatch.setattr(session, "MAX_NAMES", 10)
    there = tuple(f"c{i}" for i in range(30))
    async with lab() as it:
        it.shelf.layer.put([*(cluster(name) for name in there), *(endpoints(name, 1) for name in there)])
        async with getattr(it, form)(node(passed=document()), types=(CLUSTER,)) as proxy:
            await proxy.take()
            await proxy.ask(
                DeltaRequest(ENDPOINTS, subscribe=there) if form == "delta" else StateRequest(ENDPOINTS, there)
            )
            more = tuple(f"strange{i}" for i in range(11))
            wanted = (*there, *more)
            await proxy.ask(
                DeltaRequest(ENDPOINTS, subscribe=more) if form == "delta" else StateRequest(ENDPOINTS, wanted)
            )
            with pytest.raises(RpcError, match="more than 10 names of nothing that there is"):
                while True:
                    await proxy.take()


async def test_the_node_may_be_on_later_requests_too(autojump_clock) -> None:
    async with lab() as it:
        async with it.sotw(node(passed=document())) as proxy:
            response = await proxy.take()
            await proxy.ask(StateRequest(CLUSTER, (), response.version, response.nonce, node=Node("default.web-1")))
            await proxy.ask(StateRequest(LISTENER, node=Node("")))
            assert (await proxy.take()).type_url == LISTENER


# ---------------------------------------------------------------- coming and going


async def test_a_brought_resource_goes_with_its_proxy(autojump_clock) -> None:
    async with lab() as it:
        async with it.delta(node(passed=document(labels={"team": "x"}))) as proxy:
            await proxy.taken()
            labels = it.store.get(WEB).labels
            assert labels["team"] == "x"
            assert labels["kuma.io/zone"] == "zone-1"
        await trio.sleep(9)
        assert it.dataplane() is not None
        await trio.sleep(2)
        assert it.dataplane() is None
        assert it.insight() is None


async def test_who_comes_back_in_time_stays(autojump_clock) -> None:
    async with lab() as it:
        for _ in range(3):
            async with it.delta(node(passed=document())) as proxy:
                await proxy.taken()
                version = it.store.get(WEB).version
            await trio.sleep(9)
        async with it.delta(node(passed=document())) as proxy:
            await proxy.taken()
            await trio.sleep(60)
            assert it.store.get(WEB).version == version
            assert [s.is_open for s in it.insight().subscriptions] == [False, True]


async def test_a_preset_resource_stays_and_keeps_its_labels(autojump_clock) -> None:
    async with lab() as it:
        await it.put(document(service="old", labels={"team": "x", "color": "red"}))
        passed = document(labels={"color": "blue", "meshd.io/config-file": "true", "kuma.io/zone": "zone-9"})
        async with it.delta(node(passed=passed)) as proxy:
            await proxy.taken()
            assert it.dataplane().services() == ("web",)
            labels = it.store.get(WEB).labels
            assert (labels["team"], labels["color"], labels["kuma.io/zone"]) == ("x", "blue", "zone-1")
            assert not any(name.startswith("meshd.io/") for name in labels)
        await trio.sleep(3600)
        assert it.dataplane() is not None


async def test_a_proxy_that_connects_again_and_again_has_to_wait(autojump_clock) -> None:
    async with lab() as it:
        began = trio.current_time()
        took = []
        for _ in range(AT_ONCE + 2):
            async with it.delta(node(passed=document()), types=(CLUSTER,)) as proxy:
                await proxy.taken()
                took.append(trio.current_time() - began)
        assert took[AT_ONCE - 1] < EVERY_S
        assert took[AT_ONCE] >= EVERY_S
        assert took[AT_ONCE + 1] >= 2 * EVERY_S
        async with it.delta(node("web-2", passed=document("web-2")), types=(CLUSTER,)) as other:
            began = trio.current_time()
            await other.taken()
            assert trio.current_time() - began < EVERY_S


async def test_a_second_stream_is_refused_while_the_first_lives(autojump_clock) -> None:
    async with lab() as it:
        async with it.delta(node(passed=document())) as proxy:
            await proxy.taken()
            for path in (DELTA_AGGREGATED, STREAM_AGGREGATED):
                error = await refusal(it, path, hello(path, node(passed=document())))
                assert (error.status, error.message) == (Status.ALREADY_EXISTS, TAKEN)
            it.shelf.layer.put([cluster("c")])
            assert await proxy.taken() == (CLUSTER, ["c"], [])


async def test_a_connection_that_does_not_answer_loses_its_name(autojump_clock) -> None:
    async with lab() as it:
        async with it.delta(node(passed=document())) as lost:
            await lost.taken()
            it.cable.vanish()
            async with it.delta(node(passed=document())) as proxy:
                assert await proxy.taken() == (CLUSTER, ["a", "b"], [])
                await trio.sleep(20)
                assert it.dataplane() is not None
                assert len(it.shelf.attached) == 1
                assert [s.is_open for s in it.insight().subscriptions] == [False, True]


async def test_a_restart_of_the_control_plane_changes_nothing(autojump_clock) -> None:
    async with lab() as it:
        async with it.running():  # this run ends while the proxy is connected
            async with it.delta(node(passed=document())) as proxy:
                await proxy.taken()
                before = it.store.get(WEB)
                it.nursery.cancel_scope.cancel()
        async with it.running():
            await trio.sleep(RETURN_S - 30)
            async with it.delta(node(passed=document())) as proxy:
                await proxy.taken()
                await trio.sleep(3600)
                assert it.store.get(WEB) == before
                subscriptions = it.insight().subscriptions
                assert [(s.control_plane_instance_id, s.is_open) for s in subscriptions] == [
                    ("cp-2", False),
                    ("cp-3", True),
                ]


async def test_who_never_comes_back_after_a_restart_goes(autojump_clock) -> None:
    async with lab() as it:
        await it.put(document("preset"))
        async with it.running():
            async with it.delta(node(passed=document())) as proxy:
                await proxy.taken()
                it.nursery.cancel_scope.cancel()
        async with it.running():
            await trio.sleep(RETURN_S - 1)
            assert it.dataplane() is not None
            await trio.sleep(2)
            assert it.dataplane() is None
            assert it.dataplane(ResourceKey("Dataplane", "default", "preset")) is not None


async def test_what_was_written_anew_meanwhile_stays(autojump_clock) -> None:
    async with lab() as it:
        async with it.delta(node(passed=document())) as proxy:
            await proxy.taken()
        await it.put(document())  # by somebody: without the label that says that its proxy brought it
        await trio.sleep(3600)
        assert it.dataplane() is not None


async def test_what_is_gone_for_three_days_is_deleted(autojump_clock) -> None:
    async with lab() as it:
        await it.put(document(), document("never"))
        async with it.delta(node()) as proxy:
            await proxy.taken()
        await trio.sleep(timedelta(hours=72).total_seconds() - CLEAN_EVERY_S)
        assert it.dataplane() is not None
        await trio.sleep(2 * CLEAN_EVERY_S + 1)
        assert it.dataplane() is None
        assert it.dataplane(ResourceKey("Dataplane", "default", "never")) is not None


async def test_a_mesh_that_goes_takes_its_proxies_along(autojump_clock) -> None:
    async with lab() as it:
        async with it.delta(node(passed=document())) as proxy:
            await proxy.taken()
            await it.store.write([Delete(ResourceKey("Mesh", "", "default"))])
            await trio.sleep(1)
            assert it.dataplane() is None
        await trio.sleep(60)
        assert await refusal(it, DELTA_AGGREGATED, hello(DELTA_AGGREGATED, node(passed=document())))


async def test_an_ingress_keeps_the_services_that_were_computed(autojump_clock) -> None:
    key = ResourceKey("ZoneIngress", "", "in-1")
    passed = {"type": "ZoneIngress", "name": "in-1", "networking": {"address": "10.0.0.1", "port": 10001}}
    available = [{"tags": {"kuma.io/service": "web"}, "instances": 1, "mesh": "default"}]
    who = node("in-1", passed, mesh="", **{"dataplane.proxyType": "ingress"})
    async with lab() as it:
        async with it.delta(who) as proxy:
            await proxy.taken()
            labels = dict(it.store.get(key).labels)
            await it.put({**passed, "labels": labels, "availableServices": available})
            version = it.store.get(key).version
        async with it.delta(who) as proxy:
            await proxy.taken()
            assert it.store.get(key).version == version
            assert [s.instances for s in it.store.get(key).spec.available_services] == [1]


# ---------------------------------------------------------------- insights


async def test_counts_are_written_every_ten_seconds_and_at_the_end(autojump_clock) -> None:
    async with lab() as it:
        version = {"kumaDp": {"version": "2.14.3"}, "envoy": {"version": "1.38.0", "build": "b"}}
        who = node(passed=document(), version=version)
        async with it.delta(who, types=(CLUSTER, LISTENER, SECRET)) as proxy:
            for _ in range(3):
                await proxy.taken()
            await trio.sleep(1)
            [subscription] = it.insight().subscriptions
            assert subscription.version.kuma_dp.version == "2.14.3"
            assert subscription.version.kuma_dp.kuma_cp_compatible
            assert subscription.version.envoy.version == "1.38.0"
            await trio.sleep(20)
            writes = it.store.get(ResourceKey("DataplaneInsight", "default", "web-1")).version
            for i in range(5):
                it.shelf.layer.put([listener(f"l{i}", i)])
                await proxy.taken()
            await trio.sleep(5)
            assert it.store.get(ResourceKey("DataplaneInsight", "default", "web-1")).version == writes
            await trio.sleep(10)
            [subscription] = it.insight().subscriptions
            assert subscription.status.lds.responses_acknowledged == 6
            assert subscription.status.total.responses_acknowledged == 8
            idle = it.store.get(ResourceKey("DataplaneInsight", "default", "web-1")).version
            await trio.sleep(3600)
            assert it.store.get(ResourceKey("DataplaneInsight", "default", "web-1")).version == idle
        await trio.sleep(1)
        [subscription] = it.insight().subscriptions
        assert subscription.disconnect_time is not None


async def test_an_insight_tells_what_could_not_be_rendered_as_long_as_it_cannot(autojump_clock) -> None:
    async with lab() as it:
        said = {"dataplane.admin.port": "9901", "features": ["feature-b", 7, "feature-a"], "ipv6Enabled": True}
        async with it.delta(node(passed=document(), **said), types=(CLUSTER,)) as proxy:
            await proxy.taken()
            await trio.sleep(1)
            assert it.insight().metadata == said | {"features": ["feature-a", "feature-b"]}
            [feed] = it.shelf.attached
            feed.explain((Violation("outbound api", "nonsense"),))
            await trio.sleep(1)
            assert it.insight().metadata["refused"] == {"outbound api": "nonsense"}
            version = it.store.get(INSIGHT).version
            feed.explain((Violation("outbound api", "nonsense"),))
            await trio.sleep(60)
            assert it.store.get(INSIGHT).version == version
            feed.explain(())
            await trio.sleep(1)
            assert "refused" not in it.insight().metadata


async def test_an_insight_tells_why_a_proxy_is_not_served_until_it_is(autojump_clock) -> None:
    async with lab() as it:
        wrong = {"dataplane.admin.port": "9901", "dataplane.admin.address": "10.9.9.9"}
        versions = set()
        for _ in range(3):
            await refusal(it, DELTA_AGGREGATED, hello(DELTA_AGGREGATED, node(passed=document(), **wrong)))
            await trio.sleep(1)
            versions.add(it.store.get(INSIGHT).version)
        assert list(it.insight().metadata["refused"]) == ["node metadata dataplane.admin.address"]
        assert not it.insight().subscriptions
        assert len(versions) == 1  # the same reason is written once
        async with it.delta(node(passed=document()), types=(CLUSTER,)) as proxy:
            await proxy.taken()
            await trio.sleep(1)
            assert not it.insight().metadata


# ---------------------------------------------------------------- health

PROBED = {
    "address": "10.0.0.1",
    "inbound": [
        {"port": 80, "servicePort": 8080, "serviceProbe": {"tcp": {}}, "tags": {"kuma.io/service": "web"}},
        {"port": 81, "servicePort": 8081, "tags": {"kuma.io/service": "other"}},
        {"port": 82, "servicePort": 8082, "state": "Ignored", "tags": {"kuma.io/service": "off"}},
    ],
}
READY, NOT_READY, IGNORED = InboundState.READY, InboundState.NOT_READY, InboundState.IGNORED


def health(**clusters: int) -> bytes:
    """An EndpointHealthResponse."""
    named = {"admin": "kuma:envoy:admin", "web": "localhost:8080"}
    parts = b""
    for name, status in clusters.items():
        endpoint = bytes_field(2, bytes_field(2, varint_field(2, status)))
        parts += bytes_field(2, bytes_field(1, named[name].encode()) + endpoint)
    return bytes_field(2, parts)


async def test_probes_decide_who_is_ready(autojump_clock) -> None:
    who = node(passed=document(networking=PROBED), **{"dataplane.admin.port": "9901"})

    def states(it) -> list[InboundState]:
        return [i.state for i in it.dataplane().networking.inbound]

    async with lab() as it:
        async with it.dial() as channel, channel.stream(STREAM_HEALTH_CHECK) as stream:
            await stream.send(hello(STREAM_HEALTH_CHECK, who))
            async with it.delta(who) as proxy:
                await proxy.taken()
                assert states(it) == [NOT_READY, READY, IGNORED]
                specifier = await stream.receive()
                assert b"localhost:8080" in specifier
                assert b"localhost:8081" not in specifier
                for report, expected in (
                    (health(admin=1), [NOT_READY, READY, IGNORED]),
                    (health(admin=1, web=1), [READY, READY, IGNORED]),
                    (health(admin=1, web=2), [NOT_READY, READY, IGNORED]),
                    (health(admin=1, web=0), [READY, READY, IGNORED]),
                    (health(admin=4, web=1), [NOT_READY, NOT_READY, IGNORED]),
                    (health(web=1), [READY, READY, IGNORED]),
                ):
                    await stream.send(report)
                    await trio.sleep(0.1)
                    assert states(it) == expected
                    version = it.store.get(WEB).version
                    await stream.send(report)
                    await trio.sleep(0.1)
                    assert it.store.get(WEB).version == version
                assert it.dataplane().networking.inbound[0].health.ready
            # back after a moment, as after a restart of the control plane: what was reported stands
            async with it.delta(who) as proxy:
                await proxy.taken()
                assert it.store.get(WEB).version == version
            labels = dict(it.store.get(WEB).labels)
            other = {**PROBED, "inbound": [*PROBED["inbound"], {"port": 83, "serviceProbe": {"tcp": {}}}]}
            await it.put(document(networking=other, labels=labels))
            assert b"localhost:83" in await stream.receive()


async def test_a_zone_without_health_discovery_does_not_serve_it(autojump_clock) -> None:
    async with lab(settings=Settings(Authn("zone-1", False, False), health=None)) as it:
        who = node(passed=document(networking=PROBED))
        error = await refusal(it, STREAM_HEALTH_CHECK, hello(STREAM_HEALTH_CHECK, who))
        assert error.status is Status.UNIMPLEMENTED
        async with it.delta(who) as proxy:
            await proxy.taken()
            assert it.dataplane().networking.inbound[0].is_ready


async def test_all_streams_end_when_the_control_plane_stops(autojump_clock) -> None:
    async with lab() as it:
        who = node(passed=document(networking=PROBED))
        async with it.delta(who) as proxy, it.dial() as channel, channel.stream(STREAM_HEALTH_CHECK) as probes:
            await proxy.taken()
            await probes.send(hello(STREAM_HEALTH_CHECK, who))
            assert b"localhost:8080" in await probes.receive()
            it.serving.cancel()
            for stream in (proxy.stream, probes):
                with pytest.raises(RpcError, match="the control plane is shutting down") as raised:
                    while True:
                        await stream.receive()
                assert raised.value.status is Status.UNAVAILABLE


async def test_health_discovery_waits_for_a_dataplane_and_then_gives_up(autojump_clock) -> None:
    async with lab() as it:
        began = trio.current_time()
        error = await refusal(it, STREAM_HEALTH_CHECK, hello(STREAM_HEALTH_CHECK, node()))
        assert error.status is Status.NOT_FOUND
        assert trio.current_time() - began == pytest.approx(30, abs=1)
        error = await refusal(
            it, STREAM_HEALTH_CHECK, hello(STREAM_HEALTH_CHECK, node("z", mesh="", **{"dataplane.proxyType": "egress"}))
        )
        assert "is for Dataplanes" in error.message


async def test_health_discovery_is_refused_slowly(autojump_clock) -> None:
    async with lab(settings=TOKENS) as it:
        began = trio.current_time()
        error = await refusal(it, STREAM_HEALTH_CHECK, hello(STREAM_HEALTH_CHECK, node(passed=document())))
        assert error.status is Status.UNAUTHENTICATED
        assert trio.current_time() - began == pytest.approx(10, abs=1)


async def test_tokens_that_expire_meanwhile_do_not_cut_a_stream(autojump_clock) -> None:
    async with lab(settings=TOKENS) as it:
        token = dataplane_token(it)
        async with it.delta(node(passed=document()), token=token) as proxy:
            await proxy.taken()
            await trio.sleep(7200)
            assert now().hour == 2
            it.shelf.layer.put([cluster("c")])
            assert await proxy.taken() == (CLUSTER, ["c"], [])
        error = await refusal(
            it, DELTA_AGGREGATED, hello(DELTA_AGGREGATED, node(passed=document())), *authorization(token)
        )
        assert "expired" in error.message


async def test_a_deleted_resource_that_nobody_brings_back_is_refused(autojump_clock) -> None:
    async with lab() as it:
        await it.put(document())
        await it.store.write([Put(it.store.get(WEB)), Delete(WEB)])
        error = await refusal(it, DELTA_AGGREGATED, hello(DELTA_AGGREGATED, node()))
        assert error.status is Status.NOT_FOUND
