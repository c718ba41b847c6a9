"""Where the Envoy of a proxy of this zone is asked, and who may be asked there.

Where the admin API is, the proxy itself says when it connects. So only a proxy of this host is asked, at a socket that
is named as kuma-dp and meshd name theirs, and after what listens there has said that it is this proxy's Envoy.
"""

import re
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path

from meshd.envoy.client import Admin
from meshd.kds.admin.wire import Question, What
from meshd.model.errors import UnavailableError
from meshd.model.resource import ResourceKey
from meshd.runtime.addresses import local_addresses
from meshd.xds.server import AdminAt

_SOCKET = re.compile(r"(admin|kuma-envoy-admin[\w.\-]*)\.sock")


def refusal(proxy: ResourceKey, at: AdminAt | None, is_local: Callable[[str], bool]) -> str:
    """Why the Envoy of a proxy cannot be asked; "" if it can be tried."""
    if at is None:
        return f"{proxy} has no Envoy that is connected to this control plane"
    if not is_local(at.peer):
        return f"{proxy} is on another host ({at.peer}): the admin API of its Envoy can be asked only there"
    if not _SOCKET.fullmatch(Path(at.socket).name) or not at.socket.startswith("/"):
        shown = f"at {at.socket!r}" if at.socket else "at a port"
        return f"{proxy}: the admin API of its Envoy is {shown}, where it is not asked; it must be at a socket"
    return ""


def is_local(peer: str) -> bool:
    """Whether a peer, ``address:port``, is of this host."""
    try:
        address = ip_address(peer.rpartition(":")[0].strip("[]"))
    except ValueError:
        return False
    return address.is_loopback or address in local_addresses()


def node_id(proxy: ResourceKey) -> str:
    """The id of the node of a proxy."""
    return f"{proxy.mesh}.{proxy.name}"


class Inspector:
    """Asks the Envoys of a zone. ``find`` says where the admin API of a connected proxy is."""

    def __init__(self, find: Callable[[ResourceKey], AdminAt | None]) -> None:
        self._find = find

    async def ask(self, question: Question) -> bytes:
        """What the Envoy of a proxy says.

        Raises:
            UnavailableError: it cannot be asked, or does not answer; says why.
        """
        proxy = question.proxy
        at = self._find(proxy)
        why = refusal(proxy, at, is_local)
        if why or at is None:
            raise UnavailableError(why)
        admin = Admin(Path(at.socket))
        found = await admin.node_id()
        if found != node_id(proxy):
            raise UnavailableError(f"{proxy}: at {at.socket} is the Envoy of {found!r}")
        match question.what:
            case What.CONFIG_DUMP:
                return await admin.config_dump(include_eds=question.include_eds)
            case What.STATS:
                return await admin.stats(as_json=question.as_json, used_only=question.used_only)
            case What.CLUSTERS:
                return await admin.clusters(as_json=question.as_json)
