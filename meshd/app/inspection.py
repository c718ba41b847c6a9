"""Where the Envoy of a proxy of this zone is asked, and who may be asked there.

Its listener for the control plane, at the proxy's address: both ends show who they are. A proxy that has none (it is
at loopback, or this process runs it) is asked at the socket of its admin API. Where that is, the proxy itself says when
it connects, so only one of this host is asked, at a socket that is named as kuma-dp and meshd name theirs, and after
what listens there has said that it is this proxy's Envoy.
"""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from meshd.ca.envoy_admin import CA_SECRET, client_context, server_name
from meshd.ca.x509 import KeyPair
from meshd.envoy.client import Admin, AtListener, AtSocket
from meshd.insight.proxies import insight_key, is_builtin
from meshd.kds.admin.wire import Question, What
from meshd.kinds.dataplane import Dataplane
from meshd.kinds.zone_egress import ZoneEgress
from meshd.kinds.zone_ingress import ZoneIngress
from meshd.model.errors import UnavailableError
from meshd.model.resource import Resource, ResourceKey
from meshd.runtime.addresses import local_addresses
from meshd.xds.admin import WILDCARDS, has_listener
from meshd.xds.service import AdminAt

_SOCKET = re.compile(r"(admin|kuma-envoy-admin[\w.\-]*)\.sock")


@dataclass(frozen=True, slots=True)
class Listener:
    """Where the listener of a proxy for the control plane is; ``host`` is an address or a name."""

    host: str
    port: int


def way_to(
    proxy: Resource, at: AdminAt | None, default_port: int, is_local: Callable[[str], bool]
) -> Listener | AtSocket:
    """Where an Envoy is asked. ``at`` None: it is not connected, and is where Envoys are if nobody says otherwise.

    Raises:
        UnavailableError: nowhere; says why.
    """
    spec = proxy.spec
    if not isinstance(spec, Dataplane | ZoneIngress | ZoneEgress):
        raise UnavailableError(f"{proxy.key} is no proxy")
    host = spec.networking.address
    own_port = spec.networking.admin.port if spec.networking.admin is not None else 0
    said = at or AdminAt("", "", own_port or default_port, "")
    if has_listener("127.0.0.1" if host == "localhost" else host, said.port, said.address, said.socket):
        advertised = spec.networking.advertised_address if not isinstance(spec, ZoneEgress) else ""
        if host in WILDCARDS:
            return Listener(_host(said.peer) or advertised or host, said.port)
        # What an ingress advertises may be a balancer's, which has the ingress's port only.
        return Listener(advertised if advertised and isinstance(spec, Dataplane) else host, said.port)
    if at is None:
        raise UnavailableError(f"{proxy.key} has no Envoy that is connected to this control plane")
    if not is_local(at.peer):
        raise UnavailableError(
            f"{proxy.key} is on another host ({at.peer}) and its Envoy has no listener for the control plane there:"
            " set networking.admin.port, and an address of that host"
        )
    if not _SOCKET.fullmatch(Path(at.socket).name) or not at.socket.startswith("/"):
        shown = f"at {at.socket!r}" if at.socket else "at a port"
        raise UnavailableError(
            f"{proxy.key}: the admin API of its Envoy is {shown}, where it is not asked; it must be at a socket"
        )
    return AtSocket(Path(at.socket))


def is_local(peer: str) -> bool:
    """Whether a peer, ``address:port``, is of this host."""
    try:
        address = ip_address(_host(peer))
    except ValueError:
        return False
    # A server at :: sees those of IPv4 so.
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or address in local_addresses()


def _host(peer: str) -> str:
    return peer.rpartition(":")[0].strip("[]")


def node_id(proxy: ResourceKey) -> str:
    """The id of the node of a proxy."""
    return f"{proxy.mesh}.{proxy.name}"


class Inspector:
    """Asks the Envoys of a zone.

    ``stored`` gives the resource of a proxy and its insight, ``find`` says where the admin API of a connected one is,
    ``default_port`` is where it is unless somebody says otherwise. ``admin_ca`` is the CA by which the two ends know
    each other, ``addresses`` finds those of a name (OSError if it has none).
    """

    def __init__(
        self,
        stored: Callable[[ResourceKey], Resource | None],
        find: Callable[[ResourceKey], AdminAt | None],
        admin_ca: Callable[[], KeyPair | None],
        addresses: Callable[[str], Awaitable[tuple[str, ...]]],
        default_port: int,
    ) -> None:
        self._stored = stored
        self._find = find
        self._admin_ca = admin_ca
        self._addresses = addresses
        self._default_port = default_port

    async def ask(self, question: Question) -> bytes:
        """What the Envoy of a proxy says.

        Raises:
            UnavailableError: it cannot be asked, or does not answer; says why.
        """
        proxy = question.proxy
        resource = self._stored(proxy)
        if resource is None:
            raise UnavailableError(f"{proxy} is not there")
        at = self._find(proxy)
        if at is None and is_builtin(self._stored(insight_key(proxy))):
            raise UnavailableError(f"{proxy} is run by the built-in engine, without an Envoy")
        way = way_to(resource, at, self._default_port, is_local)
        if isinstance(way, AtSocket):
            admin = Admin(way)
            found = await admin.node_id()
            if found != node_id(proxy):
                raise UnavailableError(f"{proxy}: at {way} is the Envoy of {found!r}")
            return await _answer(admin, question)
        admin = Admin(await self._listener(proxy, way))
        try:
            return await _answer(admin, question)
        except UnavailableError as error:
            why = "" if at is not None else "; it is not connected to this control plane"
            raise UnavailableError(f"{proxy}: {error}{why}") from error

    async def _listener(self, proxy: ResourceKey, way: Listener) -> AtListener:
        ca = self._admin_ca()
        if ca is None:
            raise UnavailableError(f"{CA_SECRET} is not there, or is no CA: delete it for a new one")
        try:
            addresses = await self._addresses(way.host)
        except OSError as error:
            raise UnavailableError(f"{proxy}: no address is known of {way.host}: {error}") from error
        try:
            context = client_context(ca)
        except ValueError as error:
            raise UnavailableError(f"{CA_SECRET} cannot be used: {error}") from error
        return AtListener(min(addresses), way.port, server_name(proxy), context)


async def _answer(admin: Admin, question: Question) -> bytes:
    match question.what:
        case What.CONFIG_DUMP:
            return await admin.config_dump(include_eds=question.include_eds)
        case What.STATS:
            return await admin.stats(as_json=question.as_json, used_only=question.used_only)
        case What.CLUSTERS:
            return await admin.clusters(as_json=question.as_json)
