"""Specs of the kinds that travel as JSON and have no effect here: their outline is checked, everything in them is kept.

A field that is not in the outline is kept from a peer, who may be newer, and refused from a user (``read_strict``).
Deeper than the outline nothing is checked. Source of the outlines: reference/kds.md 6.8.
"""

from collections.abc import Iterator, Mapping, Sequence

from pydantic import ConfigDict, Field

from meshd.model.errors import Violation
from meshd.model.fields import Struct
from meshd.model.resource import Resource, Spec
from meshd.model.shape import suggestion

TARGET_KINDS = (
    "Dataplane",
    "Mesh",
    "MeshExternalService",
    "MeshGateway",
    "MeshHTTPRoute",
    "MeshMultiZoneService",
    "MeshService",
    "MeshServiceSubset",
    "MeshSubset",
)


class OpenSpec(Spec):
    """Keeps the fields it does not know."""

    model_config = ConfigDict(extra="allow")


class Part(OpenSpec):
    """A part of which nothing is known."""


class TargetRef(OpenSpec):
    """What a policy, or an entry of it, is about."""

    kind: str = ""
    mesh: str | None = None
    name: str | None = None
    namespace: str | None = None
    tags: Mapping[str, str] | None = None
    labels: Mapping[str, str] | None = None
    section_name: str | None = None
    proxy_types: tuple[str, ...] | None = None


class Entry(OpenSpec):
    """Of ``to`` and ``from``."""

    target_ref: TargetRef | None = None
    default: Struct | None = None


class Rule(OpenSpec):
    """Of ``rules``."""

    matches: tuple[Struct, ...] | None = None
    default: Struct | None = None


class Single(OpenSpec):
    """A policy that says one thing about each proxy."""

    target_ref: TargetRef | None = None
    default: Struct | None = None


class To(OpenSpec):
    """A policy about what proxies send."""

    target_ref: TargetRef | None = None
    to: tuple[Entry, ...] | None = None


class FromRules(OpenSpec):
    """A policy about what proxies receive."""

    target_ref: TargetRef | None = None
    from_: tuple[Entry, ...] | None = Field(default=None, alias="from")
    rules: tuple[Rule, ...] | None = None


class ToFromRules(FromRules):
    """A policy about both."""

    to: tuple[Entry, ...] | None = None


class LabelSelector(OpenSpec):
    """Of labels that must be there."""

    match_labels: Mapping[str, str] | None = None


class GeneratorSelector(OpenSpec):
    """Which services a HostnameGenerator names; one of the three."""

    mesh_service: LabelSelector | None = None
    mesh_external_service: LabelSelector | None = None
    mesh_multi_zone_service: LabelSelector | None = None


class HostnameGenerator(OpenSpec):
    """Gives services names by a template."""

    selector: GeneratorSelector | None = None
    template: str | None = None
    extension: Struct | None = None


class MeshService(OpenSpec):
    """A service: its proxies, ports and identities."""

    state: str | None = None
    selector: Struct | None = None
    ports: tuple[Struct, ...] | None = None
    identities: tuple[Struct, ...] | None = None


class MeshExternalService(OpenSpec):
    """Something outside the mesh that has a name inside it."""

    match: Struct | None = None
    extension: Struct | None = None
    endpoints: tuple[Struct, ...] | None = None
    tls: Struct | None = None


class ServiceSelector(OpenSpec):
    """Which MeshServices a MeshMultiZoneService joins."""

    mesh_service: LabelSelector | None = None


class MeshMultiZoneService(OpenSpec):
    """A service that is in several zones."""

    selector: ServiceSelector | None = None
    ports: tuple[Struct, ...] | None = None


class MeshZoneAddress(OpenSpec):
    """Where a zone's ingress for a mesh can be reached."""

    address: str | None = None
    port: int | None = None


class MeshIdentity(OpenSpec):
    """How proxies get their SPIFFE ids."""

    selector: Struct | None = None
    spiffe_id: Struct | None = Field(default=None, alias="spiffeID")
    provider: Struct | None = None


class MeshTrust(OpenSpec):
    """Which CAs are believed for a trust domain."""

    trust_domain: str | None = None
    ca_bundles: tuple[Struct, ...] | None = None
    origin: Struct | None = None


class MeshOpenTelemetryBackend(OpenSpec):
    """Where telemetry goes."""

    endpoint: Struct | None = None
    protocol: str | None = None
    env: Struct | None = None


class Workload(OpenSpec):
    """A group of proxies under one name."""


REQUIRED: Mapping[str, Sequence[str]] = {
    "HostnameGenerator": ("selector", "template"),
    "MeshExternalService": ("match",),
    "MeshMultiZoneService": ("selector", "ports"),
    "MeshZoneAddress": ("address", "port"),
    "MeshMetric": ("default",),
    "MeshTrace": ("default",),
    "MeshProxyPatch": ("default",),
    "MeshTrust": ("trustDomain",),
}
"""Fields that Kuma does not do without."""


def validate(resource: Resource) -> tuple[Violation, ...]:
    """What is wrong with the outline of a resource."""
    spec = resource.spec
    found = [*_target_violations(spec)]
    given = spec.model_dump(by_alias=True, exclude_none=True)
    found += [
        Violation(f"spec.{name}", "is required") for name in REQUIRED.get(resource.key.kind, ()) if name not in given
    ]
    return tuple(found)


def _target_violations(spec: Spec) -> Iterator[Violation]:
    """What is wrong with the targetRefs of a policy."""
    top = getattr(spec, "target_ref", None)
    if top is not None:
        yield from _kind_violations("spec.targetRef", top)
    for name, attribute in (("to", "to"), ("from", "from_")):
        for index, entry in enumerate(getattr(spec, attribute, None) or ()):
            field = f"spec.{name}[{index}].targetRef"
            if entry.target_ref is None:
                yield Violation(field, "is required")
            else:
                yield from _kind_violations(field, entry.target_ref)


def _kind_violations(field: str, target: TargetRef) -> Iterator[Violation]:
    if target.kind not in TARGET_KINDS:
        what = f'"{target.kind}" is no kind of target' + suggestion(target.kind, TARGET_KINDS)
        yield Violation(f"{field}.kind", what if target.kind else "is required")
