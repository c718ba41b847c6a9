import gc
import logging
import resource
import stat

import pytest

from meshd.app.process import allow_many_files, make_directories, make_directory, settle_memory
from meshd.config import ConfigErrors
from tests.config.support import load

ZONE = """\
multizone: {zone: {name: %s}}
general: {workDir: %s}
store: %s
"""


def problems(tmp_path, *texts):
    with pytest.raises(ConfigErrors) as refused:
        make_directories(load(tmp_path, *texts))
    return str(refused.value).replace(f"{tmp_path}/", "").splitlines()


def test_state_is_for_this_user_alone(tmp_path):
    (loaded,) = load(tmp_path, ZONE % ("a", "deep/work", "{type: sqlite}"))
    make_directories([loaded])
    make_directories([loaded])
    made = tmp_path / "deep/work/a"
    assert stat.S_IMODE(made.stat().st_mode) == 0o700


def test_every_directory_that_cannot_be_made_is_named_with_its_setting(tmp_path):
    (tmp_path / "file").write_text("")
    found = problems(
        tmp_path,
        ZONE % ("a", "file", "{type: memory}"),
        ZONE % ("b", "file/below", "{type: sqlite, sqlite: {path: file/x.db}}"),
    )
    assert found == [
        "0.yaml:2: general.workDir: cannot keep state in file/a: Not a directory",
        "1.yaml:2: general.workDir: cannot keep state in file/below/b: Not a directory",
        "1.yaml:3: store.sqlite.path: cannot keep state in file: it is no directory",
    ]


def test_a_directory_of_somebody_else_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda *_: False)  # root may write everywhere
    assert make_directory(tmp_path) == "this user may not write to it"


def test_open_files_are_raised_to_the_hard_limit(caplog):
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    caplog.set_level(logging.DEBUG, "meshd.app.process")
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, before[1]), before[1]))
        allow_many_files()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[1], before[1])
        assert len(caplog.records) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_what_has_started_is_not_collected_again():
    before = gc.get_threshold()
    try:
        settle_memory()
        assert gc.get_freeze_count() > 1000
        assert gc.get_threshold()[:2] == before[:2]
        assert gc.get_threshold()[2] > 1000
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)
