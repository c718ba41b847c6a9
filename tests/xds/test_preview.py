"""What a connected Dataplane is to have, for people who ask."""

from dataclasses import replace

from meshd.model.resource import Resource, ResourceKey
from meshd.xds import decode
from meshd.xds.abilities import Abilities
from meshd.xds.decode import shown
from meshd.xds.resources import CLUSTER, LISTENER, SECRET, resource
from tests.topology import builders as b
from tests.xds.test_keeper import REDIRECTED, World, http, idle, key, mesh_timeout

START = [b.mesh(), http("web-1", "web"), http("api-1", "api", "10.0.0.2"), mesh_timeout("api", "7s")]


def shadow(policy):
    return Resource(replace(policy.key, name="a-shadow"), policy.spec, {"kuma.io/effect": "shadow"})


async def connected(nursery, *resources):
    world = World([*START, *resources])
    await nursery.start(world.keeper.run)
    feed = world.keeper.attach(key("web-1"), REDIRECTED)
    await idle()
    return world, feed


async def test_it_is_what_the_proxy_has_but_its_secrets(nursery, autojump_clock):
    world, feed = await connected(nursery)
    found = await world.keeper.preview(key("web-1"), shadow=False)
    has = {(t, e.name): e.version for layer in feed.layers for t, e in layer.items() if t != SECRET}
    assert {(r.type_url, r.name): r.entry.version for r in found} == has
    assert {CLUSTER, LISTENER} <= {r.type_url for r in found}


async def test_shadow_policies_are_real_in_it_if_asked_for(nursery, autojump_clock):
    world, feed = await connected(nursery, shadow(mesh_timeout("api", "9s")))
    plain, shadowed = [shown(await world.keeper.preview(key("web-1"), shadow=s)) for s in (False, True)]
    assert plain[CLUSTER]["api"]["connectTimeout"] == "7s"
    assert shadowed[CLUSTER]["api"]["connectTimeout"] == "9s"
    assert plain[LISTENER] == shadowed[LISTENER]
    feed.take()
    await idle()
    assert not feed.take()  # nobody but who asked has seen it


async def test_of_who_is_not_connected_there_is_none(nursery, autojump_clock):
    world, _ = await connected(nursery)
    world.keeper.attach(key("gone-1"), Abilities())
    for name in ("api-1", "gone-1"):
        assert await world.keeper.preview(key(name), shadow=False) is None
    assert await world.keeper.preview(key("web-1", "other"), shadow=False) is None
    assert await world.keeper.preview(ResourceKey("ZoneIngress", "", "web-1"), shadow=False) is None


def test_private_keys_are_not_shown():
    tls = {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "commonTlsContext": {
            "tlsCertificates": [
                {"certificateChain": {"inlineString": "cert"}, "privateKey": {"inlineString": "key"}},
            ]
        },
    }
    made = resource(CLUSTER, {"name": "c", "transportSocket": {"name": "tls", "typedConfig": tls}})
    [certificate] = shown([made])[CLUSTER]["c"]["transportSocket"]["typedConfig"]["commonTlsContext"]["tlsCertificates"]
    assert certificate == {"certificateChain": {"inlineString": "cert"}, "privateKey": decode.REDACTED}
    secret = resource(SECRET, {"name": "s", "genericSecret": {"secret": {"inlineString": "key"}}})
    assert shown([secret]) == {}
