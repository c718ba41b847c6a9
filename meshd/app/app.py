"""One role as tiers of services, several roles side by side, and the signals that end them."""

import logging
import os
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import trio
from prometheus_client import PlatformCollector, ProcessCollector, disable_created_metrics

from meshd import __version__
from meshd.app.bootstrap import missing_defaults, own_proxies
from meshd.app.process import allow_many_files, make_directories, settle_memory
from meshd.app.role import Role, Tiers, utc_now
from meshd.app.server import KdsListener
from meshd.app.status import global_status, global_sync
from meshd.app.zone import zone_tiers
from meshd.config import Config, ConfigErrors, LoadedConfig
from meshd.config.tree import Engine, StoreType
from meshd.envoy.binary import missing_envoys
from meshd.kds.admission import AdmittedZone
from meshd.kds.server import GlobalKds
from meshd.kinds.declare import KINDS
from meshd.model.errors import MeshdError
from meshd.model.registry import Registry
from meshd.policies import discover
from meshd.rest.server import Binding, tls_context
from meshd.rpc import GrpcServer
from meshd.runtime.notify import READY, STOPPING, notify
from meshd.runtime.supervisor import leaves, supervise
from meshd.store.memory import MemoryStore
from meshd.store.sqlite import SqliteStore
from meshd.store.store import Store

log = logging.getLogger(__name__)


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
        [role.api(lambda: global_status(kds), lambda zone: global_sync(kds, zone), kds.admin.ask)],
        [KdsListener(kds, server, kds_settings.interface, kds_settings.grpc_port)],
    )


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
        role = Role(config, store, registry, policies, stop.is_set, by_hand.is_set)
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
        own = [p.resource for p in loaded.proxies]
        probed = {p.resource.key for p in loaded.proxies if p.engine is Engine.ENVOY} if config.has_hds else set()
        await store.write([*defaults, *own_proxies(store, registry, zone, own, probed)])
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
