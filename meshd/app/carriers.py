"""Which proxies this process runs, and what carries the traffic of each: one face for both engines."""

import fnmatch
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from meshd.config.tree import Config, ProxyEntry
from meshd.envoy.service import EnvoyProcess
from meshd.l4.render import check, fixed_listeners
from meshd.l4.service import Engine
from meshd.model.errors import Violation
from meshd.model.resource import Resource, ResourceKey
from meshd.runtime.latest import Latest
from meshd.runtime.supervisor import Service
from meshd.topology.view import BoundVips, MeshView


@dataclass(frozen=True, slots=True)
class Selection:
    """Dataplanes that somebody writes through the API and this process runs: of one mesh, by a name pattern."""

    mesh: str
    names: str
    entry: ProxyEntry = field(default_factory=ProxyEntry)

    def has(self, key: ResourceKey) -> bool:
        """Whether a Dataplane is one of them."""
        return key.kind == "Dataplane" and key.mesh == self.mesh and fnmatch.fnmatchcase(key.name, self.names)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The proxies that a process runs, with what the configuration says of them.

    ``own`` are those of its file, in its order, of which one may own the VIPs; ``selections`` find others, the first
    that has one counts.
    """

    own: Mapping[ResourceKey, ProxyEntry] = field(default_factory=dict)
    selections: tuple[Selection, ...] = ()

    @property
    def vip_owner(self) -> ResourceKey | None:
        """The Dataplane of the file that owns the VIPs."""
        return next((key for key, entry in self.own.items() if entry.vips), None)

    def entry_of(self, key: ResourceKey) -> ProxyEntry | None:
        """What the configuration says of a proxy; None if it is not one to run."""
        if key in self.own:
            return self.own[key]
        return next((s.entry for s in self.selections if s.has(key)), None)


def selections(config: Config) -> tuple[Selection, ...]:
    """The selections of a configuration."""
    return tuple(
        Selection(e.dataplanes.mesh, e.dataplanes.names, e) for e in config.proxies if e.dataplanes is not None
    )


@dataclass(frozen=True, slots=True)
class Carrier:
    """What carries one proxy's traffic: the built-in engine, or an Envoy.

    ``service`` runs it. ``ready``: it listens and has its certificates. ``trouble``: why it does not run, empty if it
    does. Of interest if it owns the VIPs: ``bound_vips``, where it takes connections to them (what an Envoy has said
    outlives it, so this holds while it is ready), and ``served_views``, which its listeners are up to. ``refused``: the
    parts of a resource that it does not carry; ``carries``: whether anything is left of it. ``retire`` is called before
    the end of one that does not come back, ``forget`` after it. ``has_stream``: it has a stream of its own to its
    control plane; whoever serves that says in its insight whether it is online and which certificate it has.
    """

    service: Service
    ready: Latest[bool]
    trouble: Latest[str]
    bound_vips: Latest[BoundVips]
    served_views: Latest[Mapping[str, MeshView]]
    refused: Callable[[Resource], tuple[Violation, ...]]
    carries: Callable[[Resource], bool]
    retire: Callable[[], None]
    forget: Callable[[], None]
    has_stream: bool


def builtin(engine: Engine) -> Carrier:
    """The built-in engine."""
    return Carrier(
        engine,
        engine.ready,
        Latest(""),
        engine.bound_vips,
        engine.served_views,
        refused=check,
        carries=lambda resource: bool(fixed_listeners(resource)),
        retire=lambda: None,
        forget=engine.forget_series,
        has_stream=False,
    )


def envoy(
    process: EnvoyProcess, bound_vips: Latest[BoundVips], served_views: Latest[Mapping[str, MeshView]]
) -> Carrier:
    """An Envoy. What it has bound and which views that comes from, its stream knows, and it holds without one."""
    return Carrier(
        process,
        process.ready,
        process.trouble,
        bound_vips,
        served_views,
        refused=lambda _: (),
        carries=lambda _: True,
        retire=process.retire,
        forget=process.forget_series,
        has_stream=True,
    )
