"""The whole path across hosts: see netns_scenario.py."""

import ipaddress
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.netns, pytest.mark.slow]


def namespaces_permitted():
    return subprocess.run(["unshare", "-Urnm", "true"], capture_output=True).returncode == 0


@pytest.mark.skipif(not namespaces_permitted(), reason="user namespaces are not permitted on this machine")
def test_a_host_per_zone(tmp_path):
    out = subprocess.run(
        ["unshare", "-Urnm", "--fork", "--kill-child", sys.executable, "-m", "tests.e2e.netns_scenario", str(tmp_path)],
        capture_output=True, text=True, timeout=240, cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert out.returncode == 0, out.stdout[-6000:] + out.stderr[-3000:]
    seen = json.loads(out.stdout.splitlines()[-1])
    print(json.dumps(seen, indent=1))
    assert ipaddress.ip_address(seen["vip"]) in ipaddress.ip_network("240.0.0.0/4")
    assert seen["curl"].startswith("payments-zone-")
    assert seen["egress connections"] >= 15
    assert seen["link down: failed"] == 0
    assert seen["link down: only own zone after 10 s"]
