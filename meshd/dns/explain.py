"""Why a name is answered as it is: for people, as plain data.

The answer is that of the server itself (``answer.respond``); the rest is what it was made of.
"""

import difflib
from collections.abc import Iterator, Mapping
from typing import Any, cast

import dnslib

from meshd.dns import answer, render, wire
from meshd.dns.render import Rendering
from meshd.kinds.dataplane import Dataplane
from meshd.model import labels as label
from meshd.model.errors import InvalidError, Violation
from meshd.topology.view import MeshView, ServiceView, Vip

MAX_SUGGESTED_FROM = 5000
"""With more names than that, none is suggested: comparing with all of them takes longer than a loop may."""
MAX_SHOWN = 20


def explain(
    name: str, qtype: str, rendering: Rendering, views: Mapping[str, MeshView], mesh: str, upstreams: tuple[str, ...]
) -> Mapping[str, Any]:
    """What a client that asks for ``name`` and ``qtype`` (``A``, ``TYPE65``) is told, where it comes from, and why.

    ``upstreams`` are those of whom other names are asked.

    Raises:
        InvalidError: this is no name, or no type.
    """
    name = name.strip().removesuffix(".").lower()
    message = query_of(name, qtype)
    outcome = answer.respond(message, rendering.table)
    told: dict[str, Any] = {"name": name, "type": qtype.upper(), "mesh": mesh, "rcode": "", "answers": []}
    if isinstance(outcome, answer.Answer):
        told["rcode"] = outcome.rcode
        told["answers"] = [str(record) for record in dnslib.DNSRecord.parse(outcome.wire).rr]
    view = views.get(mesh)
    key, vip = owner_of(name, rendering) or (None, None)
    if vip is not None and view is not None:
        told["vip"] = str(vip.address)
        told["names"] = list(vip.names)
        told["services"] = [service_of(port, service, view) for port, service in sorted(vip.ports.items())]
        told["alsoWantedBy"] = [other for other in rendering.claims.get(wire.name_to_wire(name), ()) if other != key]
    if isinstance(outcome, answer.Forward):
        told["reason"] = f"{name} is not of this mesh: asked of {', '.join(upstreams) or 'the upstreams'}"
    elif not told["answers"]:
        told["reason"] = reason(name, told["rcode"], rendering, views, mesh)
    return told


def query_of(name: str, qtype: str) -> bytes:
    """A query as a client would send it.

    Raises:
        InvalidError: this is no name, or no type.
    """
    problems = []
    wire_name, number = b"", type_number(qtype)
    try:
        wire_name = wire.name_to_wire(name)
    except ValueError as error:
        problems.append(Violation("name", str(error)))
    if number is None:
        problems.append(Violation("type", f"{qtype!r} is no type of DNS records; write it as A, AAAA, SRV or TYPE65"))
    if problems or number is None:
        raise InvalidError("DNS query", problems)
    return wire.query_message(wire_name, number)


def type_number(qtype: str) -> int | None:
    """A type by its name, or by its number as RFC 3597 writes it."""
    word = qtype.upper()
    known: Mapping[str, int] = dnslib.QTYPE.reverse
    if word in known:
        return known[word]
    digits = word.removeprefix("TYPE")
    if word != digits and digits.isascii() and digits.isdigit() and int(digits) < 65536:
        return int(digits)
    return None


def owner_of(name: str, rendering: Rendering) -> tuple[str, Vip] | None:
    """The VIP that a name leads to, with its key."""
    keys = rendering.claims.get(wire.name_to_wire(name), ())
    return (keys[0], rendering.vips[keys[0]]) if keys and keys[0] in rendering.vips else None


def service_of(port: int, name: str, view: MeshView) -> Mapping[str, Any]:
    """What is behind one port of a VIP: instances by zone, and the resources they come from."""
    service: ServiceView | None = view.services.get(name)
    told: dict[str, Any] = {"port": port, "service": name}
    if service is None:
        return told | {"zones": {}, "reason": "nothing is behind this service now"}
    told["protocol"] = service.protocol
    if service.external is not None:
        return told | {
            "externalService": service.external.key.name,
            "addresses": sorted({f"{e.address}:{e.port}" for e in service.endpoints})[:MAX_SHOWN],
        }
    local = {view.zone: service.local_instances} if service.local_instances else {}
    dataplanes = sorted(dataplanes_of(name, view))
    return told | {
        "zones": local | dict(sorted(service.remote_instances.items())),
        "dataplanes": dataplanes[:MAX_SHOWN],
        "moreDataplanes": max(len(dataplanes) - MAX_SHOWN, 0),
    }


def dataplanes_of(service: str, view: MeshView) -> Iterator[str]:
    """The names of this zone's Dataplanes with an inbound of a service."""
    for name, resource in view.local_dataplanes.items():
        networking = cast("Dataplane", resource.spec).networking
        if any(inbound.tags.get(label.SERVICE) == service for inbound in networking.inbound):
            yield name


def reason(name: str, rcode: str, rendering: Rendering, views: Mapping[str, MeshView], mesh: str) -> str:
    """Why there is no record to tell of."""
    table = rendering.table
    wire_name = wire.name_to_wire(name)
    if rcode == "REFUSED" and not table.is_ours(wire_name):
        settings = "dnsServer.upstreams, dnsServer.resolvConf"
        return f"{name} is not under {rendering.domain}, and there are no upstreams ({settings})"
    if rcode == "NOERROR":
        return no_data(name, wire_name, rendering)
    return not_there(name, rendering, views, mesh)


def not_there(name: str, rendering: Rendering, views: Mapping[str, MeshView], mesh: str) -> str:
    """Why a name of the domain does not exist, or cannot be said to."""
    view = views.get(mesh)
    if not rendering.table.is_known:
        return "no Mesh has come to this zone yet, so that nobody knows which names there are"
    if view is None:
        there = ", ".join(sorted(views)) or "none"
        return f"mesh '{mesh}', whose names this host has (dnsServer.mesh), is not here; there are: {there}"
    for vip in rendering.vips.values():
        if name in vip.names and not render.is_answered(vip, rendering.bound):
            ports = ", ".join(str(port) for port in sorted(vip.ports))
            return f"{name} has the virtual IP {vip.address}, but nothing here listens on port {ports} of it yet"
    elsewhere = sorted(m for m, other in views.items() if any(name in vip.names for vip in other.vips.values()))
    if elsewhere:
        return f"{name} is a name of mesh '{elsewhere[0]}'; this host has the names of '{mesh}' (dnsServer.mesh)"
    service = name.removesuffix(f".{rendering.domain}")
    if service in view.services:
        return f"service '{service}' is there, but has no virtual IP: dnsServer.CIDR may be used up"
    return f"no service of mesh '{mesh}' has this name{suggestion(name, rendering)}"


def no_data(name: str, wire_name: bytes, rendering: Rendering) -> str:
    """Why a name that exists has no record of a type."""
    if wire_name in rendering.claims:
        return f"{name} has an address, but no record of this type"
    if wire_name == rendering.table.apex:
        return f"{name} is the domain itself, which has no record of this type"
    return f"names beneath {name} exist, itself it has no record"


def suggestion(name: str, rendering: Rendering) -> str:
    """A clause that names the closest name, if one is close."""
    known = [known for vip in rendering.vips.values() for known in vip.names]
    if len(known) > MAX_SUGGESTED_FROM:
        return ""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
    return f"; did you mean {close[0]}?" if close else ""
