"""A server's CA and certificate on disk."""

import stat
from datetime import timedelta

import pytest

from meshd.ca.server_certificate import names_of
from meshd.ca.server_files import own_server_files
from meshd.runtime.tls_files import TlsFilesError
from tests.ca.test_server_certificate import names
from tests.ca.test_x509 import NOW

NAMES = names("localhost", addresses=["127.0.0.1"])


def content(files):
    return files.ca_pem, files.certificate.read_bytes(), files.key.read_bytes()


def test_what_was_made_is_used_again(tmp_path):
    made = content(own_server_files(tmp_path / "dp", "a", NAMES, NOW))
    again = content(own_server_files(tmp_path / "dp", "a", NAMES, NOW + timedelta(days=3000)))
    assert made == again
    assert (tmp_path / "dp" / "ca.crt").read_bytes() == made[0]
    assert {stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "dp").iterdir()} == {0o600}
    assert stat.S_IMODE((tmp_path / "dp").stat().st_mode) == 0o700
    assert sorted(p.name for p in (tmp_path / "dp").iterdir()) == ["ca.crt", "ca.key", "server.crt", "server.key"]


def test_a_new_name_makes_a_new_certificate_of_the_same_ca(tmp_path):
    made = content(own_server_files(tmp_path, "a", NAMES, NOW))
    wider = names("localhost", "cp.example", addresses=["127.0.0.1", "10.0.0.7"])
    again = content(own_server_files(tmp_path, "a", wider, NOW))
    assert made[0] == again[0]
    assert made[1] != again[1]
    assert names_of(again[1]) == wider


def test_a_damaged_certificate_is_made_anew(tmp_path):
    files = own_server_files(tmp_path, "a", NAMES, NOW)
    files.key.write_bytes(b"junk")
    again = own_server_files(tmp_path, "a", NAMES, NOW)
    assert files.ca_pem == again.ca_pem
    assert again.key.read_bytes() != b"junk"


def test_a_ca_near_its_end_is_replaced_and_said(tmp_path, caplog):
    made = content(own_server_files(tmp_path, "a", NAMES, NOW))
    again = content(own_server_files(tmp_path, "a", NAMES, NOW + timedelta(days=3640)))
    assert not set(made) & set(again)
    assert "proxies that were started with it must be restarted" in caplog.text


def test_a_ca_that_was_begun_and_not_finished_is_made(tmp_path):
    (tmp_path / "ca.key").write_bytes(b"half")
    assert own_server_files(tmp_path, "a", NAMES, NOW).ca_pem


def test_a_ca_that_is_damaged_or_was_readable_is_not_replaced(tmp_path):
    own_server_files(tmp_path, "a", NAMES, NOW)
    key = tmp_path / "ca.key"
    before = key.read_bytes()
    key.chmod(0o640)
    with pytest.raises(TlsFilesError, match=r"ca\.crt: cannot be kept: .*ca\.key has mode 0640, .*; repair it, or del"):
        own_server_files(tmp_path, "a", NAMES, NOW)
    key.chmod(0o600)
    key.write_bytes(b"junk")
    with pytest.raises(TlsFilesError, match=r"ca\.key: .*is not a valid unencrypted PEM private key.*; repair it, or"):
        own_server_files(tmp_path, "a", NAMES, NOW)
    key.write_bytes(before)
    assert own_server_files(tmp_path, "a", NAMES, NOW).ca_pem


def test_no_place_is_said(tmp_path):
    (tmp_path / "f").write_bytes(b"")
    with pytest.raises(TlsFilesError, match="cannot be kept: Not a directory"):
        own_server_files(tmp_path / "f", "a", NAMES, NOW)
