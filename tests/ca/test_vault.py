import json
import stat
from datetime import timedelta

import pytest

from meshd.ca import x509
from meshd.ca.rotation import Retired, Trust
from meshd.ca.vault import Vault
from tests.ca.builders import NOW, root

HOUR = timedelta(hours=1)


def identity(uris=("spiffe://default/web",), life=HOUR):
    return x509.issue(x509.load_signer(root()), "default", uris, NOW, life)


def files(path):
    return sorted(p for p in path.rglob("*") if p.is_file())


def test_an_identity_comes_back_equal_from_a_private_file(tmp_path):
    saved = identity()
    Vault(tmp_path / "state").save("dataplane/web", saved)
    assert Vault(tmp_path / "state").load("default", "dataplane/web") == saved
    (path,) = files(tmp_path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_saving_again_replaces_and_leaves_nothing_behind(tmp_path):
    vault = Vault(tmp_path)
    vault.save("o", identity())
    vault.save("o", second := identity())
    assert vault.load("default", "o") == second
    assert len(files(tmp_path)) == 1


def test_owners_and_meshes_do_not_mix_and_never_become_paths(tmp_path):
    vault = Vault(tmp_path / "state")
    vault.save("../../../escape", saved := identity())
    vault.save("other", identity())
    assert vault.load("default", "../../../escape") == saved
    assert vault.load("demo", "../../../escape") is None
    assert all((tmp_path / "state") in p.parents for p in files(tmp_path))


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"{}", b'{"format": 1}', b"\xff", b"[" * 100_000, b'{"format":2}'],
)
def test_damaged_files_are_as_good_as_absent(tmp_path, content):
    vault = Vault(tmp_path)
    vault.save("o", identity())
    (path,) = files(tmp_path)
    path.write_bytes(content)
    assert vault.load("default", "o") is None
    assert vault.prune(NOW) == 1
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "value"), [("uris", "a"), ("uris", [1]), ("chain", 1), ("key", "é"), ("notAfter", "soon"), ("mesh", "x")]
)
def test_a_file_with_a_wrong_field_is_not_used(tmp_path, name, value):
    vault = Vault(tmp_path)
    vault.save("o", identity())
    (path,) = files(tmp_path)
    path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))
    assert vault.load("default", "o") is None


def test_a_key_that_others_could_read_is_not_used(tmp_path, caplog):
    vault = Vault(tmp_path)
    vault.save("o", identity())
    (path,) = files(tmp_path)
    path.chmod(0o640)
    assert vault.load("default", "o") is None
    assert "mode 0640" in caplog.text


def test_prune_deletes_expired_identities_and_unfinished_files(tmp_path):
    vault = Vault(tmp_path)
    vault.save("short", identity(life=HOUR))
    vault.save("long", kept := identity(life=3 * HOUR))
    (tmp_path / "identities" / "x.new").write_text("half")
    assert vault.prune(NOW + 2 * HOUR) == 2
    assert vault.load("default", "long") == kept
    assert vault.load("default", "short") is None


def test_roots_come_back_and_can_be_forgotten(tmp_path):
    vault = Vault(tmp_path)
    trust = Trust(b"new\n", NOW, (Retired(b"old\n", NOW + HOUR),))
    vault.save_trust("default", trust)
    assert vault.load_trust("default") == trust
    assert vault.load_trust("demo") is None
    vault.save_trust("default", None)
    assert vault.load_trust("default") is None
    assert files(tmp_path) == []


def test_without_a_directory_nothing_is_kept():
    vault = Vault(None)
    vault.save("o", identity())
    vault.save_trust("default", Trust(b"a", NOW))
    assert vault.load("default", "o") is None
    assert vault.load_trust("default") is None
    assert vault.prune(NOW) == 0
