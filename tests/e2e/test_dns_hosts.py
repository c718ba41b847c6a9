"""Real dnsmasq, CoreDNS, musl, Java and c-ares, and a zone's names: see dns_hosts.py."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.test_netns import namespaces_permitted

pytestmark = [pytest.mark.e2e, pytest.mark.netns, pytest.mark.slow, pytest.mark.xdist_group("dns_hosts")]

NEEDED = ("ip", "dig", "curl", "getent", "mount")
ELSEWHERE = ["192.0.2.7"]


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    if not namespaces_permitted():
        pytest.skip("user namespaces are not permitted on this machine")
    if missing := [tool for tool in NEEDED if shutil.which(tool) is None]:
        pytest.skip(f"not installed: {', '.join(missing)}")
    if not Path("/etc/resolv.conf").is_file():
        pytest.skip("there is no /etc/resolv.conf to bind over")
    root, directory = str(Path(__file__).parents[2]), str(tmp_path_factory.mktemp("hosts"))
    out = subprocess.run(
        ["unshare", "-Urnm", "--fork", "--kill-child", sys.executable, "-m", "tests.e2e.dns_hosts", directory],
        capture_output=True, text=True, timeout=180, cwd=root, env={**os.environ, "PYTHONPATH": root},
    )  # fmt: skip
    assert out.returncode == 0, out.stdout[-6000:] + out.stderr[-3000:]
    found = json.loads(out.stdout.splitlines()[-1])
    print(json.dumps(found, indent=1))
    return found


def of(seen, client):
    """What was seen by a client, or by one behind another."""
    part = seen
    for word in client.split(", "):
        if word not in part:
            pytest.skip(f"{word} is not installed (CoreDNS: also by $COREDNS): {client} was not tried")
        part = part[word]
    return part


def test_dnsmasq_with_the_file_of_install(seen):
    vip = seen["vip"]
    found = of(seen, "dnsmasq")
    assert (found["dig"], found["dig, tcp"], found["dig, unknown"]) == (vip, vip, True)
    assert found["dig, reverse"] == "web.mesh."
    libc = found["libc"]
    assert (libc["web.mesh"], libc["unknown.mesh"], libc["www.example.org"]) == ([vip], [], ELSEWHERE)
    assert found["curl"] == "web"


def test_musl(seen):
    both = f"{seen['vip']} ::ffff:{seen['vip']}"
    assert of(seen, "musl") == [
        f"web.mesh {both}",
        f"WEB.Mesh {both}",
        "unknown.mesh Name does not resolve",
        "www.example.org 192.0.2.7",
    ]


def test_a_pod_behind_coredns_with_the_printed_block(seen):
    vip = seen["vip"]
    libc = of(seen, "coredns")["libc"]
    libc.pop("seconds")
    assert libc == {
        "web.mesh": [vip], "web.mesh.": [vip], "db": ["10.96.7.7"], "unknown.mesh": [], "www.example.org": ELSEWHERE,
    }  # fmt: skip
    assert (of(seen, "coredns")["dig"], of(seen, "coredns")["dig, AAAA"]) == (vip, f"::ffff:{vip}")


def test_a_pod_with_musl(seen):
    both = f"{seen['vip']} ::ffff:{seen['vip']}"
    assert of(seen, "coredns, musl") == [
        f"web.mesh {both}",
        f"web.mesh. {both}",
        "db 10.96.7.7",
        "unknown.mesh Name does not resolve",
        "www.example.org 192.0.2.7",
    ]


def test_a_pod_with_java(seen):
    vip = seen["vip"]
    assert of(seen, "coredns, java") == [
        f"web.mesh {vip}",
        f"web.mesh. {vip}",
        "db 10.96.7.7",
        "unknown.mesh unknown",
        "www.example.org 192.0.2.7",
    ]


def test_a_pod_with_c_ares(seen):
    assert of(seen, "coredns, c-ares") == seen["vip"]


def test_a_zone_that_listens_on_ipv6(seen):
    vip, found = seen["vip"], seen["ipv6"]
    assert (found["dig"], found["dig, tcp"], found["dig, AAAA"]) == (vip, vip, f"::ffff:{vip}")
    assert (found["libc"]["web.mesh"], found["libc"]["unknown.mesh"], found["libc"]["www.example.org"]) == (
        [vip], [], ELSEWHERE,
    )  # fmt: skip
    if "musl" in found:
        assert found["musl"] == [f"web.mesh {vip} ::ffff:{vip}", "unknown.mesh Name does not resolve"]


def test_names_of_the_mesh_never_went_to_the_upstream(seen):
    assert seen["left the mesh"] == []
