"""The proxies that this process runs itself: from the configuration to what carries each."""

import os
from collections.abc import Mapping
from functools import partial
from typing import Any

from meshd.app.carriers import Carrier, Wanted, builtin, selections
from meshd.app.carriers import envoy as envoy_carrier
from meshd.app.envoys import bootstrap_params, system_ca
from meshd.app.envoys import options as envoy_options
from meshd.app.role import Role
from meshd.app.service import Ignored, ProxyHost
from meshd.app.xds import Door, Parts
from meshd.config import LoadedConfig
from meshd.config.tree import Engine as EngineKind
from meshd.config.tree import ProxyEntry
from meshd.envoy.keeper import Fleet
from meshd.envoy.metrics import Metrics as EnvoyMetrics
from meshd.envoy.service import Surroundings
from meshd.l4.metrics import Metrics as EngineMetrics
from meshd.l4.render import Settings as EngineSettings
from meshd.l4.service import Engine
from meshd.l4.session import Limits as EngineLimits
from meshd.model.resource import Resource
from meshd.policies.ignored import ignored, without_engine
from meshd.runtime.latest import Latest
from meshd.xds.bootstrap import bootstrap_document


def proxy_host(role: Role, loaded: LoadedConfig, parts: Parts, door: Door) -> ProxyHost:
    """What carries this role's proxies: built-in engines, and Envoys that find their control plane at ``door``."""
    metrics = EngineMetrics(role.metrics)
    limits = EngineLimits(drain_s=role.config.general.drain_time.total_seconds())

    dns = role.config.dns_server
    # A wildcard socket would take the port from the other zones of this host, in 127/8 it is never needed; and from
    # the inbounds of Dataplanes that are still to come.
    own_sockets = dns.is_on_loopback or bool(role.config.selections)

    def engine_for(cell: Latest[Resource], entry: ProxyEntry) -> Engine:
        settings = EngineSettings(owns_vips=entry.vips, own_sockets=own_sockets, read_source=role.read_source)
        return Engine(
            cell,
            parts.views,
            parts.identities.credentials,
            role.permit_for,
            metrics,
            role.rng,
            settings,
            limits,
            resolver=parts.host_names,
            material=parts.material,
        )

    fleet = Fleet(
        role.config.state_dir,
        partial(bootstrap_of, role, door),
        door.credentials,
        role.keeps_envoy,
        role.rng,
        EnvoyMetrics(role.metrics),
        os.environ,
    )

    def carrier_for(cell: Latest[Resource], entry: ProxyEntry) -> Carrier:
        if entry.engine is EngineKind.BUILTIN:
            return builtin(engine_for(cell, entry))
        took_over = door.took_over if entry.vips else None
        process = fleet.process(cell.value.key, envoy_options(entry, limits.drain_s, os.environ), took_over)
        return envoy_carrier(process, door.bound_vips, parts.views)

    async def clean() -> None:
        await fleet.sweep(limits.drain_s)

    door.vip_owner = next((p.resource.key for p in loaded.proxies if p.vips), None)
    wanted = Wanted({p.resource.key: p.entry for p in loaded.proxies}, selections(role.config))
    unheard = Ignored(without_engine(role.policies), partial(ignored, role.policies, role.store.list))
    return ProxyHost(role.store, wanted, carrier_for, parts.identities.release, clean, role.rng, role.metrics, unheard)


async def bootstrap_of(role: Role, door: Door, about: Surroundings) -> Mapping[str, Any]:
    """The document with which an Envoy of this role starts, as soon as the dp-server is open."""
    seen, here = door.here.version, door.here.value
    while here is None:
        seen, here = await door.here.newer_than(seen)
    has_hds, owns_vips = role.config.dp_server.hds.enabled, about.proxy == door.vip_owner
    proxy = role.store.get(about.proxy)
    return bootstrap_document(
        bootstrap_params(about, here, proxy, owns_vips=owns_vips, has_hds=has_hds, system_ca=system_ca())
    )
