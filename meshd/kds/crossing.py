"""What a resource becomes when it leaves for the other side, and what is withheld. Pure.

Source: Kuma ``pkg/kds/context/context.go`` (behaviour); reference/kds.md 5.3 to 5.6.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from meshd.ca import rsa_pem
from meshd.kds import surgery
from meshd.kds.names import hashed_name, wire_name
from meshd.kinds.secret import Secret
from meshd.model import codec
from meshd.model import labels as label
from meshd.model.resource import Resource, ResourceKey, Spec
from meshd.model.resource_type import Flow, ResourceType

CLUSTER_ID_CONFIG = "kuma-cluster-id"
"""The only Config that leaves the global."""
ZONE_SIGNING_KEY = "zone-token-signing-key"
ZONE_PUBLIC_KEY = "zone-token-signing-public-key"
GLOBAL_ONLY_SECRETS = frozenset({"envoy-admin-ca", "admin-user-token", "inter-cp-ca", "user-token-revocations"})
GLOBAL_ONLY_SECRET_PREFIX = "user-token-signing-key"  # noqa: S105 a name, not a secret

HASH_SUFFIX = "hash-suffix"
ZONE_PING_HEALTH = "zone-ping-health"
PRODUCER_POLICY_FLOW = "producer-policy-flow"
OPTIONAL_TARGET_REF = "optional-top-level-target-ref"
GENERATOR_MULTI_ZONE = "hg-mz-selector"
ZONE_TOKEN = "zone-token"  # noqa: S105 a feature's name
NODE_FEATURES = (ZONE_TOKEN, HASH_SUFFIX, GENERATOR_MULTI_ZONE, PRODUCER_POLICY_FLOW, OPTIONAL_TARGET_REF)
"""What both roles announce in the node's metadata."""
HEADER_FEATURES = (ZONE_PING_HEALTH, HASH_SUFFIX)
"""What a zone announces in the call's metadata, one entry each."""

PRODUCER = "producer"
HOME_LABELS = frozenset({label.MANAGED_BY_FILE})
"""Labels that do not cross the border, either way."""


def is_local(resource: Resource, origin: str) -> bool:
    """Whether a control plane whose own label is ``origin`` ("zone" or "global") made the resource itself."""
    return resource.labels.get(label.ORIGIN, origin) == origin


def is_kept_home(resource: Resource) -> bool:
    """Whether its author asked that it stay where it is."""
    return resource.labels.get(label.KDS_SYNC) == "disabled"


def at_home(labels: Mapping[str, str]) -> Mapping[str, str]:
    """The labels without those that mean something only where they were set, whoever sends them.

    A file of another control plane does not own anything here: what it seems to own would be deleted at our start.
    """
    return {key: value for key, value in labels.items() if key not in HOME_LABELS}


def to_global(type_: ResourceType, resource: Resource, zone: str) -> Resource | None:
    """The resource as zone ``zone`` sends it to the global; None if it is not the zone's to send.

    Raises:
        ValueError: the spec has no wire form.
    """
    if is_kept_home(resource) or not is_local(resource, label.ORIGIN_ZONE):
        return None
    labels = {**at_home(resource.labels), label.ORIGIN: label.ORIGIN_ZONE, label.ZONE: zone}
    labels.pop(label.DELETION_GRACE, None)
    wire = resource.wire
    if resource.key.kind in surgery.SUBSCRIBED_KINDS:
        encoded = wire if wire is not None else codec.spec_to_wire(type_, resource.spec)
        wire = surgery.zero_generations(resource.key.kind, encoded)
    return hashed(replace(resource, labels=labels, wire=wire))


def to_zone(type_: ResourceType, resource: Resource) -> Resource | None:
    """The resource as the global sends it to every zone that ``admits`` lets see it; None if no zone may.

    Raises:
        ValueError: a signing key whose public half cannot be made.
    """
    if is_kept_home(resource) or never_leaves_global(resource.key):
        return None
    local = is_local(resource, label.ORIGIN_GLOBAL)
    if (Flow.GLOBAL_TO_ZONE if local else Flow.ACROSS_ZONES) not in type_.flow:
        return None
    labels = {**at_home(resource.labels), label.ORIGIN: label.ORIGIN_GLOBAL}
    sent = replace(resource, labels=labels, status=None)
    if resource.key.kind == "GlobalSecret" and resource.key.name.startswith(ZONE_SIGNING_KEY):
        sent = public_half(sent)
    return hashed(sent) if Flow.HASHED in type_.flow else sent


def names_taken(leaving: Mapping[str, ResourceKey], stored: Iterable[Resource]) -> dict[ResourceKey, str]:
    """The resources of a zone whose names its global has given to resources of its own, with the reasons.

    ``leaving`` are keys by wire name, ``stored`` what the zone has of the same kind. A Kuma global ends the stream that
    brings such a resource, again and again, with everything else that is on it.
    """
    theirs = {
        wire_name(replace(resource.key, name=resource.display_name))
        for resource in stored
        if resource.labels.get(label.ORIGIN) == label.ORIGIN_GLOBAL and label.ZONE not in resource.labels
    }
    return {
        key: f"the global has a {key.kind} of its own by the name that this one has there, {name!r};"
        " delete or rename one of the two"
        for name, key in leaving.items()
        if name in theirs
    }


def never_leaves_global(key: ResourceKey) -> bool:
    """Whether it is one of the control plane's own secrets and configurations."""
    match key.kind:
        case "Config":
            return key.name != CLUSTER_ID_CONFIG
        case "GlobalSecret":
            return key.name in GLOBAL_ONLY_SECRETS or key.name.startswith(GLOBAL_ONLY_SECRET_PREFIX)
        case _:
            return False


def is_missed(type_: ResourceType, key: ResourceKey) -> bool:
    """Whether zones may have a copy of a resource of the global's own, of which only the key is known.

    What only zones make comes again from its zone, and nobody could write it anew on the global.
    """
    return Flow.GLOBAL_TO_ZONE in type_.flow and not never_leaves_global(key)


def public_half(resource: Resource) -> Resource:
    """The public key of a zone token signing key, under the name that zones look for it."""
    assert isinstance(resource.spec, Secret)  # noqa: S101 the kind says so
    try:
        public = rsa_pem.signing_to_public(resource.spec.data)
    except ValueError as error:
        raise ValueError(f"{resource.key} {error}; zones cannot check zone tokens by it") from error
    name = resource.key.name.replace(ZONE_SIGNING_KEY, ZONE_PUBLIC_KEY)
    return replace(renamed(resource, name), spec=Secret(data=public), wire=None)


def hashed(resource: Resource) -> Resource:
    """The resource under its hashed name, the old one in a label."""
    return renamed(resource, hashed_name(resource.key.mesh, resource.display_name, resource.labels))


def renamed(resource: Resource, name: str) -> Resource:
    """The resource under another name; its display name stays."""
    labels = {**resource.labels, label.DISPLAY_NAME: resource.display_name}
    return replace(resource, key=replace(resource.key, name=name), labels=labels)


@dataclass(frozen=True, slots=True)
class ZoneEnd:
    """The zone at the other end of a stream of the global."""

    name: str
    features: frozenset[str]


def admits(type_: ResourceType, resource: Resource, zone: ZoneEnd, is_enabled: Callable[[str], bool]) -> bool:
    """Whether ``zone`` may see a resource (as stored on the global) that ``to_zone`` did not withhold.

    ``is_enabled`` answers for the zone it came from; a zone that is not known counts as enabled.
    """
    if (
        resource.key.kind == "HostnameGenerator"
        and GENERATOR_MULTI_ZONE not in zone.features
        and getattr(getattr(resource.spec, "selector", None), "mesh_multi_zone_service", None) is not None
    ):
        return False
    no_target = type_.is_policy and not type_.flat and getattr(resource.spec, "target_ref", None) is None
    if no_target and OPTIONAL_TARGET_REF not in zone.features:
        return False
    if is_local(resource, label.ORIGIN_GLOBAL):
        return True
    source = resource.labels.get(label.ZONE, "")
    if source == zone.name:
        return False
    if type_.is_policy and not is_producer_for(resource, zone):
        return False
    return is_enabled(source)


def is_producer_for(resource: Resource, zone: ZoneEnd) -> bool:
    """Whether a policy of another zone is one that the owner of a service made for its clients, in ``zone`` too."""
    if PRODUCER_POLICY_FLOW not in zone.features or resource.labels.get(label.POLICY_ROLE) != PRODUCER:
        return False
    # The label is the sending zone's word; only Kubernetes namespaces make a producer, and only "to" its services.
    namespace = resource.labels.get(label.NAMESPACE, "")
    targets = [getattr(item, "target_ref", None) for item in getattr(resource.spec, "to", None) or ()]
    if not namespace or not targets or getattr(resource.spec, "from_", None):
        return False
    if not all(is_own_service(target, namespace) for target in targets):
        return False
    top = getattr(resource.spec, "target_ref", None)
    if top is not None and word(getattr(top, "kind", "")) == "MeshSubset":
        wanted = (getattr(top, "tags", None) or {}).get(label.ZONE)
        return wanted is None or wanted == zone.name
    return True


def is_own_service(target: Spec | None, namespace: str) -> bool:
    """Whether a targetRef names a service or route of the policy's own namespace."""
    kind = word(getattr(target, "kind", ""))
    return (
        kind in {"MeshService", "MeshHTTPRoute"}
        and bool(getattr(target, "name", ""))
        and (getattr(target, "namespace", "") or namespace) == namespace
    )


def word(value: object) -> str:
    """An enum's value, or the string itself."""
    return str(getattr(value, "value", value))
