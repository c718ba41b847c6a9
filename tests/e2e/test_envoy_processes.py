"""Envoys that a whole meshd starts: what becomes of them when it is stopped, killed, and started again."""

import signal

import pytest

from tests.e2e import lab as lab_
from tests.e2e.lab import Lab, eventually, run_by
from tests.ports import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


@pytest.fixture
def lab(tmp_path):
    pytest.importorskip("envoy")
    with Lab(tmp_path) as lab:
        yield lab


def zone(lab, *more, **extra):
    ingress = run_by("envoy", lab_.zone_ingress("in", free_port()))
    lab.configure_zone("z", federated=False, proxies=[ingress, *more], **extra)
    lab.start("z", wait=False)
    return eventually(lambda: pids(lab, 1))


def pids(lab, count):
    """The Envoys of the zone by the beginning of their directories' names, once there are so many."""
    found = {path.parent.name.rsplit("-", 1)[0]: process.pid for path, process in lab.envoys().items()}
    return found if len(found) == count else None


def stop(lab, number=signal.SIGTERM):
    popen = lab.zones["z"].process.popen
    popen.send_signal(number)
    assert popen.wait(20) == 0


def goes_on(lab):
    return "goes on, pid=" in lab.zones["z"].process.text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_by_default_nothing_is_left_running(lab, number):
    zone(lab)
    stop(lab, number)
    assert lab.envoys() == {}
    assert "draining, pid=" in lab.zones["z"].process.text()


def test_a_stop_that_keeps_them_and_a_key_that_does_not(lab):
    first = zone(lab, envoy={"onStop": "keep"})
    stop(lab)
    assert pids(lab, 1) == first
    lab.start("z", wait=False)
    eventually(lambda: goes_on(lab))
    assert pids(lab, 1) == first
    stop(lab, signal.SIGINT)  # Ctrl-C
    assert lab.envoys() == {}


def test_a_kill_leaves_them_and_the_next_start_takes_them_over(lab):
    first = zone(lab)
    lab.zones["z"].process.kill()
    assert pids(lab, 1) == first
    lab.start("z", wait=False)
    eventually(lambda: goes_on(lab))
    assert pids(lab, 1) == first
    stop(lab)
    assert lab.envoys() == {}


def test_one_that_is_gone_from_the_file_is_ended_at_the_start(lab):
    zone(lab)
    lab.zones["z"].process.kill()
    lab.zones["z"].config["proxies"] = []
    lab.rewrite("z")
    lab.start("z")
    eventually(lambda: lab.envoys() == {})
    eventually(lambda: not list((lab.dir / "z" / "z" / "envoy").iterdir()))


def test_selected_dataplanes_have_envoys_while_they_are_there(lab):
    watch = {"engine": "envoy", "dataplanes": {"mesh": "default", "names": "web-*"}, "concurrency": 1}
    zone(lab, watch)
    for name in ("web-1", "db-1"):
        eventually(lambda name=name: lab.put("z", lab_.dataplane(name, "web", free_port(), free_port())))
    found = eventually(lambda: pids(lab, 2))
    assert set(found) == {"zoneingress-in", "dataplane-web-1"}
    lab.delete("z", "/meshes/default/dataplanes/web-1")
    assert eventually(lambda: pids(lab, 1)) == {"zoneingress-in": found["zoneingress-in"]}
    stop(lab)


def test_a_start_that_fails_leaves_none_of_its_own(lab):
    zone(lab)
    stop(lab)
    port = lab.zones["z"].config["apiServer"]["http"]["port"]
    with lab_.socket.create_server(("127.0.0.1", port)):
        popen = lab.start("z", wait=False).popen
        assert popen.wait(30) == 2
    assert lab.envoys() == {}
