"""A zone as tiers of services."""

from dataclasses import replace
from functools import partial
from pathlib import Path

from meshd.app.inspection import Inspector
from meshd.app.proxies import proxy_host
from meshd.app.role import Role, Tiers, utc_now
from meshd.app.service import SecretWatch
from meshd.app.status import zone_status, zone_sync
from meshd.app.xds import Door, Parts, dp_server_of, uris_of
from meshd.ca.envoy_admin import stored_ca
from meshd.ca.identity import Credentials
from meshd.ca.service import IdentityService
from meshd.config import Config, LoadedConfig
from meshd.dns.lookup import RealAddresses
from meshd.dns.service import Resolver
from meshd.dns.settings import DnsSettings, QueryLog
from meshd.dns.settings import settings as dns_settings
from meshd.insight.service import ProxyInsights
from meshd.kds.admin.client import Inspect
from meshd.kds.client import ZoneKds, client_context, connector
from meshd.l4.client import Resolver as HostNames
from meshd.l4.keeper import AddressFile
from meshd.model.resource import ResourceKey
from meshd.runtime.aside import Few
from meshd.runtime.latest import Latest
from meshd.runtime.supervisor import Service
from meshd.topology.keeper import Keeper, VipSettings

MAX_ASKED = 4
"""Envoys that are asked at once: an answer may be large, and anybody who may read may ask."""
MAX_RENDERED = 1
"""Configurations that are rendered at once for people to read."""
ADDRESSES = "addresses.json"
"""What names of endpoints stood for last, in the state directory."""


def zone_tiers(role: Role, loaded: LoadedConfig) -> Tiers:
    """A zone: views and identities, the proxies that run here, those that connect, the doors, the way to the global."""
    config, dns = role.config, role.config.dns_server
    keeper = Keeper(
        role.store,
        role.registry,
        config.zone_name,
        VipSettings(dns.domain, dns.cidr, dns.service_vip_port),
        utc_now,
        role.metrics,
    )
    identities = IdentityService(
        role.store,
        state_dir=config.state_dir / "identities",
        now=utc_now,
        rng=role.rng,
        registry=role.metrics,
    )
    secrets_watch = SecretWatch(role.store)
    admin_ca = partial(stored_ca, role.store.get)
    host_names = host_names_of(config)
    parts = Parts(keeper.views, identities, secrets_watch.changes, admin_ca, host_names)
    door = Door()
    host = proxy_host(role, loaded, parts, door)
    diagnostics = role.diagnostics(lambda: "" if host.ready() else "proxies")
    admin_port = config.bootstrap_server.params.admin_port
    inspector = Inspector(role.store.get, door.admin_of, admin_ca, host_names.addresses, admin_port)
    asked, rendered = Few(MAX_ASKED), Few(MAX_RENDERED)
    kds = zone_kds(role, lambda question: asked.run(inspector.ask, question)) if config.is_federated else None
    resolver: Resolver | None = None
    if dns.listen:
        settings = resolver_settings(config, dns.listen)
        # Where this process owns the VIPs, a name comes after its listener: the first to ask is not refused.
        views = keeper.views if host.served_views is None else host.served_views
        resolver = Resolver(settings, views, dns.mesh, host.bound_vips, role.metrics)
    api = role.api(
        lambda: zone_status(kds),
        lambda zone: zone_sync(kds, config.zone_name, zone),
        lambda _, question: asked.run(inspector.ask, question),
        lambda proxy, shadow: rendered.run(door.config_of, proxy, shadow),
        resolver.explain if resolver is not None else None,
        resolver.status if resolver is not None else None,
    )
    doors: list[Service] = [api, *([resolver] if resolver is not None else [])]

    def credentials_of(key: ResourceKey) -> Latest[Credentials] | None:
        dataplane = role.store.get(key)
        uris = uris_of(dataplane) if dataplane is not None else ()
        return identities.credentials(key.mesh, key.name, uris) if uris else None

    insights = ProxyInsights(role.store, host.reports, credentials_of, role.instance_id, utc_now, role.rng)
    connected = dp_server_of(role, parts, insights, door) if config.dp_server.enabled else []
    return (
        [diagnostics],
        [role.ca_keeper(), identities],
        [keeper, *([] if config.is_federated else [role.insight_keeper()])],
        [insights, secrets_watch],
        # Before the dp-server: an Envoy that an earlier run left comes back at once, and must be known by then.
        [host],
        [*connected, *doors],
        [kds] if kds is not None else [],
    )


def host_names_of(config: Config) -> HostNames:
    """Finds the addresses of names for this role's proxies."""
    dns = config.dns_server
    settings = resolver_settings(config, dns.listen or "127.0.0.1:0")
    return HostNames(
        dns.cidr, RealAddresses(settings) if settings.recursive else None, AddressFile(config.state_dir / ADDRESSES)
    )


def resolver_settings(config: Config, listen: str) -> DnsSettings:
    """What the configuration says of names."""
    dns = config.dns_server
    upstreams = [str(u) for u in dns.upstreams]
    return replace(
        dns_settings(dns.domain, listen, upstreams, resolv_conf=dns.resolv_conf, vips=dns.cidr),
        allow=dns.allow,
        rate_limit=dns.rate_limit,
        workers=dns.workers,
        max_outstanding=dns.max_outstanding,
        cache_entries=dns.cache.max_entries,
        cache_bytes=dns.cache.max_bytes,
        max_ttl_s=int(dns.cache.max_ttl.total_seconds()),
        max_negative_ttl_s=int(dns.cache.max_negative_ttl.total_seconds()),
        max_stale_s=dns.cache.max_stale.total_seconds(),
        prefetch=dns.cache.prefetch,
        max_tcp_connections=dns.tcp.max_connections,
        tcp_idle_s=dns.tcp.idle_timeout.total_seconds(),
        query_log=QueryLog(dns.query_log.file, dns.query_log.one_in) if dns.query_log.enabled else None,
        top_names=dns.top_names,
    )


def zone_kds(role: Role, inspect: Inspect) -> ZoneKds:
    """The zone's way to its global, which may ``inspect`` the Envoys of the zone."""
    zone = role.config.multizone.zone
    tls = None
    if zone.global_address.startswith("grpcs://"):
        ca_file = str(zone.kds.root_ca_file) if zone.kds.root_ca_file else None
        tls = client_context(ca_file, skip_verify=zone.kds.tls_skip_verify)
    token_file = zone.kds.token_file
    connect = connector(zone.global_address, tls, has_token=token_file is not None, metrics=role.rpc_metrics)
    shown = role.config.model_dump_json(by_alias=True)  # secrets are in files, of which it holds the paths
    if token_file is None:
        return ZoneKds(role.control_plane(), zone.name, connect, role.rng, inspect=inspect, config=shown)
    return ZoneKds(
        role.control_plane(),
        zone.name,
        connect,
        role.rng,
        token=lambda: read_token(token_file),
        inspect=inspect,
        config=shown,
    )


def read_token(path: Path) -> str:
    """The zone token. Read at every connection, so that it can be replaced, and may come later than the process.

    Raises:
        OSError: it is not there or no text; names the setting.
    """
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is no token, which is ASCII text"
        raise OSError(f"multizone.zone.kds.tokenFile: cannot read the zone token {path}: {reason}") from error
