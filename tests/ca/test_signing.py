import pytest

from meshd.ca import signing
from meshd.model.errors import NotFoundError
from meshd.store.memory import MemoryStore
from meshd.store.store import Create
from tests.ca.builders import NOW, global_secret, mesh, secret, signing_pem


async def store_of(*resources):
    store = MemoryStore(lambda: NOW)
    await store.write([Create(r) for r in resources])
    return store


@pytest.mark.parametrize(
    ("name", "serial"),
    [
        ("key", 0),
        ("key-1", 1),
        ("key-10", 10),
        ("key-999999999", 999999999),
        ("key-0", None),
        ("key-01", None),
        ("key--1", None),
        ("key-+1", None),
        ("key-1_0", None),
        ("key-٣", None),
        ("key-1-2", None),
        ("key-", None),
        ("key-9999999999", None),
        ("keys-1", None),
        ("other", None),
    ],
)
def test_serials_are_canonical_numbers(name, serial):
    assert signing.serial_of(name, "key") == serial


async def test_the_highest_serial_signs_and_ten_is_above_nine():
    keys = [global_secret(f"zone-token-signing-key-{n}", signing_pem(n % 2)) for n in (9, 10, 2)]
    store = await store_of(*keys, global_secret("zone-token-signing-key", signing_pem()))
    assert signing.signing_key(store, signing.ZONE).kid == "10"
    assert set(signing.key_ring(store, signing.ZONE).public) == {"0", "2", "9", "10"}


async def test_families_do_not_mix():
    store = await store_of(
        mesh(),
        mesh("default-1"),
        secret("dataplane-token-signing-key-default-1", signing_pem()),
        secret("dataplane-token-signing-key-default-1-5", signing_pem(1), "default-1"),
        global_secret("zone-token-signing-public-key-3", signing_pem()),
        global_secret("user-token-signing-key-4", signing_pem()),
    )
    assert list(signing.key_ring(store, signing.dataplane_family("default")).public) == ["1"]
    assert list(signing.key_ring(store, signing.dataplane_family("default-1")).public) == ["5"]
    assert list(signing.key_ring(store, signing.ZONE).public) == ["3"]
    assert list(signing.key_ring(store, signing.USER).public) == ["4"]


async def test_public_keys_verify_but_do_not_sign():
    store = await store_of(global_secret("zone-token-signing-public-key-1", signing_pem()))
    with pytest.raises(
        NotFoundError, match="Signing Key not found: there is no GlobalSecret 'zone-token-signing-key-1'"
    ):
        signing.signing_key(store, signing.ZONE)


async def test_a_damaged_newest_key_is_not_passed_over_silently():
    store = await store_of(
        global_secret("zone-token-signing-key-1", signing_pem()), global_secret("zone-token-signing-key-2", b"x")
    )
    with pytest.raises(NotFoundError, match="zone-token-signing-key-2 is not"):
        signing.signing_key(store, signing.ZONE)


@pytest.mark.parametrize(
    ("data", "ids"),
    [
        (b"", set()),
        (b"a", {"a"}),
        (b"a,b\n", {"a", "b"}),
        (b" a , b ,\n\nc\n", {"a", "b", "c"}),
        (b"\xff,a", {"\ufffd", "a"}),
    ],
)
async def test_revocations_are_separated_by_commas(data, ids):
    store = await store_of(global_secret("zone-token-revocations", data))
    assert signing.revoked(store, signing.ZONE) == ids


async def test_dataplane_revocations_are_read_from_both_places():
    store = await store_of(
        mesh(),
        secret("dataplane-token-revocations-default", b"a"),
        global_secret("dataplane-token-revocations-default", b"b"),
    )
    assert signing.revoked(store, signing.dataplane_family("default")) == {"a", "b"}
