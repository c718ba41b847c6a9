"""Which Secret holds which key and which revocations, and what a store has of them now.

=========================== ==================================================== ==============================
token                       keys                                                 revocations
=========================== ==================================================== ==============================
dataplane (per mesh)        Secret ``dataplane-token-signing-key-<mesh>-<n>``    ``dataplane-token-revocations-<mesh>``
zone                        GlobalSecret ``zone-token-signing-key-<n>``          ``zone-token-revocations``
zone, in a federated zone   GlobalSecret ``zone-token-signing-public-key-<n>``   ``zone-token-revocations``
user                        GlobalSecret ``user-token-signing-key-<n>``          ``user-token-revocations``
=========================== ==================================================== ==============================

``<n>`` is the serial and the ``kid`` of its tokens; the highest serial signs. A name without a serial is serial 0
(Kuma before 1.4). Revocations are token ids, comma separated; those of dataplanes are read from the GlobalSecret, as
Kuma 2.14 does, and from the mesh's Secret of that name, where its documentation puts them.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from meshd.ca import rsa_pem
from meshd.ca.tokens import KeyRing, SigningKey
from meshd.kinds.secret import Secret
from meshd.model.errors import NotFoundError
from meshd.model.resource import Resource, ResourceKey
from meshd.store.store import Store

FIRST_SERIAL = 1
MAX_SERIAL_DIGITS = 9
ADMIN_TOKEN = "admin-user-token"  # noqa: S105 - a name


@dataclass(frozen=True, slots=True)
class Family:
    """The keys of one kind of token: where they are and what their names begin with. ``mesh`` empty: GlobalSecrets."""

    what: str
    mesh: str
    prefix: str
    public_prefix: str = ""
    revocations: str = ""

    @property
    def kind(self) -> str:
        """The kind of the resources that hold the keys."""
        return "Secret" if self.mesh else "GlobalSecret"

    def key(self, serial: int = FIRST_SERIAL) -> ResourceKey:
        """The key of the resource that holds the private key of a serial."""
        return ResourceKey(self.kind, self.mesh, f"{self.prefix}-{serial}" if serial else self.prefix)


ZONE = Family(
    what="zone token",
    mesh="",
    prefix="zone-token-signing-key",
    public_prefix="zone-token-signing-public-key",
    revocations="zone-token-revocations",
)
USER = Family(
    what="user token",
    mesh="",
    prefix="user-token-signing-key",
    revocations="user-token-revocations",
)


def dataplane_family(mesh: str) -> Family:
    """The keys of a mesh's dataplane tokens."""
    return Family(
        what="dataplane token",
        mesh=mesh,
        prefix=f"dataplane-token-signing-key-{mesh}",
        revocations=f"dataplane-token-revocations-{mesh}",
    )


def serial_of(name: str, prefix: str) -> int | None:
    """The serial that a resource's name says, None if it is not a key with that prefix.

    Only canonical numbers count: ``<prefix>-01`` would be a second serial 1.
    """
    if name == prefix:
        return 0
    digits = name.removeprefix(f"{prefix}-")
    if digits == name or not digits.isascii() or not digits.isdigit() or len(digits) > MAX_SERIAL_DIGITS:
        return None
    return int(digits) if digits[0] != "0" else None


def serials(resources: Iterable[Resource], prefix: str) -> dict[int, bytes]:
    """The data of every key with that prefix, by serial."""
    found: dict[int, bytes] = {}
    for resource in resources:
        serial = serial_of(resource.key.name, prefix)
        if serial is not None:
            found[serial] = data_of(resource)
    return found


def signing_key(store: Store, family: Family) -> SigningKey:
    """The key that signs new tokens: the highest serial.

    Raises:
        NotFoundError: there is none; the message begins with Kuma's "Signing Key not found".
    """
    found = serials(store.list(family.kind, family.mesh or None), family.prefix)
    if not found:
        place = f"{family.kind} '{family.key().name}'" + (f" of mesh '{family.mesh}'" if family.mesh else "")
        raise NotFoundError(f"Signing Key not found: there is no {place}; ask the control plane that has it")
    serial = max(found)
    try:
        return SigningKey(str(serial), rsa_pem.private_key(found[serial]))
    except ValueError as error:
        raise NotFoundError(f"Signing Key not found: {family.key(serial)} {error}") from None


def key_ring(store: Store, family: Family) -> KeyRing:
    """What tokens of a family are checked with now: public and private keys, by serial, and the revoked ids.

    A private key stands before a synced public one of the same serial: a zone that was standalone and joined a global
    keeps none (the global's set replaces them), so both are only there while that happens.
    """
    resources = store.list(family.kind, family.mesh or None)
    found = serials(resources, family.prefix)
    if family.public_prefix:
        found = serials(resources, family.public_prefix) | found
    where = f"{family.kind} '{family.prefix}-{{kid}}'" + (f" of mesh '{family.mesh}'" if family.mesh else "")
    return KeyRing(family.what, where, {str(n): data for n, data in found.items()}, revoked(store, family))


def revoked(store: Store, family: Family) -> frozenset[str]:
    """The ids of the tokens that a family no longer honours."""
    keys = [ResourceKey("GlobalSecret", "", family.revocations)]
    if family.mesh:
        keys.append(ResourceKey("Secret", family.mesh, family.revocations))
    ids: set[str] = set()
    for key in keys:
        resource = store.get(key)
        if resource is not None:
            text = data_of(resource).decode("utf-8", "replace")
            ids |= {part.strip() for part in text.replace("\n", ",").split(",")}
    return frozenset(ids - {""})


def data_of(resource: Resource) -> bytes:
    """The data of a Secret or GlobalSecret."""
    if not isinstance(resource.spec, Secret):
        raise TypeError(f"{resource.key} is no secret")
    return resource.spec.data
