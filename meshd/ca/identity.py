"""The values that everybody else holds: who a proxy is, and whom it trusts."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from meshd.kinds.dataplane import Dataplane
from meshd.model import labels as label
from meshd.model.resource import Resource

KUMA_ALPN = "kuma"
"""The one protocol that mesh mTLS offers; it tells mesh TLS from an application's own (reference/dataplane.md 3.4)."""

UNRESERVED = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~"
CANONICAL_PATH = frozenset(UNRESERVED + "$&+,/:;=@")
"""What Go's ``net/url`` leaves alone when it encodes a path itself."""
TOLERATED_PATH = CANONICAL_PATH | frozenset("!'()*[]")
"""What it also leaves alone when all of the path is made of these."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A workload certificate with its key.

    ``uris`` are the URI SANs in certificate order: ``spiffe://<mesh>/<service>`` first, then ``kuma://<tag>/<value>``.
    ``chain_pem`` is the leaf, then the intermediates of the CA, never a root; ``key_pem`` is unencrypted PKCS#8.
    Both end with a newline. Times are UTC and are those of the certificate. Equal values are the same certificate.
    """

    mesh: str
    uris: tuple[str, ...]
    chain_pem: bytes
    key_pem: bytes = field(repr=False)
    not_before: datetime
    not_after: datetime


@dataclass(frozen=True, slots=True)
class TrustBundle:
    """The roots that vouch for peers of a mesh: concatenated PEM, the CA that signs now first; empty without mTLS."""

    mesh: str
    pem: bytes


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a proxy shows and trusts in one mesh.

    ``identity`` is None when the mesh has no mTLS (then ``trust.pem`` is empty too), before the first certificate
    could be issued, and after the last one expired without a successor.
    """

    identity: Identity | None
    trust: TrustBundle


def no_credentials(mesh: str) -> Credentials:
    """What a proxy has in a mesh without mTLS."""
    return Credentials(None, TrustBundle(mesh, b""))


def identity_uris(mesh: str, tags: Mapping[str, Iterable[str]]) -> tuple[str, ...]:
    """The URI SANs of a proxy with these tags (tag -> every value of any inbound or gateway), in Kuma's order.

    Every service first, as ``spiffe://<mesh>/<service>``, then every tag (the service too) as
    ``kuma://<tag>/<value>``; tags and values sorted.

    Raises:
        ValueError: there is no service tag, so there is no name to certify.

    Source: Kuma ``pkg/core/ca/issuer`` (behaviour); reference/dataplane.md 5.1.
    """
    services = sorted(set(tags.get(label.SERVICE, ())))
    if not services:
        raise ValueError(f"mesh '{mesh}': a proxy without a {label.SERVICE} tag has no identity; add the tag")
    spiffe = [spiffe_uri(mesh, service) for service in services]
    return (*spiffe, *(tag_uri(tag, value) for tag in sorted(tags) for value in sorted(set(tags[tag]))))


def dataplane_uris(dataplane: Resource) -> tuple[str, ...]:
    """The URI SANs of a Dataplane: its tags, or its workload label as the service if no inbound has a service tag.

    Raises:
        ValueError: it has neither.
    """
    tags = tag_values(dataplane)
    workload = dataplane.labels.get(label.WORKLOAD)
    if not tags.get(label.SERVICE) and workload:
        tags = {label.SERVICE: (workload,)}
    return identity_uris(dataplane.key.mesh, tags)


def tag_values(dataplane: Resource) -> dict[str, tuple[str, ...]]:
    """Every tag of a Dataplane with all the values that any of its inbounds or its gateway has, both sorted."""
    if not isinstance(dataplane.spec, Dataplane):
        raise TypeError(f"{dataplane.key} is no Dataplane")
    networking = dataplane.spec.networking
    gateway = [networking.gateway.tags] if networking.gateway else []
    values: dict[str, set[str]] = {}
    for tags in (*(inbound.tags for inbound in networking.inbound), *gateway):
        for tag, value in tags.items():
            values.setdefault(tag, set()).add(value)
    return {tag: tuple(sorted(values[tag])) for tag in sorted(values)}


def egress_uris(mesh: str) -> tuple[str, ...]:
    """The URI SANs of a zone egress in one mesh."""
    return identity_uris(mesh, {label.SERVICE: (label.ZONE_EGRESS_SERVICE,)})


def egress_owner(name: str) -> str:
    """Under what name an egress keeps its certificates; a Dataplane may be called the same."""
    return f"{label.ZONE_EGRESS_SERVICE}.{name}"


def service_sni(service: str, mesh: str, tags: Mapping[str, str] | None = None) -> bytes:
    """Kuma's SNI of a legacy service: ``web{mesh=default}``, further tags sorted in (reference/dataplane.md 3.4)."""
    inside = {**(tags or {}), "mesh": mesh}
    return f"{service}{{{','.join(f'{k}={inside[k]}' for k in sorted(inside))}}}".encode()


def spiffe_uri(mesh: str, service: str) -> str:
    """The SPIFFE ID of a service: what its clients check, exactly."""
    return f"spiffe://{mesh}/{encoded(service)}"


def tag_uri(tag: str, value: str) -> str:
    """The URI by which policies name a proxy with this tag."""
    return f"kuma://{encoded(tag)}/{encoded(value)}"


def encoded(text: str) -> str:
    """``text`` as the path of a URI, percent-encoded exactly where Go's ``net/url`` does it.

    Kuma's character set for tags (letters, digits, ``.-_:/``) is never changed. Other text differs from Kuma in one
    way: ``%``, ``?`` and ``#``, which Kuma refuses or reads as URI syntax, are encoded like everything else.
    """
    if all(c in TOLERATED_PATH for c in text):
        return text
    return "".join(c if c in CANONICAL_PATH else "".join(f"%{b:02X}" for b in c.encode()) for c in text)
