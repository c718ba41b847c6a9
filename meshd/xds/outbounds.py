"""The outbound side of all proxies that see the same, kept up to date service by service. Pure but for its layer."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from meshd.model.steps import Steps
from meshd.topology.view import MeshView
from meshd.xds.encode import SchemaError
from meshd.xds.external import outside_of
from meshd.xds.matched import Matched
from meshd.xds.names import outbound_listener, service_cluster
from meshd.xds.outbound import ClusterKey, Settings, Wanted, leaves_here, outbound, outbound_cluster
from meshd.xds.resources import CLUSTER, ENDPOINTS, LISTENER, Layer, XdsResource

Changed = frozenset[str] | None
"""The names of services that changed; None: anything may have."""


@dataclass(frozen=True, slots=True)
class Vips:
    """Outbounds at the virtual IPs of a mesh: of all services, or of the ``reachable`` ones; and those in ``also``."""

    reachable: frozenset[str] | None = None
    also: tuple[Wanted, ...] = ()

    def wanted(self, view: MeshView) -> Iterable[Wanted]:
        """One for every port of every virtual IP, and the others."""
        yield from self.also
        for vip in view.vips.values():
            for port, service in vip.ports.items():
                if self.reachable is None or service in self.reachable:
                    yield Wanted(str(vip.address), port, service)


Source = tuple[Wanted, ...] | Vips
"""Which outbounds there are: those that Dataplanes list, or the virtual IPs."""


class OutboundLayer:
    """A layer with the outbounds of ``source`` under the policies of ``matched``.

    ``update`` brings it to a view; clusters that nothing leads to any more go at the second ``retire`` after it, since
    what led there may still be in use when a proxy hears of both at once. ``failed`` says of what could not be rendered
    why, by name; it stays as it is and is tried again when it changes. ``refused`` are external services to which
    nothing may be sent, and why.
    """

    def __init__(self, source: Source, matched: Matched, settings: Settings) -> None:
        self.layer = Layer()
        self.is_rendered = False
        self.failed: dict[str, str] = {}
        self.refused: dict[str, str] = {}
        self.forked_from: OutboundLayer | None = None
        """What it still equals, until its first ``update``."""
        self._source = source
        self._matched = matched
        self._settings = settings
        self._listed_from: object = None
        self._needs: dict[Wanted, frozenset[ClusterKey]] = {}
        self._uses: Counter[ClusterKey] = Counter()
        self._led_by: dict[str, set[Wanted]] = {}
        """The outbounds that depend on a service, as their destination or as a share of it."""
        self._retired: set[ClusterKey] = set()
        self._due: set[ClusterKey] = set()

    def fork(self, source: Source, matched: Matched, settings: Settings) -> "OutboundLayer":
        """One that begins with what this has, so that whoever changes over sees only what is really different."""
        made = OutboundLayer(source, matched, settings)
        made.layer.copy(self.layer)
        made.forked_from = self
        made._needs, made._uses = dict(self._needs), self._uses.copy()
        made._led_by = {service: set(wanted) for service, wanted in self._led_by.items()}
        made._retired = self._retired | self._due
        return made

    def update(self, view: MeshView, changed: Changed) -> Steps[None]:
        """Bring the layer to ``view``; of services only ``changed`` ones differ from the view before."""
        self.forked_from = None
        if not self.is_rendered:
            changed = None
        added = yield from self._list(view)
        stale = set(self._needs)
        if changed is not None:
            stale = added.union(*(self._led_by.get(service, ()) for service in changed))
        rendered: list[XdsResource] = []
        fresh: set[ClusterKey] = set()
        for wanted in sorted(stale, key=lambda w: (w.address, w.port)):
            name = outbound_listener(wanted.address, wanted.port)
            try:
                listener, needed = outbound(view, wanted, self._matched, self._settings)
            except SchemaError as error:
                self.failed[name] = str(error)
                self._led_by.setdefault(wanted.service, set()).add(wanted)
            else:
                self.failed.pop(name, None)
                rendered.append(listener)
                fresh |= self._use(wanted, needed)
            yield
        complete: list[str] = []
        for key in sorted(k for k in self._uses if changed is None or k in fresh or k[0] in changed):
            name = service_cluster(*key)
            try:
                made = list(outbound_cluster(view, key, self._matched, self._settings))
            except SchemaError as error:
                self.failed[name] = str(error)
            else:
                self.failed.pop(name, None)
                self._note_refused(view, key[0])
                rendered += made
                if len(made) == 1:  # it has its endpoints in itself now
                    complete.append(name)
            yield
        # All together: proxies hear of one change, not of each resource that it touches.
        yield from self.layer.spread(rendered)
        self.layer.remove(ENDPOINTS, complete)
        self.is_rendered = True

    def retire(self) -> None:
        """Take away the clusters that were let go before the last call, and nothing has led to since."""
        names = [service_cluster(*key) for key in self._due if key not in self._uses]
        self._due, self._retired = self._retired, set()
        self.layer.remove(CLUSTER, names)
        self.layer.remove(ENDPOINTS, names)
        for name in names:
            self.failed.pop(name, None)
        for service in self.refused.keys() - {service for service, _ in self._uses}:
            del self.refused[service]

    @property
    def has_retired(self) -> bool:
        """Whether ``retire`` has something to do."""
        return bool(self._retired or self._due)

    def _note_refused(self, view: MeshView, name: str) -> None:
        service, why = view.services.get(name), ""
        if service is not None and leaves_here(service):
            why = outside_of(view.mesh_name, service, self._settings.read_source, self._settings.system_ca).refused
        if why:
            self.refused[name] = why
        else:
            self.refused.pop(name, None)

    def _list(self, view: MeshView) -> Steps[set[Wanted]]:
        """Find out which outbounds there are to be, drop those that are not any more; returns the new ones."""
        source = self._source
        basis: object = view.vips if isinstance(source, Vips) else source
        if basis is self._listed_from:
            return set()
        self._listed_from = basis
        wanted = set(source.wanted(view) if isinstance(source, Vips) else source)
        yield
        gone = self._needs.keys() - wanted
        for item in gone:
            self._use(item, frozenset())
            del self._needs[item]
            self.failed.pop(outbound_listener(item.address, item.port), None)
        places = {(w.address, w.port) for w in wanted}
        self.layer.remove(
            LISTENER, [outbound_listener(w.address, w.port) for w in gone if (w.address, w.port) not in places]
        )
        added = wanted - self._needs.keys()
        for item in added:
            self._needs[item] = frozenset()
        return added

    def _use(self, wanted: Wanted, needed: frozenset[ClusterKey]) -> set[ClusterKey]:
        """Note what an outbound needs from now on; returns the clusters that nobody needed before."""
        before = self._needs.get(wanted, frozenset())
        self._needs[wanted] = needed
        for key in before - needed:
            self._uses[key] -= 1
            if not self._uses[key]:
                del self._uses[key]
                self._retired.add(key)
        fresh = {key for key in needed - before if not self._uses[key]}
        self._uses.update(needed - before)
        services = {service for service, _ in before} | {wanted.service}
        for service in services & self._led_by.keys():
            self._led_by[service].discard(wanted)
            if not self._led_by[service]:
                del self._led_by[service]
        for service in {service for service, _ in needed} | ({wanted.service} if needed else set()):
            self._led_by.setdefault(service, set()).add(wanted)
        return fresh
