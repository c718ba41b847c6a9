"""What an Envoy gets under policies: one outbound with its clusters, or the inbounds of a Dataplane."""

from pathlib import Path
from typing import Any

from meshd.model.resource import Resource
from meshd.xds.abilities import Abilities
from meshd.xds.outbound import Settings, Wanted, outbound, outbound_cluster
from meshd.xds.proxies import matched_outbound, own_resources
from meshd.xds.resources import CLUSTER, LISTENER, XdsResource
from tests.policies.support import POLICIES
from tests.topology import builders as b
from tests.topology.views import build_views
from tests.xds.support import by_name

GOLDENS = Path(__file__).parent / "goldens"
SHAPERS = tuple((p.type.kind, p.shaper) for p in POLICIES if p.shaper is not None)
CLIENT = b.dataplane("client-1", b.inbound("client", 80, name="main"), address="10.0.0.7", labels={"app": "client"})
WANTED = Wanted("127.0.0.1", 10001, "backend")


def _no_source(mesh: str, source: Any) -> bytes:
    raise ValueError(f"{mesh} has no {source}")


SETTINGS = Settings(binds=True, ipv6=False, read_source=_no_source)


def server(
    service: str = "backend", protocol: str = "http", name: str = "", address: str = "10.0.0.1", **tags: str
) -> Resource:
    return b.dataplane(
        name or f"{service}-1",
        b.inbound(service, tags={"kuma.io/protocol": protocol, **tags}, name="main"),
        address=address,
        labels={"app": service},
    )


def outbounds(
    *resources: Resource, client: Resource = CLIENT, wanted: Wanted = WANTED, mtls: bool = True
) -> list[XdsResource]:
    """Clusters and listener of one outbound of ``client``, among these Dataplanes and policies."""
    view = build_views([b.mesh(mtls=mtls), client, *resources])["default"]
    matched = matched_outbound(view, client, SHAPERS)
    listener, needed = outbound(view, wanted, matched, SETTINGS)
    return [*(r for key in sorted(needed) for r in outbound_cluster(view, key, matched, SETTINGS)), listener]


def inbounds(*resources: Resource, dataplane: Resource, mtls: bool = True) -> list[XdsResource]:
    """Clusters and listeners of the inbounds of a Dataplane, under these policies."""
    view = build_views([b.mesh(mtls=mtls), dataplane, *resources])["default"]
    return list(own_resources(view, dataplane, Abilities(ipv6=False), SHAPERS, {}, None))


def clusters(resources: list[XdsResource]) -> dict[str, dict[str, Any]]:
    return by_name(resources, CLUSTER)


def chain(resources: list[XdsResource]) -> dict[str, Any]:
    """The last filter chain of the only listener."""
    [listener] = by_name(resources, LISTENER).values()
    found: dict[str, Any] = listener["filterChains"][-1]
    return found


def proxy(resources: list[XdsResource]) -> dict[str, Any]:
    """The connection manager or TCP proxy of the only listener."""
    found: dict[str, Any] = chain(resources)["filters"][-1]["typedConfig"]
    return found


def routes(resources: list[XdsResource]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = proxy(resources)["routeConfig"]["virtualHosts"][0]["routes"]
    return found


def common_http(cluster: dict[str, Any]) -> dict[str, Any]:
    [options] = cluster["typedExtensionProtocolOptions"].values()
    found: dict[str, Any] = options.get("commonHttpProtocolOptions", {})
    return found
