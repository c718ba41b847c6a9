"""What serves the proxies of a zone that connect: from the configuration to services. The door is ``DpListener``."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from meshd.app.role import Role, utc_now
from meshd.app.server import DpListener
from meshd.ca.identity import dataplane_uris
from meshd.ca.internal import InternalCredentials
from meshd.ca.service import IdentityService
from meshd.ca.x509 import KeyPair
from meshd.config import Config
from meshd.config.dp_server import DpAuthn, ZoneAuthn
from meshd.insight.service import ProxyInsights
from meshd.l4.client import Resolver as HostNames
from meshd.model.errors import UnavailableError
from meshd.model.resource import Resource, ResourceKey
from meshd.rest.api import Configuration
from meshd.runtime.aside import Aside
from meshd.runtime.latest import Latest
from meshd.runtime.supervisor import Service
from meshd.topology.view import BoundVips, MeshView
from meshd.xds.auth import Authn
from meshd.xds.bootstrap import ControlPlaneAt
from meshd.xds.decode import shown
from meshd.xds.encode import SchemaError
from meshd.xds.hds import HealthSettings
from meshd.xds.keeper import Outside, XdsKeeper
from meshd.xds.resources import LISTENER
from meshd.xds.server import ControlPlane, XdsServer
from meshd.xds.service import AdminAt, Settings

_OUTBOUND = re.compile(r"outbound:([0-9.]{7,15}):([0-9]{1,5})")


def settings(config: Config, internal: InternalCredentials) -> Settings:
    """How proxies are admitted, probed and forgotten."""
    server = config.dp_server
    defaults = server.hds.check_defaults
    health = HealthSettings(
        report=server.hds.interval,
        interval=defaults.interval,
        no_traffic_interval=defaults.no_traffic_interval,
        timeout=defaults.timeout,
        healthy_threshold=defaults.healthy_threshold,
        unhealthy_threshold=defaults.unhealthy_threshold,
    )
    authn = Authn(
        config.zone_name,
        dataplane_tokens=server.authn.dp_proxy.type is not DpAuthn.NONE,
        zone_tokens=server.authn.zone_proxy.type is not ZoneAuthn.NONE,
        internal=internal,
    )
    return Settings(
        authn,
        deregistration=config.xds_server.dataplane_deregistration_delay,
        dataplane_cleanup_age=config.runtime.universal.dataplane_cleanup_age,
        zone_cleanup_age=config.runtime.universal.zone_resource_cleanup_age,
        health=health if config.has_hds else None,
    )


@dataclass(frozen=True, slots=True)
class Parts:
    """What both kinds of proxies are made of: views, identities, what other certificates of theirs depend on."""

    views: Latest[Mapping[str, MeshView]]
    identities: IdentityService
    material: Latest[int]
    admin_ca: Callable[[], KeyPair | None]
    host_names: HostNames


@dataclass(eq=False, slots=True)
class Door:
    """Between the server of proxies and the Envoys that this process starts.

    ``here`` is where the server is, once it is open; it takes ``credentials``. ``bound_vips`` is where the Envoy that
    owns the VIPs of this host takes connections: at the listeners that it said it has, or, if it is one that an earlier
    run left, has had until its stream is back. ``server`` is who serves the proxies that connect, ``renderer`` who
    makes what they are sent.
    """

    here: Latest[ControlPlaneAt | None] = field(default_factory=lambda: Latest(None))
    credentials: InternalCredentials = field(default_factory=InternalCredentials)
    vip_owner: ResourceKey | None = None
    server: XdsServer | None = None
    renderer: XdsKeeper | None = None
    aside: Aside = field(default_factory=Aside)
    bound_vips: Latest[BoundVips] = field(default_factory=lambda: Latest(BoundVips()))

    def admin_of(self, proxy: ResourceKey) -> AdminAt | None:
        """Where the Envoy of a connected proxy has its admin API."""
        return self.server.admin_of(proxy) if self.server is not None else None

    async def config_of(self, proxy: ResourceKey, shadow: bool) -> Configuration | None:
        """What a connected Dataplane is to have, ``shadow``: if shadow policies were real.

        Raises:
            UnavailableError: it cannot be rendered.
        """
        try:
            found = await self.renderer.preview(proxy, shadow=shadow) if self.renderer is not None else None
        except SchemaError as error:
            raise UnavailableError(f"{proxy}: its configuration cannot be rendered: {error}") from None
        return await self.aside.run(shown, found) if found is not None else None

    def answered(self, server: XdsServer, proxy: ResourceKey, type_url: str) -> None:
        """An ACK or NACK has come."""
        if proxy == self.vip_owner and type_url == LISTENER:
            bound = bound_by(server.accepted(proxy, LISTENER))
            if bound != self.bound_vips.value:
                self.bound_vips.publish(bound)

    def took_over(self, listeners: frozenset[str]) -> None:
        """The owner of the VIPs is an Envoy that an earlier run left, with these listeners."""
        if self.bound_vips.value == BoundVips():  # else its stream was faster, and knows better
            self.bound_vips.publish(bound_by(listeners))


def dp_server_of(role: Role, parts: Parts, insights: ProxyInsights, door: Door) -> list[Service]:
    """What serves the proxies that connect, and its socket."""
    config = role.config

    identities = parts.identities
    outside = Outside(
        identities.credentials,
        identities.release,
        role.read_source,
        parts.material,
        parts.admin_ca,
        parts.host_names.addresses,
    )
    renderer = XdsKeeper(config.zone_name, role.store, parts.views, role.shapers, outside, role.metrics)
    here = ControlPlane(role.store, role.registry, utc_now, role.rng, role.metrics, role.instance_id)
    server = XdsServer(
        here,
        renderer,
        insights,
        settings(config, door.credentials),
        lambda proxy, type_url: door.answered(server, proxy, type_url),
    )
    door.server, door.renderer = server, renderer
    socket = DpListener(
        config, server.handlers, role.store, role.registry, role.rpc_metrics, role.hostname, utc_now, door.here
    )
    return [renderer, server, socket]


def bound_by(listeners: Iterable[str]) -> BoundVips:
    """The addresses and ports of the outbound listeners among these names, which may be anything: a proxy says them."""
    found = (_OUTBOUND.fullmatch(name) for name in listeners)
    return BoundVips(single=frozenset((m[1], int(m[2])) for m in found if m and is_place(m[1], m[2])))


def is_place(address: str, port: str) -> bool:
    """Whether these are an IPv4 address and a port, as they are written."""
    try:
        return str(IPv4Address(address)) == address and str(int(port)) == port and 0 < int(port) < 65536
    except ValueError:
        return False


def uris_of(dataplane: Resource) -> tuple[str, ...]:
    """The identity URIs of a Dataplane, empty if it has no service."""
    try:
        return dataplane_uris(dataplane)
    except ValueError:
        return ()
