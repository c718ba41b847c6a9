"""Who may be which proxy, before anything else that a call brings is looked at."""

import pytest

from meshd.discovery import DeltaRequest, StateRequest, state_wire, wire
from meshd.discovery.fields import bytes_field
from meshd.model.errors import DeniedError
from meshd.rpc import RpcError, Status
from meshd.xds.auth import Authn, check_bearer
from meshd.xds.resources import CLUSTER
from meshd.xds.server import DELTA_AGGREGATED, STREAM_AGGREGATED, STREAM_HEALTH_CHECK
from meshd.xds.service import Settings
from tests.xds.ads import authorization, dataplane_token, document, lab, node, now, zone_token

NO_MESSAGE = b"\x3a\x7f"
"""A field that is cut."""


async def test_a_token_is_for_a_mesh_and_a_name(autojump_clock) -> None:
    async with lab() as it:
        authn = Authn("zone-1")
        bound = dataplane_token(it, name="web-1", tags={"kuma.io/service": ["web"]})
        check_bearer(it.store, authn, bound, "default", "web-1", now())
        for mesh, name in (("default", "web-2"), ("other", "web-1"), ("", "web-1")):
            with pytest.raises(DeniedError):
                check_bearer(it.store, authn, bound, mesh, name, now())
        check_bearer(it.store, Authn("zone-1", dataplane_tokens=False), "", "default", "web-1", now())


@pytest.mark.parametrize(("scope", "zone", "is_taken"), [("egress", "zone-1", True), ("ingress", "zone-2", False)])
async def test_a_zone_token_is_for_either_kind_of_its_zone(autojump_clock, scope, zone, is_taken) -> None:
    async with lab() as it:
        token = zone_token(it, scope, zone)
        if is_taken:
            check_bearer(it.store, Authn("zone-1"), token, "", "in-1", now())
        else:
            with pytest.raises(DeniedError, match="zone-2"):
                check_bearer(it.store, Authn("zone-1"), token, "", "in-1", now())


@pytest.mark.parametrize("method", [DELTA_AGGREGATED, STREAM_AGGREGATED, STREAM_HEALTH_CHECK])
async def test_what_somebody_without_a_token_brings_is_not_read(autojump_clock, method) -> None:
    messages = {
        DELTA_AGGREGATED: wire.encode_request(DeltaRequest(CLUSTER, node=node("web-1"))),
        STREAM_AGGREGATED: state_wire.encode_request(StateRequest(CLUSTER, node=node("web-1"))),
        STREAM_HEALTH_CHECK: bytes_field(1, bytes_field(1, wire.encode_node(node("web-1")))),
    }
    async with lab(settings=Settings(Authn("zone-1"))) as it:
        for token, status in (("", Status.UNAUTHENTICATED), (dataplane_token(it), Status.INVALID_ARGUMENT)):
            async with it.dial() as channel, channel.stream(method, authorization(token)) as stream:
                await stream.send(messages[method] + NO_MESSAGE)
                with pytest.raises(RpcError) as refused:
                    await stream.receive()
            assert refused.value.status is status


async def test_half_a_character_is_refused_with_words(autojump_clock) -> None:
    async with lab() as it, it.delta(node("web-1", document(labels={"team": "\ud800"}))) as proxy:
        with pytest.raises(RpcError, match=r"labels.*\\ud800") as refused:
            await proxy.take()
        assert refused.value.status is Status.INVALID_ARGUMENT
