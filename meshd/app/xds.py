"""What serves the proxies of a zone that connect: from the configuration to services. The door is ``DpListener``."""

import re
from collections.abc import Awaitable, Callable, Mapping
from ipaddress import IPv4Address

from meshd.ca.service import IdentityService
from meshd.config import Config
from meshd.config.dp_server import DpAuthn, ZoneAuthn
from meshd.kinds.external_service import DataSource
from meshd.model.resource import ResourceKey
from meshd.runtime.latest import Latest
from meshd.topology.view import BoundVips
from meshd.xds.auth import Authn
from meshd.xds.hds import HealthSettings
from meshd.xds.keeper import Outside
from meshd.xds.resources import LISTENER
from meshd.xds.server import XdsServer
from meshd.xds.service import Settings

_OUTBOUND = re.compile(r"outbound:(\d+\.\d+\.\d+\.\d+):(\d+)\Z")


def settings(config: Config) -> Settings:
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
    )
    return Settings(
        authn,
        deregistration=config.xds_server.dataplane_deregistration_delay,
        health=health if server.hds.enabled else None,
    )


def outside(
    identities: IdentityService,
    read_source: Callable[[str, DataSource], bytes],
    material: Latest[int],
    addresses: Callable[[str], Awaitable[tuple[str, ...]]],
) -> Outside:
    """What the renderer needs of the rest of the process."""
    return Outside(identities.credentials, identities.release, read_source, material, addresses)


class EnvoyVips:
    """Where an Envoy that owns the VIPs of this host takes connections: at the listeners that it said it has."""

    def __init__(self, owner: ResourceKey | None) -> None:
        self._owner = owner
        self.bound: Latest[BoundVips] = Latest(BoundVips())

    def answered(self, server: XdsServer, proxy: ResourceKey, type_url: str) -> None:
        """An ACK or NACK has come."""
        if proxy == self._owner and type_url == LISTENER:
            bound = bound_by(server.accepted(proxy, LISTENER))
            if bound != self.bound.value:
                self.bound.publish(bound)


def bound_by(listeners: Mapping[str, str]) -> BoundVips:
    """The addresses and ports of the outbound listeners among these names."""
    found = (_OUTBOUND.match(name) for name in listeners)
    return BoundVips(single=frozenset((str(IPv4Address(m[1])), int(m[2])) for m in found if m))
