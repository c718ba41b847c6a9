"""The keeper: from views to feeds, in virtual time."""

from dataclasses import replace
from datetime import UTC, datetime

import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from meshd.ca.envoy_admin import new_ca, read_ca, server_tls
from meshd.ca.identity import Credentials, Identity, TrustBundle, no_credentials
from meshd.cli.known import registry
from meshd.kinds.external_service import ExternalService
from meshd.kinds.mesh import Mode
from meshd.kinds.without_effect import NO_EFFECT
from meshd.kinds.zone_ingress import ZoneIngress
from meshd.model.resource import Resource, ResourceKey
from meshd.model.shape import read_strict
from meshd.policies import discover
from meshd.policies.mesh_timeout.spec import MeshTimeout
from meshd.policies.mesh_traffic_permission.spec import MeshTrafficPermission
from meshd.runtime.latest import Latest
from meshd.store.memory import MemoryStore
from meshd.store.store import Delete, Put
from meshd.topology.build import Topology
from meshd.topology.vips import Book
from meshd.xds.abilities import Abilities, Redirect
from meshd.xds.encode import load_schema
from meshd.xds.keeper import CERTIFIED_S, LOOK_UP_AGAIN_S, REST_S, RETIRE_S, Outside, XdsKeeper
from meshd.xds.resources import CLUSTER, ENDPOINTS, LISTENER, ORDER, SECRET
from meshd.xds.shaping import Shaper
from meshd.xds.turning import LEAD_S
from tests.topology import builders as b
from tests.topology.views import settle

load_schema()  # otherwise a thread does, and the virtual clock runs ahead of it

NOW = datetime(2026, 1, 1, tzinfo=UTC)
REDIRECTED = Abilities(redirect=Redirect(15006, 15001, ipv6=True))

RESOLVING = replace(REDIRECTED, dns_port=15054)


class Patience(Shaper):
    """Gives clusters of a service the connect timeout that the last policy about it names."""

    def cluster(self, draft, matched):
        for policy in matched:
            for item in policy.spec.to:
                if item.target_ref.name == draft.destination.service:
                    draft.document["connectTimeout"] = f"{item.default.connection_timeout.total_seconds():g}s"


SHAPERS = (("MeshTimeout", Patience()), *((p.type.kind, p.shaper) for p in discover() if p.shaper is not None))


def certified(mesh, owner, life="1"):
    identity = Identity(mesh, (f"spiffe://{mesh}/{owner}",), life.encode(), b"key", NOW, NOW)
    return Credentials(identity, TrustBundle(mesh, b"root"))


class World:
    """A zone without the rest of the process: resources in, feeds out."""

    def __init__(self, resources=(), addresses=None, shapers=SHAPERS, issues=True):
        self.topology, self.book = Topology("zone-a", "mesh", 80), Book()
        self.resources, self.version = {}, 0
        self.store = MemoryStore(lambda: NOW)
        self.views = Latest({})
        self.cells, self.released = {}, []
        self.issues = issues
        self.names = addresses or {}
        self.looked_up = []
        self.apply(*resources)
        self.material, self.admin_ca = Latest(0), None
        outside = Outside(
            self.credentials, self.release, read_nothing, self.material, lambda: self.admin_ca, self.look_up
        )
        self.keeper = XdsKeeper("zone-a", self.store, self.views, shapers, outside, CollectorRegistry())

    def credentials(self, mesh, owner, uris):  # noqa: ARG002
        first = certified(mesh, owner) if self.issues else no_credentials(mesh)
        return self.cells.setdefault((mesh, owner), Latest(first))

    async def release(self, mesh, owner):
        self.released.append((mesh, owner))

    async def look_up(self, host):
        self.looked_up.append(host)
        await trio.sleep(0.1)
        if host not in self.names:
            raise OSError(f"no {host}")
        return (self.names[host],)

    def apply(self, *changes):
        """Resources to write, keys to delete."""
        for change in changes:
            key, resource = (change.key, change) if isinstance(change, Resource) else (change, None)
            self.version += 1
            if resource is None:
                self.resources.pop(key, None)
            else:
                resource = Resource(resource.key, resource.spec, resource.labels, version=self.version)
                self.resources[key] = resource
            self.topology.apply(key, resource)
        self.book = settle(self.topology, self.book)
        self.views.publish(self.topology.views)

    async def store_zone_proxies(self, *changes):
        self.apply(*changes)
        await self.store.write([Put(c) if isinstance(c, Resource) else Delete(c) for c in changes])


def read_nothing(mesh, source):
    raise ValueError(f"{mesh} has no {source}")


def key(name, mesh="default"):
    return ResourceKey("Dataplane", mesh, name)


def content(feed):
    return {(t.rpartition(".")[2], n): feed.get(t, n).version for t in ORDER for n in feed.names(t)}


def http(name, service, address="10.0.0.1", **tags):
    return b.dataplane(name, b.inbound(service, tags={"kuma.io/protocol": "http", **tags}), address=address)


async def idle():
    await trio.sleep(2.5 * REST_S)  # a round, and one for what that one set off


async def test_a_proxy_is_ready_once_its_resource_is_in_the_view(nursery, autojump_clock):
    world = World([b.mesh()])
    await nursery.start(world.keeper.run)
    feed = world.keeper.attach(key("web-1"), Abilities())
    await idle()
    assert not feed.ready

    world.apply(http("web-1", "web"))
    await idle()

    assert feed.ready
    assert set(feed.names(LISTENER)) == {"inbound:10.0.0.1:8080"}


async def test_a_changed_endpoint_is_one_assignment_for_everybody(nursery, autojump_clock):
    world = World([b.mesh(), http("web-1", "web"), http("api-1", "api", "10.0.0.2")])
    await nursery.start(world.keeper.run)
    feeds = [world.keeper.attach(key(name), REDIRECTED) for name in ("web-1", "api-1")]
    await idle()
    for feed in feeds:
        feed.take()
    woken = []
    feeds[0].wake = lambda: woken.append(1)

    world.apply(http("api-2", "api", "10.0.0.3"))
    await idle()

    assert [dict(feed.take()) for feed in feeds] == [{ENDPOINTS: {"api"}}] * 2
    assert woken
    assert feeds[0].layers[2] is feeds[1].layers[2]


async def test_a_burst_is_one_round_after_the_first_change(nursery, autojump_clock):
    world = World([b.mesh(), http("web-1", "web"), http("api-1", "api", "10.0.0.2")])
    await nursery.start(world.keeper.run)
    feed = world.keeper.attach(key("web-1"), REDIRECTED)
    await trio.sleep(1)
    feed.take()
    woken = []
    feed.wake = lambda: woken.append(trio.current_time())

    began = trio.current_time()
    for n in range(10):
        world.apply(http("api-1", "api", f"10.0.1.{n}"))
        await trio.sleep(REST_S / 20)
    await trio.sleep(1)

    assert woken == [began, began + REST_S]
    assert b"10.0.1.9" in feed.get(ENDPOINTS, "api").body


async def test_a_cluster_outlives_what_led_to_it(nursery, autojump_clock):
    world = World([b.mesh(), http("web-1", "web"), http("api-1", "api", "10.0.0.2")])
    await nursery.start(world.keeper.run)
    feed = world.keeper.attach(key("web-1"), REDIRECTED)
    await idle()

    assert "outbound:240.0.0.1:80" in feed.names(LISTENER)
    world.apply(key("api-1"))
    await idle()
    assert "outbound:240.0.0.1:80" not in feed.names(LISTENER)
    assert "api" in feed.names(CLUSTER)
    feed.take()
    await trio.sleep(2 * RETIRE_S + 1)

    assert "api" not in feed.names(CLUSTER)
    assert feed.take() == {CLUSTER: {"api"}, ENDPOINTS: {"api"}}


async def test_what_a_policy_does_not_change_is_not_sent_again(nursery, autojump_clock):
    world = World([b.mesh(), http("web-1", "web"), http("api-1", "api", "10.0.0.2")])
    await nursery.start(world.keeper.run)
    feed = world.keeper.attach(key("web-1"), REDIRECTED)
    await idle()
    feed.take()

    world.apply(mesh_timeout("api", "7s"))
    await idle()

    assert feed.take().get(CLUSTER) == {"api"}


def mesh_timeout(service, connect):
    item = {"targetRef": {"kind": "MeshService", "name": service}, "default": {"connectionTimeout": connect}}
    spec = read_strict(MeshTimeout, {"targetRef": {"kind": "Mesh"}, "to": [item]})
    return Resource(ResourceKey("MeshTimeout", "default", "mt"), spec)


async def test_a_proxy_gets_everything_once_it_has_a_certificate(nursery, autojump_clock):
    world = World([b.mesh(), http("web-1", "web")], issues=False)
    await nursery.start(world.keeper.run)
    feed = world.keeper.attach(key("web-1"), Abilities())
    await idle()
    assert not feed.ready

    cell = world.cells["default", "web-1"]
    cell.publish(certified("default", "web-1"))
    await idle()
    assert feed.ready
    assert set(feed.names(SECRET)) == {"identity_cert:secret:default", "mesh_ca:secret:default"}
    feed.take()
    cell.publish(certified("default", "web-1", "2"))
    await idle()

    assert feed.take() == {SECRET: {"identity_cert:secret:default"}}


async def test_without_a_certificate_a_proxy_gets_the_rest_in_the_end(nursery, autojump_clock):
    world = World([b.mesh(), http("web-1", "web")], issues=False)
    await nursery.start(world.keeper.run)
    feed = world.keeper.attach(key("web-1"), Abilities())
    await trio.sleep(CERTIFIED_S + 1)

    assert feed.ready
    assert not list(feed.names(SECRET))
    assert list(feed.names(LISTENER)) == ["inbound:10.0.0.1:8080"]


async def test_a_proxy_whose_resource_goes_before_its_certificate_comes(nursery, autojump_clock):
    world = World([b.mesh(), http("web-1", "web")], issues=False)
    await nursery.start(world.keeper.run)
    feed = world.keeper.attach(key("web-1"), Abilities())
    await idle()
    world.apply(key("web-1"))
    await idle()
    assert world.released == [("default", "web-1")]
    world.cells["default", "web-1"] = Latest(certified("default", "web-1"))
    world.apply(http("web-1", "web"))
    await idle()

    assert feed.ready
    assert len(list(feed.names(SECRET))) == 2


async def test_an_egress_gives_up_a_certificate_that_it_needs_no_more(nursery, autojump_clock):
    egress, outside = b.egress("out"), b.external("es", "outside", "example.com:443")
    world = World([b.mesh(), outside])
    await world.store_zone_proxies(egress)
    await nursery.start(world.keeper.run)
    feed = world.keeper.attach(egress.key, Abilities())
    await idle()
    assert len(list(feed.names(SECRET))) == 2

    world.apply(outside.key)
    await idle()

    assert not list(feed.names(SECRET))
    assert world.released == [("default", "zone-egress.out")]


async def test_an_egress_is_not_shown_a_listener_from_before_its_certificate(nursery, autojump_clock):
    class Busy(World):
        def credentials(self, mesh, owner, uris):
            if owner == "zone-egress.two":  # the first one is rendered
                self.cells[mesh, "zone-egress.one"].publish(certified(mesh, "zone-egress.one"))
            return super().credentials(mesh, owner, uris)

    first, second = b.egress("one"), b.egress("two", address="10.0.0.8")
    world = Busy([b.mesh(), b.external("es", "outside", "example.com:443")], issues=False)
    await world.store_zone_proxies(first, second)
    await nursery.start(world.keeper.run)
    feed = world.keeper.attach(first.key, Abilities())
    seen = []
    feed.wake = lambda: seen.append(set(feed.names(LISTENER)))
    world.keeper.attach(second.key, Abilities())
    await idle()
    await trio.sleep(1)  # its external service is looked up

    assert seen[0] == {"inbound:10.0.0.9:10002"}


async def test_without_mtls_no_certificate_is_waited_for(nursery, autojump_clock):
    world = World([b.mesh(mtls=False), http("web-1", "web")], issues=False)
    await nursery.start(world.keeper.run)
    feed = world.keeper.attach(key("web-1"), Abilities())
    await idle()

    assert feed.ready


async def test_an_identity_is_released_with_its_dataplane_not_with_its_stream(nursery, autojump_clock):
    world = World([b.mesh(), http("web-1", "web")])
    await nursery.start(world.keeper.run)
    feed = world.keeper.attach(key("web-1"), Abilities())
    await idle()

    world.keeper.detach(feed)
    await idle()
    assert not world.released
    world.apply(key("web-1"))
    await idle()

    assert world.released == [("default", "web-1")]


async def test_names_are_looked_up_and_kept_while_they_fail(nursery, autojump_clock):
    world = World([b.mesh(), http("web-1", "web"), http("api-1", "api", "api.example")], {"api.example": "10.9.0.1"})
    await nursery.start(world.keeper.run)
    feed = world.keeper.attach(key("web-1"), REDIRECTED)
    await trio.sleep(1)
    before = feed.get(ENDPOINTS, "api")
    assert b"10.9.0.1" in before.body

    world.names.clear()
    await trio.sleep(30)
    assert feed.get(ENDPOINTS, "api") == before
    world.names["api.example"] = "10.9.0.2"
    feed.take()
    await trio.sleep(15)

    assert b"10.9.0.2" in feed.get(ENDPOINTS, "api").body
    assert feed.take() == {ENDPOINTS: {"api"}}


async def test_ingress_and_egress(nursery, autojump_clock):
    world = World([b.mesh(zone_egress=True), http("web-1", "web")], issues=False)
    ingress, egress = b.ingress("in", ""), b.egress("out")
    await world.store_zone_proxies(ingress, egress)
    world.apply(b.external("es", "outside", "example.com:443"))
    await nursery.start(world.keeper.run)
    feeds = [world.keeper.attach(proxy.key, Abilities()) for proxy in (ingress, egress)]
    await idle()

    assert [feed.ready for feed in feeds] == [True, False]
    assert set(feeds[0].names(CLUSTER)) == {"default:web"}
    await trio.sleep(CERTIFIED_S + 1)
    assert feeds[1].ready
    assert not list(feeds[1].names(LISTENER))  # its only chain needs a certificate
    world.cells["default", "zone-egress.out"].publish(certified("default", "zone-egress"))
    await idle()
    assert list(feeds[1].names(LISTENER)) == ["inbound:10.0.0.9:10002"]
    assert len(list(feeds[1].names(SECRET))) == 2
    world.apply(http("api-1", "api", "10.0.0.5"))
    await idle()
    assert set(feeds[0].names(CLUSTER)) == {"default:web", "default:api"}


class Defective(Shaper):
    """A policy that makes of inbounds, or of outbounds to one service, what Envoy's API has not."""

    def __init__(self, *, inbound=False, service=""):
        self.breaks_inbound, self.service = inbound, service

    def inbound(self, draft, matched):  # noqa: ARG002
        if self.breaks_inbound:
            draft.cluster["nonsense"] = 1

    def outbound(self, draft, matched):  # noqa: ARG002
        if draft.destination.service == self.service:
            draft.listener["nonsense"] = 1


async def test_a_proxy_that_could_not_be_rendered_at_first_is_shown_once_it_can(nursery, autojump_clock):
    shaper = Defective(inbound=True)
    world = World([b.mesh(), http("web-1", "web")], shapers=(("MeshTimeout", shaper),))
    await nursery.start(world.keeper.run)
    feed = world.keeper.attach(key("web-1"), Abilities())
    await idle()
    assert not feed.ready

    shaper.breaks_inbound = False
    world.apply(mesh_timeout("web", "7s"))
    await idle()

    assert feed.ready


async def test_an_outbound_that_cannot_be_rendered_does_not_keep_the_others(nursery, autojump_clock):
    shaper = Defective(service="api")
    start = [b.mesh(), http("web-1", "web"), http("api-1", "api", "10.0.0.2"), http("db-1", "db", "10.0.0.3")]
    world = World(start, shapers=(("MeshTimeout", shaper),))
    await nursery.start(world.keeper.run)
    feed = world.keeper.attach(key("web-1"), REDIRECTED)
    await idle()
    of_services = {n for n in feed.names(LISTENER) if n.startswith("outbound:240.")}
    assert len(of_services) == 2

    shaper.service = ""
    world.apply(http("api-2", "api", "10.0.0.4"))
    await idle()

    assert len({n for n in feed.names(LISTENER) if n.startswith("outbound:240.")}) == 3


async def test_a_feed_tells_what_could_not_be_rendered_until_it_can(nursery, autojump_clock):
    shaper = Defective(service="api", inbound=True)
    start = [b.mesh(), http("web-1", "web"), http("api-1", "api", "10.0.0.2")]
    world = World(start, shapers=(("MeshTimeout", shaper),))
    await nursery.start(world.keeper.run)
    feed = world.keeper.attach(key("web-1"), REDIRECTED)
    told = []
    feed.on_lacking = lambda: told.append(lacking(feed))
    await idle()
    assert list(lacking(feed)) == ["configuration"]
    assert "nonsense" in lacking(feed)["configuration"]

    shaper.breaks_inbound = False
    world.apply(mesh_timeout("web", "7s"))
    await idle()
    assert list(lacking(feed)) == ["outbound outbound:240.0.0.1:80"]
    world.apply(http("api-2", "api", "10.0.0.4"))
    await idle()
    assert len(told) == 2  # the same again is no news
    shaper.service = ""
    world.apply(http("api-3", "api", "10.0.0.5"))
    await idle()

    assert told[2:] == [{}]


def lacking(feed):
    return {violation.field: violation.message for violation in feed.lacking}


async def test_a_feed_tells_of_external_services_to_which_nothing_may_be_sent(nursery, autojump_clock):
    plain = b.external("es", "outside", "example.com:443")
    tls = {"enabled": True, "caCert": {"secret": "none"}}
    networking = {"address": "example.com:443", "tls": tls}
    outside = replace(plain, spec=ExternalService.model_validate({"networking": networking, "tags": plain.spec.tags}))
    for through_egress in (False, True):
        egress = b.egress("out")
        world = World([b.mesh(zone_egress=through_egress), http("web-1", "web"), outside])
        await world.store_zone_proxies(*([egress] if through_egress else []))
        await nursery.start(world.keeper.run)
        who = egress.key if through_egress else key("web-1")
        feed = world.keeper.attach(who, REDIRECTED if not through_egress else Abilities())
        await trio.sleep(1)

        [(where, why)] = lacking(feed).items()
        assert where == ("mesh default service outside" if through_egress else "external service outside")
        assert "default has no DataSource(secret" in why
        world.apply(plain)
        await idle()
        assert not feed.lacking


async def test_a_feed_tells_of_names_without_an_address_and_of_missing_certificates(nursery, autojump_clock):
    ingress = Resource(
        ResourceKey("ZoneIngress", "", "in"),
        ZoneIngress.model_validate({"networking": {"address": "in.example", "port": 10001}}),
    )
    world = World([b.mesh(), http("web-1", "web", "web.example"), http("api-1", "api", "10.0.0.2")], issues=False)
    await world.store_zone_proxies(ingress)
    await nursery.start(world.keeper.run)
    web, api, zone = (world.keeper.attach(k, Abilities()) for k in (key("web-1"), key("api-1"), ingress.key))
    await trio.sleep(CERTIFIED_S + 1)
    assert lacking(web) == {"networking": "no address is known of web.example; the proxy keeps what it has"}
    assert lacking(zone) == {"networking": "no address is known of in.example; the proxy keeps what it has"}
    assert lacking(api) == {"mtls": "no certificate yet in mesh default; its connections there fail"}

    world.names |= {"web.example": "10.0.0.1", "in.example": "10.0.0.9"}
    world.cells["default", "api-1"].publish(certified("default", "api-1"))
    await trio.sleep(LOOK_UP_AGAIN_S + 1)

    assert not api.lacking
    assert not zone.lacking
    assert list(lacking(web)) == ["mtls"]


async def test_a_proxy_that_goes_while_others_are_rendered_leaves_nothing_behind(nursery, autojump_clock, monkeypatch):
    world = World([b.mesh(), http("web-1", "web"), http("web-2", "web", "10.0.0.2")])
    await nursery.start(world.keeper.run)
    first, second = (world.keeper.attach(key(name), REDIRECTED) for name in ("web-1", "web-2"))
    await idle()
    first.wake = lambda: world.keeper.detach(second)

    world.apply(mesh_timeout("web", "7s"), http("web-1", "web", "10.0.0.9"))
    await idle()

    assert not second.layers


async def test_clusters_are_retired_although_something_changes_all_the_time(nursery, autojump_clock):
    world = World([b.mesh(), http("web-1", "web"), http("api-1", "api", "10.0.0.2")])
    await nursery.start(world.keeper.run)
    feed = world.keeper.attach(key("web-1"), REDIRECTED)
    await idle()

    world.apply(key("api-1"))
    for second in range(2 * int(RETIRE_S) + 1):
        world.apply(http("web-2", "web", f"10.0.0.{10 + second}"))
        await trio.sleep(1)

    assert "api" not in feed.names(CLUSTER)


async def test_nothing_is_shown_before_names_were_looked_up(nursery, autojump_clock):
    world = World([b.mesh(), http("web-1", "web"), http("api-1", "api", "api.example")], {"api.example": "10.9.0.1"})
    await nursery.start(world.keeper.run)
    feed = world.keeper.attach(key("web-1"), REDIRECTED)
    await idle()
    assert not feed.ready

    await trio.sleep(1)

    assert feed.ready
    assert b"10.9.0.1" in feed.get(ENDPOINTS, "api").body


async def test_a_name_without_an_address_keeps_nobody_waiting_for_long(nursery, autojump_clock):
    world = World([b.mesh(), http("web-1", "web"), http("api-1", "api", "api.example")])
    await nursery.start(world.keeper.run)
    feed = world.keeper.attach(key("web-1"), REDIRECTED)

    await trio.sleep(1)

    assert feed.ready


async def test_an_ingress_that_comes_back_has_what_changed_meanwhile(nursery, autojump_clock):
    world = World([b.mesh(), http("web-1", "web")])
    ingress = b.ingress("in", "")
    await world.store_zone_proxies(ingress)
    await nursery.start(world.keeper.run)
    world.keeper.detach(world.keeper.attach(ingress.key, Abilities()))
    feed = world.keeper.attach(ingress.key, Abilities())
    await idle()

    world.keeper.detach(feed)
    await idle()
    world.apply(http("api-1", "api", "10.0.0.5"))
    await idle()
    feed = world.keeper.attach(ingress.key, Abilities())
    await idle()

    assert set(feed.names(CLUSTER)) == {"default:web", "default:api"}


async def test_an_ingress_at_a_name_listens_where_the_name_is(nursery, autojump_clock):
    world = World([b.mesh(), http("web-1", "web")], {"in.example": "10.0.0.77"})
    spec = ZoneIngress.model_validate({"networking": {"address": "in.example", "port": 10001}})
    ingress = Resource(ResourceKey("ZoneIngress", "", "in"), spec)
    await world.store_zone_proxies(ingress)
    await nursery.start(world.keeper.run)
    feed = world.keeper.attach(ingress.key, Abilities())
    await trio.sleep(1)
    assert list(feed.names(LISTENER)) == ["inbound:10.0.0.77:10001"]

    world.names["in.example"] = "10.0.0.78"
    await trio.sleep(LOOK_UP_AGAIN_S + 1)

    assert list(feed.names(LISTENER)) == ["inbound:10.0.0.78:10001"]


async def test_a_name_that_is_in_no_view_any_more_is_not_looked_up(nursery, autojump_clock):
    world = World([b.mesh(), http("web-1", "web"), http("api-1", "api", "api.example")], {"api.example": "10.0.0.5"})
    ingress = b.ingress("in", "")
    await world.store_zone_proxies(ingress)
    await nursery.start(world.keeper.run)
    world.keeper.attach(ingress.key, Abilities())
    await trio.sleep(LOOK_UP_AGAIN_S * 2 + 1)
    assert set(world.looked_up) == {"api.example"}

    world.apply(key("api-1"))
    await trio.sleep(LOOK_UP_AGAIN_S * 3)
    count = len(world.looked_up)
    await trio.sleep(LOOK_UP_AGAIN_S * 5)
    assert len(world.looked_up) == count

    # It comes back while nobody can be asked: the address of before is better than none.
    world.names.clear()
    world.apply(http("api-1", "api", "api.example"))
    await trio.sleep(LOOK_UP_AGAIN_S)
    assert len(world.looked_up) > count
    assert world.keeper._hosts.known == {"api.example": "10.0.0.5"}


async def test_names_of_zone_proxies_are_looked_up_while_these_are_there(nursery, autojump_clock):
    world = World([b.mesh(), http("web-1", "web")], {"in.example": "10.0.0.77"})
    spec = ZoneIngress.model_validate({"networking": {"address": "in.example", "port": 10001}})
    ingress = Resource(ResourceKey("ZoneIngress", "", "in"), spec)
    await world.store_zone_proxies(ingress)
    await nursery.start(world.keeper.run)
    feed = world.keeper.attach(ingress.key, Abilities())
    await trio.sleep(LOOK_UP_AGAIN_S * 4)
    assert len(world.looked_up) >= 4

    world.keeper.detach(feed)
    await trio.sleep(LOOK_UP_AGAIN_S * 3)
    count = len(world.looked_up)
    await trio.sleep(LOOK_UP_AGAIN_S * 5)
    assert len(world.looked_up) == count


async def test_an_egress_lets_go_of_the_identities_of_meshes_that_are_gone(nursery, autojump_clock):
    world = World([b.mesh(zone_egress=True), b.mesh("other", zone_egress=True)])
    egress = b.egress("out")
    await world.store_zone_proxies(egress)
    other = b.external("es-2", "outside", "example.com:443", mesh="other")
    world.apply(b.external("es", "outside", "example.com:443"), other)
    await nursery.start(world.keeper.run)
    feed = world.keeper.attach(egress.key, Abilities())
    for mesh in ("default", "other"):
        await idle()
        world.cells[mesh, "zone-egress.out"].publish(certified(mesh, "zone-egress"))
    await idle()
    assert len(list(feed.names(SECRET))) == 4

    world.apply(other.key, ResourceKey("Mesh", "", "other"))
    await idle()

    assert world.released == [("other", "zone-egress.out")]
    assert set(feed.names(CLUSTER)) == {"default:outside"}
    assert len(list(feed.names(SECRET))) == 2


async def test_an_egress_that_is_deleted_and_stored_again(nursery, autojump_clock):
    world = World([b.mesh(zone_egress=True), b.mesh("other", zone_egress=True)])
    egress = b.egress("out")
    await world.store_zone_proxies(egress)
    other = b.external("es-2", "outside", "example.com:443", mesh="other")
    world.apply(b.external("es", "outside", "example.com:443"), other)
    await nursery.start(world.keeper.run)
    feed = world.keeper.attach(egress.key, Abilities())
    await idle()

    await world.store_zone_proxies(egress.key)
    await idle()
    world.apply(other.key)
    await world.store_zone_proxies(egress)
    await idle()
    world.cells["default", "zone-egress.out"].publish(certified("default", "zone-egress", "2"))
    await idle()

    assert list(feed.names(LISTENER)) == ["inbound:10.0.0.9:10002"]


def permission(*actions):
    entries = [
        {
            "targetRef": {"kind": kind, **({"tags": {"team": "x"}} if kind == "MeshSubset" else {})},
            "default": {"action": action},
        }
        for kind, action in actions
    ]
    spec = read_strict(MeshTrafficPermission, {"targetRef": {"kind": "Mesh"}, "from": entries})
    return Resource(ResourceKey("MeshTrafficPermission", "default", "mtp"), spec)


async def test_a_feed_tells_of_permissions_that_protect_nothing(nursery, autojump_clock):
    world = World([b.mesh(mtls=False), http("web-1", "web"), permission(("Mesh", "Allow"))])
    await nursery.start(world.keeper.run)
    feed = world.keeper.attach(key("web-1"), REDIRECTED)
    await idle()
    assert not feed.lacking

    for entries in ([("Mesh", "Allow"), ("MeshSubset", "Deny")], [("MeshSubset", "Allow")]):
        world.apply(permission(*entries))
        await idle()
        assert list(lacking(feed)) == ["MeshTrafficPermission mtp"]
        assert "the mesh has no mTLS" in lacking(feed)["MeshTrafficPermission mtp"]
    world.apply(b.mesh())
    await idle()

    assert not feed.lacking


async def test_a_feed_tells_of_policies_of_kinds_without_effect(nursery, autojump_clock):
    def spec_of(kind, data):
        return read_strict(registry()[kind].spec, data)

    log = {"targetRef": {"kind": "MeshService", "name": "web"}, "to": [{"targetRef": {"kind": "Mesh"}, "default": {}}]}
    old = {"sources": [{"match": {"kuma.io/service": "*"}}], "destinations": [{"match": {"kuma.io/service": "x"}}]}
    idles = [
        Resource(ResourceKey("MeshAccessLog", "default", "log"), spec_of("MeshAccessLog", log)),
        Resource(ResourceKey("TrafficLog", "default", "old"), spec_of("TrafficLog", old)),
    ]
    world = World([b.mesh(), http("web-1", "web"), http("api-1", "api", "10.0.0.2"), *idles])
    await nursery.start(world.keeper.run)
    feeds = [world.keeper.attach(key(name), REDIRECTED) for name in ("web-1", "api-1")]
    await idle()

    assert [sorted(lacking(feed)) for feed in feeds] == [["MeshAccessLog log", "TrafficLog old"], ["TrafficLog old"]]
    assert set(lacking(feeds[0]).values()) == {NO_EFFECT}
    world.apply(*(policy.key for policy in idles))
    await idle()

    assert not any(feed.lacking for feed in feeds)


def permissive():
    mesh = b.mesh()
    backends = tuple(x.model_copy(update={"mode": Mode.PERMISSIVE}) for x in mesh.spec.mtls.backends)
    return replace(
        mesh, spec=mesh.spec.model_copy(update={"mtls": mesh.spec.mtls.model_copy(update={"backends": backends})})
    )


def speaks_tls(feed, service):
    return b"envoy.transport_sockets.tls" in feed.get(CLUSTER, service).body


async def test_tls_begins_when_all_instances_of_a_service_have_certificates(nursery, autojump_clock):
    start = [
        b.mesh(mtls=False),
        http("web-1", "web"),
        http("api-1", "api", "10.0.0.2"),
        http("api-2", "api", "10.0.0.3"),
    ]
    remote = b.ingress("zone-b-in", "zone-b", [b.available("api", 2)], address="10.1.0.1")
    world = World([*start, remote], issues=False)
    await nursery.start(world.keeper.run)
    web, api, _ = (world.keeper.attach(key(name), REDIRECTED) for name in ("web-1", "api-1", "api-2"))
    await idle()

    world.apply(permissive())
    await idle()
    assert not speaks_tls(web, "api")
    assert b"10.1.0.1" not in web.get(ENDPOINTS, "api").body  # other zones take nothing but TLS
    assert b"default" in api.get(LISTENER, "inbound:10.0.0.2:8080").body
    world.cells["default", "api-1"].publish(certified("default", "api-1"))
    await trio.sleep(LEAD_S + 1)
    assert not speaks_tls(web, "api")
    world.cells["default", "api-2"].publish(certified("default", "api-2"))
    await trio.sleep(LEAD_S - 1)
    assert not speaks_tls(web, "api")
    await trio.sleep(2)

    assert speaks_tls(web, "api")
    assert b"10.1.0.1" in web.get(ENDPOINTS, "api").body
    assert not speaks_tls(api, "web")
    fresh = World(world.resources.values(), issues=False)  # who starts now does not go back to plaintext
    await nursery.start(fresh.keeper.run)
    feed = fresh.keeper.attach(key("web-1"), REDIRECTED)
    await trio.sleep(CERTIFIED_S + 1)
    assert speaks_tls(feed, "api")


async def test_inbounds_take_tls_a_little_longer_than_it_is_used(nursery, autojump_clock):
    world = World([permissive(), http("web-1", "web"), http("api-1", "api", "10.0.0.2")])
    await nursery.start(world.keeper.run)
    web, api = (world.keeper.attach(key(name), REDIRECTED) for name in ("web-1", "api-1"))
    await idle()
    inbound, secrets = api.get(LISTENER, "inbound:10.0.0.2:8080"), set(api.names(SECRET))
    assert speaks_tls(web, "api")

    world.apply(b.mesh(mtls=False))
    for name in ("web-1", "api-1"):
        world.cells["default", name].publish(no_credentials("default"))
    await idle()
    assert not speaks_tls(web, "api")
    assert api.get(LISTENER, "inbound:10.0.0.2:8080") == inbound
    assert set(api.names(SECRET)) == secrets
    await trio.sleep(LEAD_S)

    assert b"envoy.transport_sockets.tls" not in api.get(LISTENER, "inbound:10.0.0.2:8080").body
    assert not list(api.names(SECRET))


SERVICES = st.sampled_from(["web", "api", "db"])
PROTOCOLS = st.sampled_from(["tcp", "http", "grpc"])


@st.composite
def changes(draw):
    kind = draw(st.sampled_from(["dataplane", "gone", "ingress", "egress", "mesh", "external", "policy", "no-policy"]))
    match kind:
        case "dataplane":
            number = draw(st.integers(1, 4))
            tags = {"kuma.io/protocol": draw(PROTOCOLS), "version": draw(st.sampled_from(["v1", "v2"]))}
            inbound = b.inbound(draw(SERVICES), tags=tags)
            outbound = [{"port": 10001, "tags": {"kuma.io/service": draw(SERVICES), "version": "v1"}}]
            return b.dataplane(f"dp-{number}", inbound, address=f"10.0.0.{number}", outbound=outbound)
        case "gone":
            return key(f"dp-{draw(st.integers(1, 4))}")
        case "ingress":
            offers = [b.available(s, draw(st.integers(1, 3)), version="v1") for s in draw(st.sets(SERVICES))]
            return b.ingress("zone-b-in", "zone-b", offers, address="10.1.0.1")
        case "egress":
            return draw(st.sampled_from([b.egress("out"), ResourceKey("ZoneEgress", "", "out")]))
        case "mesh":
            flags = draw(st.fixed_dictionaries({f: st.booleans() for f in ("mtls", "zone_egress", "locality")}))
            return b.mesh(**flags)
        case "external":
            return b.external("es", draw(SERVICES), draw(st.sampled_from(["10.5.0.1:80", "example.com:80"])))
        case "policy":
            return mesh_timeout(draw(SERVICES), draw(st.sampled_from(["1s", "2s"])))
        case _:
            return ResourceKey("MeshTimeout", "default", "mt")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.lists(changes(), min_size=1, max_size=3), min_size=1, max_size=8))
def test_step_by_step_is_as_from_scratch(batches):
    async def run():
        start = [b.mesh(), *(http(f"dp-{n}", "web", f"10.0.0.{n}") for n in (1, 2))]
        proxies = [(key("dp-1"), Abilities()), (key("dp-1"), REDIRECTED), (key("dp-2"), RESOLVING)]
        proxies.append((key("dp-2"), replace(RESOLVING, embedded_dns=True, workdir="/tmp")))
        zone_proxies = [b.ingress("in", ""), b.egress("out-own", address="10.0.0.8")]
        world = World(start)
        await world.store_zone_proxies(*zone_proxies)
        proxies += [(p.key, Abilities()) for p in zone_proxies]
        async with trio.open_nursery() as nursery:
            await nursery.start(world.keeper.run)
            feeds = [world.keeper.attach(*proxy) for proxy in proxies]
            seen = [{} for _ in feeds]
            for batch in batches:
                world.apply(*batch)
                await idle()
                for feed, have in zip(feeds, seen, strict=True):
                    follow(feed, have)
            await trio.sleep(2 * RETIRE_S + 1)
            for feed, have in zip(feeds, seen, strict=True):
                follow(feed, have)
                assert have == content(feed)  # whoever follows what changed has what there is
            fresh = World(world.resources.values())
            await fresh.store_zone_proxies(*zone_proxies)
            fresh.book = world.book
            fresh.apply()
            await nursery.start(fresh.keeper.run)
            others = [fresh.keeper.attach(*proxy) for proxy in proxies]
            await idle()
            for proxy, feed, other in zip(proxies, feeds, others, strict=True):
                if other.ready:
                    assert content(feed) == content(other), proxy
            nursery.cancel_scope.cancel()

    trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))


def follow(feed, have):
    for type_url, names in feed.take().items():
        for name in names:
            entry = feed.get(type_url, name)
            place = (type_url.rpartition(".")[2], name)
            have.pop(place, None)
            if entry is not None:
                have[place] = entry.version


async def test_a_new_ca_of_the_admin_api_reaches_the_listeners_of_all_proxies(nursery, autojump_clock):
    ingress = b.ingress("in-1", "zone-a")
    world = World([b.mesh(), http("web-1", "web")])
    await world.store_zone_proxies(ingress)
    world.admin_ca = read_ca(new_ca(NOW))
    await nursery.start(world.keeper.run)
    abilities = Abilities(admin_socket="/w/admin.sock", admin_port=9901)
    feeds = [world.keeper.attach(proxy, abilities) for proxy in (key("web-1"), ingress.key)]
    await idle()
    for feed, proxy in zip(feeds, (key("web-1"), ingress.key), strict=True):
        assert server_tls(world.admin_ca, proxy).key_pem in feed.get(LISTENER, "kuma:envoy:admin").body
        feed.take()

    before, world.admin_ca = world.admin_ca, None
    world.material.publish(1)
    await idle()
    assert [dict(feed.take()) for feed in feeds] == [{}, {}]

    world.admin_ca = read_ca(new_ca(NOW))
    assert world.admin_ca != before
    world.material.publish(2)
    await idle()

    assert [dict(feed.take()) for feed in feeds] == [{LISTENER: {"kuma:envoy:admin"}}] * 2
    for feed, proxy in zip(feeds, (key("web-1"), ingress.key), strict=True):
        assert server_tls(world.admin_ca, proxy).key_pem in feed.get(LISTENER, "kuma:envoy:admin").body
