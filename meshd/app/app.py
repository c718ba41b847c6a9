"""One role as tiers of services, several roles side by side, and the signals that end them."""

import logging
import os
import random
import secrets
import signal
import socket
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import trio
from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector, disable_created_metrics

from meshd import __version__
from meshd.app.bootstrap import missing_defaults, own_proxies
from meshd.app.carriers import Carrier, Wanted, builtin, selections
from meshd.app.carriers import envoy as envoy_carrier
from meshd.app.envoys import Envoys, bootstrap_params, is_kept, system_ca
from meshd.app.envoys import options as envoy_options
from meshd.app.process import allow_many_files, make_directories, settle_memory
from meshd.app.server import DpListener, KdsListener
from meshd.app.service import ProxyHost, SecretWatch
from meshd.app.status import global_status, zone_status
from meshd.ca.identity import Credentials, dataplane_uris
from meshd.ca.internal import InternalCredentials
from meshd.ca.keeper import CaKeeper
from meshd.ca.service import IdentityService
from meshd.config import Config, ConfigErrors, LoadedConfig
from meshd.config.tree import Engine as EngineKind
from meshd.config.tree import ProxyEntry, StoreType
from meshd.dns.lookup import RealAddresses
from meshd.dns.service import Resolver
from meshd.dns.settings import settings as dns_settings
from meshd.envoy.binary import missing_envoys
from meshd.envoy.keeper import Fleet
from meshd.envoy.metrics import Metrics as EnvoyMetrics
from meshd.envoy.service import Surroundings
from meshd.insight.keeper import InsightKeeper
from meshd.insight.service import ProxyInsights
from meshd.kds.admission import AdmittedZone
from meshd.kds.client import ZoneKds, client_context, connector
from meshd.kds.keeper import ControlPlane
from meshd.kds.server import GlobalKds
from meshd.kinds.declare import KINDS
from meshd.kinds.external_service import DataSource
from meshd.kinds.secret import Secret
from meshd.l4.client import Resolver as HostNames
from meshd.l4.metrics import Metrics as EngineMetrics
from meshd.l4.render import Settings as EngineSettings
from meshd.l4.service import Engine
from meshd.l4.session import Limits as EngineLimits
from meshd.l4.table import PermitFor
from meshd.model.errors import MeshdError
from meshd.model.registry import Registry
from meshd.model.resource import Resource, ResourceKey
from meshd.policies import Policy, discover
from meshd.policies.initial import initial_policies
from meshd.rest.handlers import Api
from meshd.rest.server import Binding, HttpMetrics, HttpServer, api_server, diagnostics_server, tls_context
from meshd.rpc import GrpcServer, RpcMetrics
from meshd.runtime.latest import Latest
from meshd.runtime.notify import READY, STOPPING, notify
from meshd.runtime.supervisor import Service, leaves, supervise
from meshd.store.memory import MemoryStore
from meshd.store.sqlite import SqliteStore
from meshd.store.store import Store
from meshd.topology.keeper import Keeper, VipSettings
from meshd.xds.bootstrap import ControlPlaneAt, bootstrap_document

log = logging.getLogger(__name__)

Tiers = Sequence[Sequence[Service]]


def utc_now() -> datetime:
    """The clock of every service."""
    return datetime.now(UTC)


@dataclass(slots=True)
class Role:
    """What every service of one role shares. ``started`` turns true when the last tier is ready.

    ``stop`` is set when the process is to end, ``by_hand`` before it if that was asked for at a terminal.
    """

    config: Config
    store: Store
    registry: Registry
    policies: Sequence[Policy]
    stop: trio.Event
    by_hand: trio.Event
    metrics: CollectorRegistry = field(default_factory=CollectorRegistry)
    rng: random.Random = field(default_factory=random.SystemRandom)
    hostname: str = field(default_factory=socket.gethostname)
    started: bool = False
    instance_id: str = field(init=False)
    http_metrics: HttpMetrics = field(init=False)
    rpc_metrics: RpcMetrics = field(init=False)

    def __post_init__(self) -> None:
        self.instance_id = f"{self.hostname}-{secrets.token_hex(2)}"
        self.http_metrics = HttpMetrics(self.metrics)
        self.rpc_metrics = RpcMetrics(self.metrics)

    def keeps_envoy(self, adopted: bool) -> bool:
        """Whether an Envoy goes on when this process ends now."""
        stopped, by_hand = self.stop.is_set(), self.by_hand.is_set()
        on_stop = self.config.envoy.on_stop
        return is_kept(on_stop, stopped=stopped, by_hand=by_hand, started=self.started, adopted=adopted)

    def api(self, kds_status: Callable[[], Mapping[str, Any]]) -> HttpServer:
        """The REST API."""
        api = Api(
            self.store,
            self.registry,
            self.config,
            utc_now,
            self.instance_id,
            self.hostname,
            kds_status=kds_status,
            initial=self.initial,
        )
        return api_server(api, self.metrics, self.http_metrics)

    def initial(self, mesh: Resource) -> Sequence[Resource]:
        """The policies that a new Mesh begins with here."""
        return initial_policies(self.policies, mesh, self.config.zone_name)

    @property
    def permit_for(self) -> PermitFor:
        """Who may connect, says the one policy that decides it."""
        return next(p.permit_for for p in self.policies if p.permit_for is not None)

    def control_plane(self) -> ControlPlane:
        """What KDS needs of this role."""
        return ControlPlane(self.store, self.registry, utc_now, self.metrics, self.instance_id, __version__)

    def ca_keeper(self) -> CaKeeper:
        """The keeper of keys and certificate authorities."""
        return CaKeeper(
            self.store, federated=self.config.is_federated, now=utc_now, rng=self.rng, registry=self.metrics
        )

    def insight_keeper(self) -> InsightKeeper:
        """The keeper of MeshInsight and ServiceInsight."""
        dns = self.config.dns_server
        return InsightKeeper(self.store, self.registry, dns.domain, dns.service_vip_port, self.metrics, self.rng)

    def diagnostics(self, missing: Callable[[], str]) -> HttpServer:
        """Health, readiness and metrics; up before everything else."""

        def ready() -> str:
            return missing() if self.started else "starting"

        return diagnostics_server(self.config, self.metrics, ready, self.http_metrics)


def global_tiers(role: Role) -> Tiers:
    """A global: keys, insights, then the doors."""
    kds_settings = role.config.multizone.global_.kds
    files = role.config.kds_tls_files
    admitted = [AdmittedZone(z.name, z.cidr) for z in kds_settings.unauthenticated_zones]
    kds = GlobalKds(role.control_plane(), unauthenticated_zones=admitted)
    tls = None
    if files is not None:
        tls = tls_context(Binding(kds_settings.interface, kds_settings.grpc_port, "multizone.global.kds", files))
    server = GrpcServer(kds.handlers, tls, metrics=role.rpc_metrics, name="kds")
    diagnostics = role.diagnostics(str)
    return (
        [diagnostics],
        [role.ca_keeper()],
        [role.insight_keeper()],
        [role.api(lambda: global_status(kds))],
        [KdsListener(kds, server, kds_settings.interface, kds_settings.grpc_port)],
    )


def zone_tiers(role: Role, loaded: LoadedConfig) -> Tiers:
    """A zone: views and identities, the engines, the doors, and last the way to the global."""
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
    door = DpListener(config, {}, role.store, role.registry, role.rpc_metrics, role.hostname, utc_now)
    envoys = envoys_of(role, loaded, door.here)
    host = proxy_host(role, loaded, keeper, identities, secrets_watch.changes, envoys)
    diagnostics = role.diagnostics(lambda: "" if host.ready() else "proxies")
    kds = zone_kds(role) if config.is_federated else None
    doors: list[Service] = [role.api(lambda: zone_status(kds))]
    if dns.listen:
        settings = dns_settings(dns.domain, dns.listen, [str(u) for u in dns.upstreams])
        # Where this process owns the VIPs, a name comes after its listener: the first to ask is not refused.
        views = keeper.views if host.served_views is None else host.served_views
        doors.append(Resolver(settings, views, dns.mesh, host.bound_vips, role.metrics))

    if config.dp_server.enabled:
        doors.append(door)

    def credentials_of(key: ResourceKey) -> Latest[Credentials] | None:
        dataplane = role.store.get(key)
        uris = uris_of(dataplane) if dataplane is not None else ()
        return identities.credentials(key.mesh, key.name, uris) if uris else None

    insights = ProxyInsights(role.store, host.reports, credentials_of, role.instance_id, utc_now, role.rng)
    return (
        [diagnostics],
        [role.ca_keeper(), identities],
        [keeper, *([] if config.is_federated else [role.insight_keeper()])],
        [host, secrets_watch],
        [*doors, insights],
        [kds] if kds is not None else [],
    )


def envoys_of(role: Role, loaded: LoadedConfig, here: Latest[ControlPlaneAt | None]) -> Envoys:
    """What the Envoys that this role starts need: ``here`` is their dp-server, once it is open."""
    owner = next((p.resource.key for p in loaded.proxies if p.vips), None)
    has_hds = role.config.dp_server.hds.enabled
    authorities = system_ca()

    async def bootstrap(about: Surroundings) -> Mapping[str, Any]:
        seen, to = here.version, here.value
        while to is None:
            seen, to = await here.newer_than(seen)
        proxy, owns_vips = role.store.get(about.proxy), about.proxy == owner
        return bootstrap_document(
            bootstrap_params(about, to, proxy, owns_vips=owns_vips, has_hds=has_hds, system_ca=authorities)
        )

    return Envoys(bootstrap, InternalCredentials())


def uris_of(dataplane: Resource) -> tuple[str, ...]:
    """The identity URIs of a Dataplane, empty if it has no service."""
    try:
        return dataplane_uris(dataplane)
    except ValueError:
        return ()


def proxy_host(
    role: Role,
    loaded: LoadedConfig,
    keeper: Keeper,
    identities: IdentityService,
    material: Latest[int],
    envoys: Envoys,
) -> ProxyHost:
    """What carries this role's proxies; ``material`` changes with the Secrets that external services name."""
    metrics = EngineMetrics(role.metrics)
    limits = EngineLimits(drain_s=role.config.general.drain_time.total_seconds())

    def read_source(mesh: str, source: DataSource) -> bytes:
        return read_data_source(role.store, mesh, source)

    dns = role.config.dns_server
    upstreams = dns_settings(dns.domain, "127.0.0.1:0", [str(u) for u in dns.upstreams]).upstreams
    host_names = HostNames(dns.cidr, RealAddresses(upstreams) if upstreams else None)

    # A wildcard socket would take the port from the other zones of this host, in 127/8 it is never needed; and from
    # the inbounds of Dataplanes that are still to come.
    own_sockets = dns.is_on_loopback or bool(role.config.selections)

    def engine_for(cell: Latest[Resource], entry: ProxyEntry) -> Engine:
        settings = EngineSettings(owns_vips=entry.vips, own_sockets=own_sockets, read_source=read_source)
        return Engine(
            cell,
            keeper.views,
            identities.credentials,
            role.permit_for,
            metrics,
            role.rng,
            settings,
            limits,
            resolver=host_names,
            material=material,
        )

    fleet = Fleet(
        role.config.state_dir,
        envoys.bootstrap,
        envoys.credentials,
        role.keeps_envoy,
        role.rng,
        EnvoyMetrics(role.metrics),
        os.environ,
    )

    def carrier_for(cell: Latest[Resource], entry: ProxyEntry) -> Carrier:
        if entry.engine is EngineKind.BUILTIN:
            return builtin(engine_for(cell, entry))
        process = fleet.process(cell.value.key, envoy_options(entry, limits.drain_s, os.environ))
        return envoy_carrier(process, envoys.bound_vips, envoys.served_views)

    async def clean() -> None:
        await fleet.sweep(limits.drain_s)

    wanted = Wanted({p.resource.key: p.entry for p in loaded.proxies}, selections(role.config))
    return ProxyHost(role.store, wanted, carrier_for, identities.release, clean, role.rng, role.metrics)


def read_data_source(store: Store, mesh: str, source: DataSource) -> bytes:
    """The bytes that a data source of a mesh names: in itself, in a Secret of the mesh, or in a file of this host.

    Raises:
        ValueError: it is not there.
    """
    if source.secret:
        resource = store.get(ResourceKey("Secret", mesh, source.secret))
        if resource is None or not isinstance(resource.spec, Secret):
            raise ValueError(f"mesh '{mesh}' has no Secret '{source.secret}'")
        return resource.spec.data
    if source.file:
        try:
            return Path(source.file).read_bytes()
        except OSError as error:
            raise ValueError(f"cannot read {source.file}: {error.strerror}") from error
    if source.inline is not None:
        return source.inline
    return (source.inline_string or "").encode()


def zone_kds(role: Role) -> ZoneKds:
    """The zone's way to its global."""
    zone = role.config.multizone.zone
    tls = None
    if zone.global_address.startswith("grpcs://"):
        ca_file = str(zone.kds.root_ca_file) if zone.kds.root_ca_file else None
        tls = client_context(ca_file, skip_verify=zone.kds.tls_skip_verify)
    token_file = zone.kds.token_file
    connect = connector(zone.global_address, tls, has_token=token_file is not None, metrics=role.rpc_metrics)
    shown = role.config.model_dump_json(by_alias=True)  # secrets are in files, of which it holds the paths
    if token_file is None:
        return ZoneKds(role.control_plane(), zone.name, connect, role.rng, config=shown)
    return ZoneKds(
        role.control_plane(), zone.name, connect, role.rng, token=lambda: read_token(token_file), config=shown
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


@asynccontextmanager
async def open_store(config: Config, registry: Registry) -> AsyncIterator[Store]:
    """The store of a role."""
    if config.store.type is StoreType.MEMORY:
        yield MemoryStore(utc_now)
        return
    async with SqliteStore.open(config.sqlite_path, registry, utc_now) as store:
        yield store


async def run_role(loaded: LoadedConfig, stop: trio.Event, started: Callable[[], None], by_hand: trio.Event) -> None:
    """Run one role until ``stop``."""
    config = loaded.config
    policies = discover()
    registry = Registry((*KINDS, *(p.type for p in policies)))
    async with open_store(config, registry) as store:
        role = Role(config, store, registry, policies, stop, by_hand)
        ProcessCollector(registry=role.metrics)
        PlatformCollector(registry=role.metrics)
        zone = config.zone_name
        defaults = missing_defaults(
            store,
            registry,
            zone,
            federated=config.is_federated,
            create_mesh=not config.defaults.skip_mesh_creation,
            cluster_id=str(uuid.uuid4()),
            initial=role.initial,
        )
        await store.write([*defaults, *own_proxies(store, registry, zone, [p.resource for p in loaded.proxies])])
        tiers = global_tiers(role) if config.is_global else zone_tiers(role, loaded)

        def ready() -> None:
            role.started = True
            log.info("%s: ready, version=%s instance=%s", config.role, __version__, role.instance_id)
            started()

        await supervise(tiers, stop, ready)
        log.info("%s: stopped", config.role)


async def run_roles(
    configs: Sequence[LoadedConfig],
    stop: trio.Event,
    started: Callable[[], None],
    by_hand: trio.Event | None = None,
) -> None:
    """Run roles side by side until ``stop``; the failure of one ends all. ``started``: all of them are ready.

    ``by_hand`` is set before ``stop`` if somebody at a terminal asked for it: then no Envoy is kept.

    Raises:
        ConfigErrors: there is no place for the state of a role, or no Envoy; nothing was started.
    """
    missing = list(missing_envoys(configs, os.environ))
    if missing:
        raise ConfigErrors(missing)
    make_directories(configs)
    by_hand = trio.Event() if by_hand is None else by_hand
    waiting = len(configs)

    def one_started() -> None:
        nonlocal waiting
        waiting -= 1
        if waiting == 0:
            started()

    async with trio.open_nursery() as nursery:
        for loaded in configs:
            nursery.start_soon(run_role, loaded, stop, one_started, by_hand)


def run(configs: Sequence[LoadedConfig]) -> int:
    """Run until SIGTERM or SIGINT; a second one does not wait for connections. Returns the exit code.

    0: stopped in order. 1: a bug. 2: something that the operator can set right; said in one line each.
    """
    code = 0
    allow_many_files()
    # When each series began doubles the lines of /metrics, for nobody.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    try:
        trio.run(_run_until_signalled, configs)
    except* MeshdError as group:
        for line in (line for error in leaves(group) for line in str(error).splitlines()):
            print(f"meshd: {line}", file=sys.stderr)  # noqa: T201  # the operator's terminal, after the log has ended
        code = 2
    return code


async def _run_until_signalled(configs: Sequence[LoadedConfig]) -> None:
    stop, by_hand = trio.Event(), trio.Event()
    async with trio.open_nursery() as nursery:
        await nursery.start(_watch_signals, stop, by_hand, nursery.cancel_scope)
        await run_roles(configs, stop, _ready, by_hand)
        nursery.cancel_scope.cancel()


def _ready() -> None:
    settle_memory()
    _say(READY)


def _say(state: str) -> None:
    notify(os.environ, state)


async def _watch_signals(
    stop: trio.Event,
    by_hand: trio.Event,
    everything: trio.CancelScope,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        async for number in signals:
            if number == signal.SIGINT:
                by_hand.set()
            if stop.is_set():
                log.warning("%s again: not waiting for connections", signal.Signals(number).name)
                everything.cancel()
                return
            log.info("%s: stopping", signal.Signals(number).name)
            _say(STOPPING)
            stop.set()
