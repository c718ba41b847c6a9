"""Files that only this user may read."""

import stat

import pytest

from meshd.ca.private_files import read_private, write_private


def test_a_file_is_replaced_whole_and_private(tmp_path):
    path = tmp_path / "new" / "key"
    for content in (b"one", b"two"):
        write_private(path, content)
        assert read_private(path) == content
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [p.name for p in path.parent.iterdir()] == ["key"]


def test_what_others_may_read_is_refused(tmp_path):
    write_private(tmp_path / "key", b"x")
    (tmp_path / "key").chmod(0o604)
    with pytest.raises(PermissionError, match="mode 0604, others may have read the key in it"):
        read_private(tmp_path / "key")


def test_a_failure_leaves_nothing_behind(tmp_path):
    (tmp_path / "key").mkdir()
    with pytest.raises(OSError):
        write_private(tmp_path / "key", b"x")
    assert [p.name for p in tmp_path.iterdir()] == ["key"]
