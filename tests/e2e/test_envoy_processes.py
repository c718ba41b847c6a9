"""Envoys that a whole meshd starts: what becomes of them when it is stopped, killed, and started again."""

import signal
import threading
import time

import pytest

from tests.e2e import lab as lab_
from tests.e2e.lab import Lab, run_by
from tests.ports import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

WITHIN_S = 40
"""The start of a meshd beside other tests is most of it."""


def eventually(check, within_s=WITHIN_S):
    return lab_.eventually(check, within_s)


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
    assert popen.wait(WITHIN_S) == 0


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
        assert popen.wait(WITHIN_S) == 2
    assert lab.envoys() == {}


def test_traffic_does_not_notice_that_meshd_is_started_again(lab):
    """An Envoy that owns the VIPs, and one with an inbound, over a stop that keeps them and over a kill."""
    application, inbound = free_port(), free_port()
    lab.application("web-1", application)
    client = run_by("envoy", lab_.vip_client("client"), vips=True)
    web = run_by("envoy", lab_.dataplane("web-1", "web", inbound, application))
    lab.configure_zone("z", federated=False, proxies=[client, web], envoy={"onStop": "keep"})
    lab.start("z")
    lab.put("z", lab_.mesh())
    lab.put("z", lab_.allow_all())
    vip = lab.resolve("z", "web.mesh", WITHIN_S)
    eventually(lambda: lab.fetch("z", "web.mesh", vip=vip) == "web-1")
    before = pids(lab, 2)
    assert lab.metrics("z", "meshd_xds_resources_sent_total")
    with Asking(vip, lab_.VIP_PORT) as asking:
        for end in (stop, lambda lab: lab.zones["z"].process.kill()):
            eventually(lambda: asking.answers > 20)
            end(lab)
            asking.answers = 0
            eventually(lambda: asking.answers > 20)  # nobody but the Envoys is there
            lab.start("z")
            assert lab.resolve("z", "web.mesh", 20) == vip
            assert pids(lab, 2) == before
        assert asking.failures == 0
    connected = lambda: lab.metrics("z", "meshd_xds_streams").get('meshd_xds_streams{service="ads"}') == 2  # noqa: E731
    eventually(connected)
    sent = lab.metrics("z", "meshd_xds_resources_sent_total")
    assert sum(sent.values()) == 0, sent
    assert " refused: " not in lab.zones["z"].process.text()
    stop(lab, signal.SIGINT)


class Asking:
    """Asks again and again over new connections."""

    def __init__(self, address, port):
        self.answers = self.failures = 0
        self.is_over = False
        self.thread = threading.Thread(target=self.run, args=[address, port], daemon=True)

    def run(self, address, port):
        while not self.is_over:
            if lab_.ask(address, port) is None:
                self.failures += 1
            else:
                self.answers += 1
            time.sleep(0.01)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.is_over = True
        self.thread.join()
