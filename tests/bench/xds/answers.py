"""Reads just as much of a delta response as a proxy must to go on: names, versions, which clusters want endpoints.

Proxies are told the same bytes, so what a resource says is worked out once a process; every proxy still goes through
every message that it got.
"""

import re
from dataclasses import dataclass, field

from meshd.discovery.fields import fields, read_varint, submessages
from meshd.discovery.wire import any_parts

PREFIX = "type.googleapis.com/"
CLUSTER = PREFIX + "envoy.config.cluster.v3.Cluster"
ENDPOINTS = PREFIX + "envoy.config.endpoint.v3.ClusterLoadAssignment"
LISTENER = PREFIX + "envoy.config.listener.v3.Listener"
SECRET = PREFIX + "envoy.extensions.transport_sockets.tls.v3.Secret"
EDS = 3
"""``Cluster.type`` of those whose endpoints are asked for by their names."""
_SECRETS = re.compile(rb"(?:identity_cert|mesh_ca):secret:[a-zA-Z0-9.-]*[a-zA-Z0-9]")


@dataclass(frozen=True, slots=True)
class Told:
    """One resource: what it is called, in which version, and what it makes a proxy ask for."""

    name: str
    version: str
    wants_endpoints: bool
    secrets: tuple[str, ...]


@dataclass(slots=True)
class Answer:
    """One response."""

    type_url: str = ""
    nonce: str = ""
    told: list[Told] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)


class Reader:
    """Reads responses; one for all proxies of a process."""

    def __init__(self) -> None:
        self._known: dict[bytes, Told] = {}

    def read(self, data: bytes) -> Answer:
        """Raises ValueError: it is no response."""
        answer = Answer()
        known, told = self._known, answer.told
        at, end = 0, len(data)
        while at < end:
            key, at = data[at], at + 1
            size, at = read_varint(data, at) if data[at] >= 0x80 else (data[at], at + 1)
            part, at = data[at : at + size], at + size
            match key >> 3:
                case 2:
                    resource = known.get(part)
                    if resource is None:
                        resource = known[part] = _told(part)
                    told.append(resource)
                case 4:
                    answer.type_url = part.decode()
                case 5:
                    answer.nonce = part.decode()
                case 6:
                    answer.removed.append(part.decode())
        return answer

    def forget(self) -> None:
        """What comes next is new; what was known would only be in the way."""
        if len(self._known) > 100_000:
            self._known.clear()


def _told(data: bytes) -> Told:
    name = version = ""
    wants_endpoints = False
    secrets: set[str] = set()
    for number, part in submessages(data):
        if number == 1:
            version = part.decode()
        elif number == 3:
            name = part.decode()
        elif number == 2:
            type_url, value = any_parts(part)
            secrets = {found.decode() for found in _SECRETS.findall(value)}
            if type_url == CLUSTER:
                wants_endpoints = any(n == 2 and v == EDS for n, _, v in fields(value))
    return Told(name, version, wants_endpoints, tuple(sorted(secrets)))
