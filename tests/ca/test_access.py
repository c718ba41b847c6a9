from datetime import timedelta

import jwt
import pytest

from meshd.ca import access, rsa_pem
from meshd.kinds.dataplane import Dataplane, Inbound, Networking
from meshd.model.errors import DeniedError, InvalidError, NotFoundError
from meshd.model.resource import Resource, ResourceKey
from meshd.store.memory import MemoryStore
from meshd.store.store import Create, Delete, Put
from tests.ca.builders import NOW, global_secret, mesh, secret, signing_pem

DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)


async def a_global():
    store = MemoryStore(lambda: NOW)
    await store.write(
        [
            Create(mesh()),
            Create(secret("dataplane-token-signing-key-default-1", signing_pem())),
            Create(global_secret("zone-token-signing-key-1", signing_pem())),
            Create(global_secret("user-token-signing-key-1", signing_pem())),
        ]
    )
    return store


async def a_zone():
    """A federated zone: it has the public half of the key only."""
    store = MemoryStore(lambda: NOW)
    public = rsa_pem.signing_to_public(signing_pem())
    await store.write([Create(global_secret("zone-token-signing-public-key-1", public))])
    return store


def proxy(name="dp", mesh_name="default", service="web"):
    inbound = Inbound(port=80, tags={"kuma.io/service": service})
    return Resource(
        ResourceKey("Dataplane", mesh_name, name),
        Dataplane(networking=Networking(address="10.0.0.1", inbound=(inbound,))),
    )


async def test_a_zone_token_is_good_where_it_was_made_and_in_a_federated_zone():
    token = access.issue_zone_token(await a_global(), "zone-a", ["cp", "egress"], DAY, NOW)
    for store in (await a_global(), await a_zone()):
        assert access.authenticate_zone(store, token, "zone-a", "cp", NOW).zone == "zone-a"
        assert access.authenticate_zone(store, token, "zone-a", "egress", NOW).scope == ("cp", "egress")


@pytest.mark.parametrize(
    ("zone", "scope", "at", "reason"),
    [
        ("zone-b", "cp", NOW, "zone token is for zone 'zone-a', this is 'zone-b'"),
        ("zone-a", "ingress", NOW, r"scope \[cp, egress\], which does not contain 'ingress'"),
        ("zone-a", "cp", NOW + 2 * DAY, "expired at 2026-03-02T12:00:00"),
    ],
)
async def test_a_zone_that_is_refused_hears_why(zone, scope, at, reason):
    token = access.issue_zone_token(await a_global(), "zone-a", ["cp", "egress"], DAY, NOW)
    with pytest.raises(DeniedError, match=reason):
        access.authenticate_zone(await a_zone(), token, zone, scope, at)


async def test_a_federated_zone_cannot_issue_zone_tokens():
    with pytest.raises(NotFoundError, match=r"^Signing Key not found"):
        access.issue_zone_token(await a_zone(), "zone-a", ["ingress"], DAY, NOW)


async def test_revoking_one_token_and_rotating_the_key():
    store = await a_global()
    tokens = [access.issue_zone_token(store, "zone-a", ["cp"], DAY, NOW) for _ in range(2)]
    token_id = jwt.decode(tokens[0], options={"verify_signature": False})["jti"]
    await store.write([Create(global_secret("zone-token-revocations", f"x,{token_id}\n".encode()))])
    with pytest.raises(DeniedError, match=f"'{token_id}' is revoked"):
        access.authenticate_zone(store, tokens[0], "zone-a", "cp", NOW)
    access.authenticate_zone(store, tokens[1], "zone-a", "cp", NOW)
    await store.write([Create(global_secret("zone-token-signing-key-2", signing_pem(1)))])
    new = access.issue_zone_token(store, "zone-a", ["cp"], DAY, NOW)
    assert jwt.get_unverified_header(new)["kid"] == "2"
    await store.write([Delete(ResourceKey("GlobalSecret", "", "zone-token-signing-key-1"))])
    access.authenticate_zone(store, new, "zone-a", "cp", NOW)
    with pytest.raises(DeniedError, match=r"no signing key '1'.*issue a new token"):
        access.authenticate_zone(store, tokens[1], "zone-a", "cp", NOW)


async def test_a_token_of_one_kind_is_no_token_of_another_even_under_the_same_key():
    """The families have different keys in life; if they had not, the claims would still not fit."""
    store = await a_global()
    user = access.issue_user_token(store, "john", ["mesh-system:admin"], DAY, NOW)
    zone = access.issue_zone_token(store, "zone-a", ["cp"], DAY, NOW)
    with pytest.raises(DeniedError):
        access.authenticate_zone(store, user, "zone-a", "cp", NOW)
    with pytest.raises(DeniedError):
        access.authenticate_user(store, zone, NOW)
    await store.write([Put(global_secret("user-token-signing-key-1", signing_pem(1)))])
    with pytest.raises(DeniedError, match="signature"):
        access.authenticate_user(store, user, NOW)


async def test_a_dataplane_token_is_checked_against_the_resource_and_its_meshs_keys():
    store = await a_global()
    tags = {"kuma.io/service": ["web"]}
    token = access.issue_dataplane_token(store, "default", DAY, NOW, name="dp", tags=tags)
    assert access.authenticate_dataplane(store, token, proxy(), NOW).name == "dp"
    for other, reason in (
        (proxy(name="dq"), "is for 'dp'"),
        (proxy(service="db"), "kuma.io/service=db"),
        (proxy(mesh_name="{0}"), "no signing key '1'"),
    ):
        with pytest.raises(DeniedError, match=reason):
            access.authenticate_dataplane(store, token, other, NOW)


async def test_users_are_authenticated():
    store = await a_global()
    token = access.issue_user_token(store, "john", ["team", "team"], DAY, NOW)
    user = access.authenticate_user(store, token, NOW)
    assert user == access.User("john", ("team", "mesh-system:authenticated"))
    assert not user.is_admin


@pytest.mark.parametrize(
    ("issue", "fields"),
    [
        (lambda s: access.issue_zone_token(s, "a", [], DAY, NOW), ["scope"]),
        (
            lambda s: access.issue_zone_token(s, "", ["cp", "x", "y"], SECOND * 0, NOW),
            ["scope", "scope", "zone", "validFor"],
        ),
        (lambda s: access.issue_zone_token(s, "a", ["cp"], 3651 * DAY, NOW), ["validFor"]),
        (lambda s: access.issue_zone_token(s, "../Zone", ["cp"], DAY, NOW), ["zone"]),
        (lambda s: access.issue_zone_token(s, "z" * 64, ["ingress"], DAY, NOW), ["zone"]),
        (lambda s: access.issue_dataplane_token(s, "", -DAY, NOW, proxy_type="x"), ["mesh", "type", "validFor"]),
        (lambda s: access.issue_user_token(s, "", [], DAY, NOW), ["name"]),
    ],
)
async def test_bad_requests_carry_every_violation(issue, fields):
    store = await a_global()
    with pytest.raises(InvalidError) as caught:
        issue(store)
    assert [v.field for v in caught.value.violations] == fields


async def test_missing_keys_and_meshes_are_not_found():
    store = MemoryStore(lambda: NOW)
    for issue in (
        lambda: access.issue_dataplane_token(store, "nope", DAY, NOW),
        lambda: access.issue_user_token(store, "john", [], DAY, NOW),
    ):
        with pytest.raises(NotFoundError, match=r"^Signing Key not found"):
            issue()
