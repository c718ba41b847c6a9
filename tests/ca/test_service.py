import os
import random
import stat
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta

import pytest
import trio
from prometheus_client import CollectorRegistry

from meshd.ca import x509
from meshd.ca.identity import identity_uris, no_credentials
from meshd.ca.offload import in_place
from meshd.ca.service import GRACE, IdentityService, read_file
from meshd.ca.vault import Vault
from meshd.model.resource import ResourceKey
from meshd.store.memory import MemoryStore
from meshd.store.store import Delete, Put
from tests.ca.builders import NOW, builtin_secrets, mesh, root

HOUR, SECOND = timedelta(hours=1), timedelta(seconds=1)
WEB = identity_uris("default", {"kuma.io/service": ["web"]})
API = identity_uris("default", {"kuma.io/service": ["api"]})
SHORT = {"expiration": "10h"}


class World:
    """A store with a mesh, and a time that is that of trio's clock."""

    def __init__(self, path=None):
        self.path = path
        self.began = trio.current_time()
        self.store = MemoryStore(self.now)
        self.registry = CollectorRegistry()

    def now(self):
        return NOW + timedelta(seconds=trio.current_time() - self.began)

    def service(self):
        self.registry = CollectorRegistry()
        return IdentityService(
            self.store,
            state_dir=self.path,
            now=self.now,
            rng=random.Random(1),
            registry=self.registry,
            offload=in_place,
        )

    async def put(self, *resources):
        await self.store.write([Put(r) for r in resources])

    def sample(self, name, **labels):
        return self.registry.get_sample_value(name, labels)

    def issued(self, reason):
        return self.sample("meshd_ca_identities_issued_total", mesh="default", reason=reason) or 0


@asynccontextmanager
async def running(service):
    async with trio.open_nursery() as nursery:
        await nursery.start(service.run)
        yield service
        nursery.cancel_scope.cancel()


async def settled():
    """Let everything happen that needs no time."""
    await trio.sleep(0.001)


@pytest.fixture
async def world(autojump_clock, tmp_path):
    made = World(tmp_path / "state")
    await made.put(mesh(**SHORT), *builtin_secrets(root()))
    return made


def issuer_of(credentials, *numbers):
    """Which of the test roots signed the identity."""
    return [n for n in numbers if x509.is_issued_by(credentials.identity, x509.load_signer(root("default", n)))]


async def test_credentials_come_with_identity_and_trust(world, autojump_clock):
    async with running(world.service()) as service:
        cell = service.credentials("default", "web-1", WEB)
        assert cell.value == no_credentials("default")
        _, credentials = await cell.newer_than(1)
        assert credentials.identity.uris == WEB
        assert credentials.trust.pem == root().cert_pem
        assert issuer_of(credentials, 0) == [0]
        assert service.credentials("default", "web-1", WEB) is cell
        await settled()
        assert cell.version == 2
        assert world.issued("first") == 1


async def test_started_means_served_for_those_who_asked_before(world, autojump_clock):
    service = world.service()
    cell = service.credentials("default", "web-1", WEB)
    async with running(service):
        assert cell.value.identity is not None


async def test_renewal_at_half_life_and_nothing_before(world, autojump_clock):
    async with running(world.service()) as service:
        cell = service.credentials("default", "web-1", WEB)
        await settled()
        first = cell.value.identity
        await trio.sleep(5 * 3600 - 60)
        assert cell.value.identity is first
        await trio.sleep(120)
        second = cell.value.identity
        assert second is not first
        assert timedelta(hours=9.9) < second.not_after - world.now() < 10 * HOUR
        assert cell.version == 3
        await trio.sleep(100 * 3600)
        assert world.issued("half-life") == pytest.approx(21, abs=1)
        assert world.sample("meshd_ca_identity_seconds_left", mesh="default", owner="web-1") > 4.9 * 3600


async def test_new_uris_get_a_new_certificate_in_the_same_cell(world, autojump_clock):
    async with running(world.service()) as service:
        cell = service.credentials("default", "web-1", WEB)
        await settled()
        assert service.credentials("default", "web-1", API) is cell
        assert cell.value.identity.uris == WEB
        await settled()
        assert cell.value.identity.uris == API
        assert (world.issued("first"), world.issued("uris")) == (1, 1)


@pytest.mark.parametrize("expiration", ["4h", "20h"])
async def test_another_life_is_for_the_certificates_that_are_there_too(world, autojump_clock, expiration):
    async with running(world.service()) as service:
        cell = service.credentials("default", "web-1", WEB)
        await trio.sleep(HOUR.total_seconds())
        before = cell.value
        await world.put(mesh(expiration=expiration))
        await settled()
        assert cell.value.trust == before.trust
        left = cell.value.identity.not_after - world.now()
        assert abs(left - int(expiration[:-1]) * HOUR) <= 2 * SECOND
        await world.put(replace(mesh(expiration=expiration), labels={"a": "b"}))
        await settled()
        assert (world.issued("first"), world.issued("life"), cell.version) == (1, 1, 3)
    async with running(world.service()) as service:
        again = service.credentials("default", "web-1", WEB)
        await settled()
        assert again.value == cell.value


async def test_another_life_given_while_nobody_ran_is_seen_at_the_start(world, autojump_clock):
    async with running(world.service()) as service:
        service.credentials("default", "web-1", WEB)
        await settled()
    await world.put(mesh(expiration="4h"))
    async with running(world.service()) as service:
        cell = service.credentials("default", "web-1", WEB)
        await settled()
        assert cell.value.identity.not_after <= world.now() + 4 * HOUR
        assert world.issued("life") == 1


async def test_a_new_ca_is_trusted_first_and_signs_later_and_the_old_one_is_forgotten(world, autojump_clock):
    async with running(world.service()) as service:
        cell = service.credentials("default", "web-1", WEB)
        await settled()
        await world.put(*builtin_secrets(root("default", 1)))
        await settled()
        both = root("default", 1).cert_pem + root().cert_pem
        assert (issuer_of(cell.value, 0, 1), cell.value.trust.pem) == ([0], both)
        await trio.sleep(4.9)
        assert issuer_of(cell.value, 0, 1) == [0]
        await trio.sleep(0.2)
        assert (issuer_of(cell.value, 0, 1), cell.value.trust.pem) == ([1], both)
        await trio.sleep(3600)
        assert (issuer_of(cell.value, 0, 1), cell.value.trust.pem) == ([1], root("default", 1).cert_pem)
        assert world.issued("authority") == 1


async def test_a_restart_reuses_the_certificate_and_changes_nothing(world, autojump_clock):
    async with running(world.service()) as service:
        cell = service.credentials("default", "web-1", WEB)
        await settled()
        before = cell.value
    (path,) = (world.path / "identities").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    async with running(world.service()) as service:
        cell = service.credentials("default", "web-1", WEB)
        await settled()
        assert cell.value == before
        assert world.issued("first") == 0
        await trio.sleep(5 * 3600 + 60)
        assert cell.value != before


async def test_after_half_life_a_restart_replaces_the_old_one_before_it_expires(world, autojump_clock):
    service = world.service()
    async with running(service):
        cell = service.credentials("default", "web-1", WEB)
        await settled()
        before = cell.value.identity
    await trio.sleep(7 * 3600)
    service = world.service()
    cell = service.credentials("default", "web-1", WEB)
    async with running(service):
        assert cell.value.identity not in (None, before)
        assert world.issued("half-life") == 1


@pytest.mark.parametrize("change", ["uris", "ca", "expired"])
async def test_a_restart_does_not_reuse_what_would_not_be_issued_now(world, autojump_clock, change):
    async with running(world.service()) as service:
        cell = service.credentials("default", "web-1", WEB)
        await settled()
        before = cell.value.identity
    uris = WEB
    if change == "uris":
        uris = API
    elif change == "ca":
        await world.put(*builtin_secrets(root("default", 1)))
    else:
        await trio.sleep(11 * 3600)
    async with running(world.service()) as service:
        cell = service.credentials("default", "web-1", uris)
        await settled()
        assert cell.value.identity is not None
        assert cell.value.identity != before
        assert world.issued("first") == 1
        if change == "ca":  # also over a restart: peers may still show the old one
            assert cell.value.trust.pem == root("default", 1).cert_pem + root().cert_pem


async def test_mtls_off_takes_everything_and_on_gives_it_back(world, autojump_clock):
    async with running(world.service()) as service:
        cell = service.credentials("default", "web-1", WEB)
        await settled()
        await world.put(mesh(enabled="", **SHORT))
        await settled()
        assert cell.value == no_credentials("default")
        await world.put(mesh(**SHORT), *builtin_secrets(root("default", 1)))
        await settled()
        assert issuer_of(cell.value, 0, 1) == [1]
        assert cell.value.trust.pem == root("default", 1).cert_pem  # nothing of the old CA


async def test_mesh_and_ca_may_come_later_and_in_any_order(autojump_clock, caplog):
    world = World()
    async with running(world.service()) as service:
        cell = service.credentials("default", "web-1", WEB)
        await settled()
        assert cell.version == 1
        await world.put(mesh())
        await settled()
        assert world.sample("meshd_ca_authority_broken", mesh="default") == 1
        await world.put(*builtin_secrets(root())[:1])
        await settled()
        assert cell.value.identity is None
        await trio.sleep(GRACE.total_seconds() - 1)
        await world.put(*builtin_secrets(root())[1:])
        await settled()
        assert cell.value.identity is not None
        assert world.sample("meshd_ca_authority_broken", mesh="default") == 0
        await trio.sleep(60)
        assert [r.message for r in caplog.records if "CA" in r.message or "Secret" in r.message] == []


async def test_a_ca_that_stays_broken_is_said_once_after_the_grace_and_so_is_its_return(autojump_clock, caplog):
    caplog.set_level("INFO", "meshd.ca.service")
    said = lambda: [r.levelname for r in caplog.records if "CA" in r.message or "Secret" in r.message]  # noqa: E731
    world = World()
    await world.put(mesh())
    async with running(world.service()) as service:
        service.credentials("default", "web-1", WEB)
        await trio.sleep(GRACE.total_seconds() - 1)
        assert said() == []
        await world.put(mesh(expiration="23h"))  # seen again, and not new
        await trio.sleep(2)
        assert said() == ["ERROR"]
        await trio.sleep(600)
        assert said() == ["ERROR"]
        await world.put(*builtin_secrets(root())[:1])
        await settled()
        assert said() == ["ERROR", "ERROR"]  # another reason
        await world.put(*builtin_secrets(root())[1:])
        await settled()
        assert said() == ["ERROR", "ERROR", "INFO"]


async def test_a_broken_ca_takes_nothing_until_the_certificate_expires(world, autojump_clock, caplog):
    async with running(world.service()) as service:
        cell = service.credentials("default", "web-1", WEB)
        await settled()
        before = cell.value
        await world.store.write([Delete(builtin_secrets(root())[1].key)])
        await trio.sleep(10 * 3600 - 60)
        assert cell.value == before
        assert len([r for r in caplog.records if "does not exist" in r.message]) == 1
        await trio.sleep(61)
        assert cell.value.identity is None
        assert cell.value.trust == before.trust
        assert "expired and there is no new one" in caplog.text
        assert world.sample("meshd_ca_identity_seconds_left", mesh="default", owner="web-1") == 0
        await world.put(*builtin_secrets(root()))
        await settled()
        assert cell.value.identity is not None


async def test_an_expired_ca_is_backed_off_and_ten_proxies_open_the_circuit(world, autojump_clock, caplog):
    expired = x509.new_root("default", NOW - timedelta(days=20), life=timedelta(days=10))
    await world.put(*builtin_secrets(expired))
    async with running(world.service()) as service:
        for i in range(12):
            service.credentials("default", f"web-{i}", WEB)
        await settled()
        failures = lambda: world.sample("meshd_ca_issue_failures_total", mesh="default")  # noqa: E731
        assert failures() == 10  # the last two were not even tried
        assert world.sample("meshd_ca_circuits_open") == 1
        await trio.sleep(299)
        assert failures() == 10
        await trio.sleep(2)
        assert failures() == 11  # one probe
        await trio.sleep(3600)
        assert failures() <= 24
        assert "the CA is valid from" in caplog.text
        await world.put(*builtin_secrets(root()))
        await settled()
        assert all(service.credentials("default", f"web-{i}", WEB).value.identity for i in range(12))
        assert world.sample("meshd_ca_circuits_open") == 0


async def test_one_proxy_that_cannot_be_named_harms_no_other(world, autojump_clock):
    async with running(world.service()) as service:
        bad = service.credentials("default", "bad", ("spiffe://default/é",))
        empty = service.credentials("default", "empty", ())
        good = service.credentials("default", "good", WEB)
        await settled()
        assert good.value.identity is not None
        assert bad.value.identity is None
        assert empty.value.identity is None
        await trio.sleep(600)
        assert 2 * 6 <= world.sample("meshd_ca_issue_failures_total", mesh="default") <= 2 * 9


async def test_a_certificate_as_long_as_its_ca_is_not_made_again_and_again(world, autojump_clock, caplog):
    await world.put(*builtin_secrets(x509.new_root("default", NOW, life=HOUR)))
    async with running(world.service()) as service:
        cell = service.credentials("default", "web-1", WEB)
        await settled()
        assert cell.value.identity.not_after == NOW + HOUR
        assert world.sample("meshd_ca_root_seconds_left", mesh="default") == pytest.approx(3600, abs=1)
        await trio.sleep(3599)
        assert world.issued("first") == 1
        assert world.issued("half-life") == 0
        await trio.sleep(10)
        assert cell.value.identity is None


async def test_very_short_lives_do_not_spin(world, autojump_clock):
    await world.put(mesh(expiration="1s"))
    async with running(world.service()) as service:
        cell = service.credentials("default", "web-1", WEB)
        await trio.sleep(60)
        assert cell.value.identity is not None
        assert 30 <= world.issued("first") + world.issued("half-life") <= 130


async def test_provided_ca_files_are_seen_when_they_change(autojump_clock, tmp_path):
    world = World()
    files = {part: tmp_path / part for part in ("cert", "key")}

    def write(pair):
        files["cert"].write_bytes(pair.cert_pem)
        files["key"].write_bytes(pair.key_pem)

    write(root())
    conf = {part: {"file": str(path)} for part, path in files.items()}
    await world.put(mesh(type_="provided", conf=conf))
    async with running(world.service()) as service:
        cell = service.credentials("default", "web-1", WEB)
        await settled()
        assert issuer_of(cell.value, 0, 1) == [0]
        write(root("default", 1))
        await trio.sleep(40)
        assert issuer_of(cell.value, 0, 1) == [1]
        files["key"].unlink()
        await trio.sleep(40)
        assert world.sample("meshd_ca_authority_broken", mesh="default") == 1
        assert issuer_of(cell.value, 0, 1) == [1]


async def test_releasing_forgets_the_key_and_the_gauges(world, autojump_clock):
    async with running(world.service()) as service:
        service.credentials("default", "web-1", WEB)
        await settled()
        assert Vault(world.path).load("default", "web-1") is not None
        await service.release("default", "web-1")
        await service.release("default", "web-1")
        assert Vault(world.path).load("default", "web-1") is None
        assert world.sample("meshd_ca_identity_seconds_left", mesh="default", owner="web-1") is None
        assert world.sample("meshd_ca_root_seconds_left", mesh="default") is None
        await world.store.write([Delete(ResourceKey("Mesh", "", "default"))])
        await settled()


async def test_an_owner_released_while_its_certificate_is_made_leaves_no_key(world, autojump_clock):
    async def slowly(function):
        result = function()
        if function.func is x509.issue:
            nursery.start_soon(service.release, "default", "web-1")
        await trio.sleep(1)
        return result

    service = world.service()
    service._offload = slowly
    async with trio.open_nursery() as nursery:
        service.credentials("default", "web-1", WEB)
        await nursery.start(service.run)
        await trio.sleep(10)
        assert Vault(world.path).load("default", "web-1") is None
        nursery.cancel_scope.cancel()


async def test_a_directory_that_cannot_be_written_costs_only_reuse(world, autojump_clock, caplog):
    world.path.parent.mkdir(exist_ok=True)
    world.path.write_text("a file where the directory should be")
    async with running(world.service()) as service:
        cell = service.credentials("default", "web-1", WEB)
        await settled()
        assert cell.value.identity is not None
        assert world.sample("meshd_ca_unsaved_total") >= 1
        assert "the next start issues anew" in caplog.text


async def test_meshes_are_apart(world, autojump_clock):
    await world.put(mesh("demo"), *builtin_secrets(root("demo"), "demo"))
    async with running(world.service()) as service:
        one = service.credentials("default", "egress", WEB)
        two = service.credentials("demo", "egress", WEB)
        await settled()
        assert one.value.trust.pem == root().cert_pem
        assert two.value.trust.pem == root("demo").cert_pem
        assert one.value.identity != two.value.identity


async def test_with_worker_threads_it_works_too(tmp_path):
    store = MemoryStore(lambda: NOW)
    await store.write([Put(r) for r in (mesh(), *builtin_secrets(root()))])
    service = IdentityService(
        store, state_dir=tmp_path, now=lambda: NOW, rng=random.Random(1), registry=CollectorRegistry()
    )
    async with running(service):
        cell = service.credentials("default", "web-1", WEB)
        with trio.fail_after(10):
            _, credentials = await cell.newer_than(1)
        assert credentials.identity is not None


def test_a_pipe_in_place_of_a_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert read_file(str(tmp_path / "pipe")) == "it is no regular file"
    assert read_file(str(tmp_path / "none")) == "No such file or directory"
