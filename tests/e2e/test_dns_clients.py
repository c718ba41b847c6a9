"""Real resolvers and a zone's names: see dns_clients.py."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.test_netns import namespaces_permitted

pytestmark = [pytest.mark.e2e, pytest.mark.netns, pytest.mark.slow]

NEEDED = ("ip", "dig", "curl", "getent", "mount")


@pytest.mark.skipif(not namespaces_permitted(), reason="user namespaces are not permitted on this machine")
@pytest.mark.skipif(not all(map(shutil.which, NEEDED)), reason=f"one of {', '.join(NEEDED)} is not installed")
@pytest.mark.skipif(not Path("/etc/resolv.conf").is_file(), reason="there is no /etc/resolv.conf to bind over")
def test_libc_dig_curl_python_and_go(tmp_path):
    root = str(Path(__file__).parents[2])
    out = subprocess.run(
        ["unshare", "-Urnm", "--fork", "--kill-child", sys.executable, "-m", "tests.e2e.dns_clients", str(tmp_path)],
        capture_output=True, text=True, timeout=180, cwd=root, env={**os.environ, "PYTHONPATH": root},
    )  # fmt: skip
    assert out.returncode == 0, out.stdout[-6000:] + out.stderr[-3000:]
    seen = json.loads(out.stdout.splitlines()[-1])
    print(json.dumps(seen, indent=1))
    vip = seen["vip"]
    assert seen["getent"] == seen["getent, another case"] == [vip]
    assert seen["getent, unknown"] == ""
    assert seen["getent, elsewhere"] == seen["without meshd"] == ["192.0.2.7"]
    assert (seen["dig"], seen["dig, tcp"], seen["dig, unknown"]) == (vip, vip, True)
    assert seen["curl"] == "web"
    assert (seen["python"], seen["python, unknown"]) == (vip, True)
    if "go" in seen:
        found, unknown, elsewhere = seen["go"]
        assert found == f"web.mesh [{vip}] <nil>"
        assert "no such host" in unknown
        assert elsewhere == "www.example.org [192.0.2.7] <nil>"
    assert seen["query"][0] == "web.mesh A: NOERROR"
    assert "  instances: 1 in solo" in seen["query"]
    assert seen["query, unknown"][1] == "  no service of mesh 'default' has this name; did you mean web.mesh?"
    assert seen["status"][-1] == "127.0.0.1:53: answers"
    assert seen["left the mesh"] == []
