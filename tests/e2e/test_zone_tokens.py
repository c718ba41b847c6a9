"""A zone that cannot prove its name gets nothing, and both ends say why."""

import time
from functools import partial
from pathlib import Path

import pytest

from tests.e2e import lab as lab_
from tests.e2e.lab import Lab, builtin, eventually
from tests.ports import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

CASES = {
    "none": (lambda lab: Path(lab.dir / "zone-b.token").unlink(missing_ok=True), "token"),
    "another zone's": (lambda lab: lab.mint_zone_token("zone-b", claim="zone-a"), "zone-a"),
    "expired": (lambda lab: lab.mint_zone_token("zone-b", valid_for="1s"), "expired"),
    "ingress scope": (lambda lab: lab.mint_zone_token("zone-b", scope=("ingress",)), "scope"),
}


def said(process, offset, reason):
    return reason in process.text()[offset:]


def test_zones_without_the_right_token_are_refused(tmp_path):
    with Lab(tmp_path) as lab:
        lab.configure_global()
        lab.start("global")
        lab.put("global", lab_.mesh())
        ingress = builtin(lab_.zone_ingress("ingress-b", free_port()))
        lab.configure_zone("zone-b", proxies=[ingress])
        for name, (prepare, reason) in CASES.items():
            prepare(lab)
            if name == "expired":
                time.sleep(7)  # a second of life and five of clock skew that verification allows
            seen = {n: len(lab.zones[n].process.text()) if lab.zones[n].process else 0 for n in ("global", "zone-b")}
            lab.start("zone-b")
            for end in ("global", "zone-b"):
                if name == "none" and end == "global":
                    continue  # without a token file the zone does not even call
                process, offset = lab.zones[end].process, seen[end]
                eventually(partial(said, process, offset, reason), 15)
            assert lab.get("zone-b", "/meshes")["items"] == [], name
            assert lab.get("global", "/zoneingresses")["items"] == [], name
            lab.zones["zone-b"].process.stop()
        lab.mint_zone_token("zone-b")
        lab.start("zone-b")
        eventually(lambda: lab.get("zone-b", "/meshes")["items"])
        eventually(lambda: lab.get("global", "/zoneingresses")["items"])
