import socket

import pytest

from meshd.runtime.notify import READY, notify


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_hears_ready(tmp_path, abstract):
    name = f"@meshd-test-{tmp_path.name}" if abstract else str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind("\0" + name[1:] if abstract else name)
        assert notify({"NOTIFY_SOCKET": name}, READY)
        assert receiver.recv(100) == b"READY=1"


def test_without_systemd_nothing_happens():
    assert not notify({}, READY)
    assert not notify({"NOTIFY_SOCKET": "vsock:1:2"}, READY)


def test_a_supervisor_that_is_gone_is_no_reason_to_fail(tmp_path):
    assert not notify({"NOTIFY_SOCKET": str(tmp_path / "none")}, READY)
