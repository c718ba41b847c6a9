"""Envoys in a process table."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from meshd.envoy.processes import Found, envoys_under, read_process


@pytest.fixture
def proc(tmp_path):
    def add(pid, *argv):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "cmdline").write_bytes(b"".join(os.fsencode(word) + b"\0" for word in argv))

    (tmp_path / "meminfo").write_text("")
    (tmp_path / "self").mkdir()
    add(1, "/sbin/init")
    add(20, "/opt/envoy", "--config-path", "/s/envoy/a/bootstrap.json", "--concurrency", "1")
    add(21, "python", "/bin/envoy", "--config-path", "/s/envoy/b/bootstrap.json")
    add(22, "/opt/envoy", "--config-path", "/other/envoy/a/bootstrap.json")
    add(23, "/opt/envoy", "--config-path")
    add(24)  # has ended, and nobody asked how
    add(25, "vi", "/s/envoy/a/bootstrap.json")
    (tmp_path / "26").mkdir()  # ended while it was looked at
    return tmp_path


def test_envoys_are_known_by_the_bootstrap_that_they_name(proc):
    found = envoys_under(Path("/s/envoy"), os.getuid(), proc)
    assert {str(path): process.pid for path, process in found.items()} == {
        "/s/envoy/a/bootstrap.json": 20,
        "/s/envoy/b/bootstrap.json": 21,
    }
    assert found[Path("/s/envoy/a/bootstrap.json")].argv[-2:] == ("--concurrency", "1")


def test_those_of_another_user_are_not_ours(proc):
    assert envoys_under(Path("/s/envoy"), os.getuid() + 1, proc) == {}


def test_a_process_of_this_machine():
    argv = (sys.executable, "-c", "import time; time.sleep(60)", "", "--config-path", "/x")
    with subprocess.Popen(argv) as process:
        try:
            deadline = time.monotonic() + 10
            while read_process(process.pid) != Found(process.pid, argv) and time.monotonic() < deadline:
                time.sleep(0.01)  # it is a copy of this one until it becomes another program
            assert read_process(process.pid) == Found(process.pid, argv)
            assert envoys_under(Path("/x"), os.getuid())[Path("/x")].pid == process.pid
        finally:
            process.kill()
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert read_process(process.pid) is None  # a zombie
