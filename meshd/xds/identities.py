"""The identities that connected proxies show: whose certificate each is given, and who has a newer one to show."""

from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import cast

from meshd.ca.identity import Credentials, no_credentials
from meshd.kinds.mesh import Mesh
from meshd.model.resource import ResourceKey
from meshd.runtime.following import Following
from meshd.runtime.latest import Latest
from meshd.topology.view import MeshView
from meshd.xds.proxies import Proxy

CredentialsOf = Callable[[str, str, tuple[str, ...]], Latest[Credentials]]
"""``IdentityService.credentials``: (mesh, owner, URIs) -> the cell."""

Identity = tuple[str, str]
"""A mesh and the owner of a certificate in it."""


@dataclass(eq=False, slots=True)
class Followed:
    """The cell of an identity, and the proxies that show it."""

    cell: Latest[Credentials]
    proxies: set[ResourceKey]


class Identities:
    """Gives proxies what they show and trust. ``renewed`` is called with the proxies that have something newer to show.

    ``cells`` must be running. An identity is kept as long as one of its proxies is there, connected or not, so that one
    that comes back shows what it did.
    """

    def __init__(self, credentials_of: CredentialsOf, renewed: Callable[[AbstractSet[ResourceKey]], None]) -> None:
        self.cells: Following[Identity] = Following(self._renewed)
        self._credentials_of = credentials_of
        self._tell = renewed
        self._followed: dict[Identity, Followed] = {}
        self._renewed_proxies: set[ResourceKey] = set()

    def need(self, proxy: Proxy, mesh: str, owner: str, uris: tuple[str, ...]) -> None:
        """Let a proxy show this identity in a mesh from now on."""
        cell = self._credentials_of(mesh, owner, uris)
        followed = self._followed.get((mesh, owner))
        if followed is None or followed.cell is not cell:
            followed = self._followed[mesh, owner] = Followed(cell, {proxy.key})
            self.cells.follow((mesh, owner), cell)
        followed.proxies.add(proxy.key)
        proxy.identities[mesh] = owner
        self._renewed_proxies.add(proxy.key)

    def keep(self, proxy: Proxy, owners: dict[str, str]) -> None:
        """Let go of the identities that a proxy needs no more; ``owners`` are those of all that it needs, by mesh."""
        if proxy.identities.keys() != owners.keys() or not proxy.feed.ready:
            for (mesh, _), followed in self._followed.items():
                if mesh not in owners:
                    followed.proxies.discard(proxy.key)
            proxy.identities = owners

    def certify(self, proxy: Proxy) -> None:
        """Let a proxy show what there is now of its identities."""
        proxy.certify({mesh: self._credentials(mesh, owner) for mesh, owner in proxy.identities.items()})

    def certify_renewed(self, proxies: Iterable[Proxy], is_ending: Callable[[Proxy], bool], now: float) -> None:
        """Let the Dataplanes, of all proxies, whose identity is new or has changed, show what there is now.

        Of those with a certificate that ``is_ending`` is true of nothing changes: they are looked at again, next time.
        """
        renewed, self._renewed_proxies = self._renewed_proxies, set()
        for proxy in proxies if renewed else ():
            if proxy.key.kind != "Dataplane" or proxy.key not in renewed:
                continue
            if proxy.certified and is_ending(proxy):
                self._renewed_proxies.add(proxy.key)
                continue
            self.certify(proxy)
            if not proxy.certified:
                proxy.certified_at = None
            elif proxy.certified_at is None:
                proxy.certified_at = now

    def let_go(self, is_there: Callable[[ResourceKey, str], bool]) -> list[Identity]:
        """Forget, and return, the identities of proxies that are gone for good, which a proxy's key and mesh tell."""
        gone = [
            (mesh, owner)
            for (mesh, owner), followed in self._followed.items()
            if not any(is_there(key, mesh) for key in followed.proxies)
        ]
        for identity in gone:
            del self._followed[identity]
            self.cells.forget(identity)
        return gone

    def _credentials(self, mesh: str, owner: str) -> Credentials:
        followed = self._followed.get((mesh, owner))
        return followed.cell.value if followed is not None else no_credentials(mesh)

    def _renewed(self, identity: Identity) -> None:
        proxies = self._followed[identity].proxies
        self._renewed_proxies |= proxies
        self._tell(proxies)


def is_certified(proxy: Proxy, views: Mapping[str, MeshView]) -> bool:
    """Whether a proxy was given a certificate in each mesh in which it needs one."""
    for mesh in proxy.identities.keys() - proxy.certified:
        view = views.get(mesh)
        if view is not None and cast("Mesh", view.mesh.spec).enabled_backend() is not None:
            return False
    return True
