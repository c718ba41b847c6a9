import random
from contextlib import asynccontextmanager

import pytest
import trio
from prometheus_client import CollectorRegistry
from trio.testing import wait_all_tasks_blocked

from meshd.ca import access, authority, envoy_admin, rsa_pem, x509
from meshd.ca.keeper import CaKeeper
from meshd.ca.offload import in_place
from meshd.model.errors import ConflictError, UnavailableError
from meshd.model.resource import ResourceKey
from meshd.store.memory import MemoryStore
from meshd.store.store import Create, Delete, Put
from tests.ca.builders import NOW, builtin_secrets, global_secret, mesh, root, signing_pem


@pytest.fixture
def quick_keys(monkeypatch):
    """Keys that are made once a session: what they are is tested in test_x509 and test_rsa_pem."""
    monkeypatch.setattr(rsa_pem, "new_private_key", signing_pem)
    monkeypatch.setattr(x509, "new_root", lambda mesh, *_, **__: root(mesh))


def keeper_of(store, *, federated=False, has_proxies=False, registry=None):
    registry = registry or CollectorRegistry()
    now = lambda: NOW  # noqa: E731
    rng = random.Random(1)
    return CaKeeper(
        store,
        federated=federated,
        has_proxies=has_proxies,
        now=now,
        rng=rng,
        registry=registry,
        offload=in_place,
    )


@asynccontextmanager
async def running(keeper):
    async with trio.open_nursery() as nursery:
        await nursery.start(keeper.run)
        yield
        nursery.cancel_scope.cancel()


def names(store, kind, mesh=None):
    return [r.key.name for r in store.list(kind, mesh)]


def dump(store):
    return [(r.key, r.spec, r.version) for kind in ("Secret", "GlobalSecret") for r in store.list(kind)]


async def test_a_global_gets_every_key_and_ca(quick_keys):
    store = MemoryStore(lambda: NOW)
    await store.write([Create(mesh()), Create(mesh("demo", enabled=""))])
    async with running(keeper_of(store)):
        assert names(store, "GlobalSecret") == [
            "admin-user-token",
            "user-token-signing-key-1",
            "zone-token-signing-key-1",
        ]
        assert names(store, "Secret", "default") == [
            "dataplane-token-signing-key-default-1",
            "default.ca-builtin-cert-ca-1",
            "default.ca-builtin-key-ca-1",
        ]
        assert names(store, "Secret", "demo") == [
            "dataplane-token-signing-key-demo-1",
            "demo.ca-builtin-cert-ca-1",  # a backend that is not enabled yet, as Kuma
            "demo.ca-builtin-key-ca-1",
        ]
    assert {r.owner for r in store.list("Secret", "demo")} == {ResourceKey("Mesh", "", "demo")}


async def test_the_admin_token_is_good_for_an_admin(quick_keys):
    store = MemoryStore(lambda: NOW)
    await keeper_of(store).complete()
    token = store.get(ResourceKey("GlobalSecret", "", "admin-user-token")).spec.data.decode()
    user = access.authenticate_user(store, token, NOW)
    assert user.name == "mesh-system:admin"
    assert user.is_admin


async def test_a_federated_zone_makes_only_what_its_own_api_needs(quick_keys):
    store = MemoryStore(lambda: NOW)
    await store.write([Create(mesh())])
    await keeper_of(store, federated=True).complete()
    assert names(store, "GlobalSecret") == ["admin-user-token", "user-token-signing-key-1"]
    assert names(store, "Secret") == []


@pytest.mark.parametrize("federated", [True, False])
async def test_a_zone_gets_the_ca_of_its_envoys_admin_api_and_a_new_one_for_one_that_is_deleted(quick_keys, federated):
    store = MemoryStore(lambda: NOW)
    async with running(keeper_of(store, federated=federated, has_proxies=True)):
        first = envoy_admin.stored_ca(store.get)
        assert first is not None
        await store.write([Delete(envoy_admin.CA_SECRET)])
        await wait_all_tasks_blocked()
        assert envoy_admin.stored_ca(store.get) not in (None, first)


async def test_a_damaged_ca_of_the_envoys_admin_api_is_told_and_kept(quick_keys, caplog):
    store, registry = MemoryStore(lambda: NOW), CollectorRegistry()
    await store.write([Create(global_secret("envoy-admin-ca", b"nonsense"))])
    await keeper_of(store, has_proxies=True, registry=registry).complete()
    assert store.get(envoy_admin.CA_SECRET).spec.data == b"nonsense"
    assert registry.get_sample_value("meshd_ca_broken") == 1
    assert "GlobalSecret envoy-admin-ca: cert: has no PEM block" in caplog.text


async def test_meshes_and_deletions_are_noticed_while_running(quick_keys):
    store = MemoryStore(lambda: NOW)
    async with running(keeper_of(store)):
        await store.write([Create(mesh())])
        await wait_all_tasks_blocked()
        assert len(names(store, "Secret", "default")) == 3
        await store.write([Delete(ResourceKey("GlobalSecret", "", "admin-user-token"))])
        await wait_all_tasks_blocked()
        assert "admin-user-token" in names(store, "GlobalSecret")
        await store.write([Delete(ResourceKey("Mesh", "", "default"))])
        await wait_all_tasks_blocked()
        assert names(store, "Secret") == []


async def test_nothing_that_is_there_is_touched(quick_keys):
    store = MemoryStore(lambda: NOW)
    mine = [
        global_secret("zone-token-signing-key-7", signing_pem(1)),
        global_secret("user-token-signing-key", signing_pem(1)),
        global_secret("admin-user-token", b"mine"),
    ]
    await store.write([Create(mesh()), *map(Create, builtin_secrets(root("default", 1))), *map(Create, mine)])
    before = dump(store)
    await keeper_of(store).complete()
    assert [r for r in dump(store) if r not in before] == [
        (r.key, r.spec, r.version) for r in store.list("Secret") if "token" in r.key.name
    ]
    assert len(dump(store)) == len(before) + 1
    after = dump(store)
    await keeper_of(store).complete()
    assert dump(store) == after


@pytest.mark.parametrize("half", [0, 1])
async def test_half_a_ca_is_reported_and_not_completed(quick_keys, caplog, half):
    store, registry = MemoryStore(lambda: NOW), CollectorRegistry()
    await store.write([Create(mesh()), Create(builtin_secrets(root())[half])])
    keeper = keeper_of(store, registry=registry)
    await keeper.complete()
    await keeper.complete()
    assert [n for n in names(store, "Secret") if "builtin" in n] == [builtin_secrets(root())[half].key.name]
    assert len([r for r in caplog.records if "is there but" in r.message]) == 1
    assert registry.get_sample_value("meshd_ca_broken") == 1
    await store.write([Delete(builtin_secrets(root())[half].key)])
    await keeper.complete()
    assert len([n for n in names(store, "Secret") if "builtin" in n]) == 2
    assert registry.get_sample_value("meshd_ca_broken") == 0


async def test_what_cannot_be_read_is_reported_and_not_replaced(quick_keys, caplog):
    store = MemoryStore(lambda: NOW)
    await store.write([Create(mesh())])
    damaged = [
        ResourceKey("Secret", "default", "default.ca-builtin-key-ca-1"),
        ResourceKey("Secret", "default", "dataplane-token-signing-key-default-1"),
        ResourceKey("GlobalSecret", "", "zone-token-signing-key-1"),
    ]
    store.unreadable = lambda: dict.fromkeys(damaged, "no json")
    keeper = keeper_of(store)
    await keeper.complete()
    await keeper.complete()
    assert names(store, "Secret") == []
    assert names(store, "GlobalSecret") == ["admin-user-token", "user-token-signing-key-1"]
    for key in damaged:
        assert len([r for r in caplog.records if f"{key} is stored but cannot be read" in r.message]) == 1
    store.unreadable = dict
    await keeper.complete()
    assert len(names(store, "Secret")) == 3


async def test_options_that_cannot_be_met_make_no_ca(quick_keys, caplog):
    store = MemoryStore(lambda: NOW)
    await store.write([Create(mesh(conf={"caCert": {"RSAbits": 10**9}}))])
    await keeper_of(store).complete()
    assert not [n for n in names(store, "Secret") if "builtin" in n]
    assert "RSAbits" in caplog.text


async def test_the_options_of_the_root_are_used():
    store = MemoryStore(lambda: NOW)
    await store.write([Create(mesh(conf={"caCert": {"RSAbits": 3072, "expiration": "2y"}}))])
    await keeper_of(store).complete()
    data = {r.key.name: r.spec.data for r in store.list("Secret")}
    pair = x509.KeyPair(data["default.ca-builtin-cert-ca-1"], data["default.ca-builtin-key-ca-1"])
    signer = x509.load_signer(pair)
    assert signer.key.key_size == 3072
    assert (signer.certificate.not_valid_after_utc - NOW).days == 730
    assert authority.authority_of(store.list("Mesh")[0], authority.Materials(data)) is not None


class Rival(MemoryStore):
    """A store where somebody else is faster: their secret is there just before ours is written."""

    def __init__(self, theirs):
        super().__init__(lambda: NOW)
        self.theirs = theirs

    async def write(self, edits):
        theirs, self.theirs = self.theirs, None
        if theirs is not None and any(getattr(e, "resource", theirs).key == theirs.key for e in edits):
            await super().write([Create(theirs)])
        else:
            self.theirs = theirs
        return await super().write(edits)


async def test_what_somebody_else_creates_at_the_same_moment_wins(quick_keys):
    theirs = global_secret("zone-token-signing-key-1", signing_pem(1))
    store = Rival(theirs)
    async with running(keeper_of(store)):
        await wait_all_tasks_blocked()
        assert store.get(theirs.key).spec.data == signing_pem(1)
        assert len(names(store, "GlobalSecret")) == 3
    with pytest.raises(ConflictError):
        await store.write([Create(theirs)])


async def test_a_bad_user_key_stops_only_the_admin_token(quick_keys, caplog):
    store = MemoryStore(lambda: NOW)
    await store.write([Create(global_secret("user-token-signing-key-1", b"rubbish"))])
    async with running(keeper_of(store)):
        assert "zone-token-signing-key-1" in names(store, "GlobalSecret")
        assert "admin-user-token" not in names(store, "GlobalSecret")
        assert "user-token-signing-key-1 is not" in caplog.text
        await store.write([Put(global_secret("user-token-signing-key-1", signing_pem()))])
        await wait_all_tasks_blocked()
        assert "admin-user-token" in names(store, "GlobalSecret")


async def test_a_store_that_is_away_is_tried_again(quick_keys, autojump_clock):
    class Away(MemoryStore):
        fails = 3

        async def write(self, edits):
            if self.fails:
                self.fails -= 1
                raise UnavailableError("database is away")
            return await super().write(edits)

    store = Away(lambda: NOW)
    with trio.fail_after(60):
        async with running(keeper_of(store)):
            assert len(names(store, "GlobalSecret")) == 3


async def test_keys_are_made_in_a_worker_thread(quick_keys, monkeypatch):
    """The loop goes on while a key is made."""
    ticks = []
    made = []

    def slow():
        trio.from_thread.run(trio.lowlevel.checkpoint)
        made.append(len(ticks))
        return signing_pem()

    monkeypatch.setattr(rsa_pem, "new_private_key", slow)
    store = MemoryStore(lambda: NOW)
    keeper = CaKeeper(
        store, federated=True, has_proxies=False, now=lambda: NOW, rng=random.Random(1), registry=CollectorRegistry()
    )

    async def tick():
        while True:
            ticks.append(1)
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(tick)
        await keeper.complete()
        nursery.cancel_scope.cancel()
    assert made
    assert made[0] > 0
