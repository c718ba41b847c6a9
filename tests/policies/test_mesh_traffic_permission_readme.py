"""Every example of the README is a valid policy that decides what the text says."""

import re
from pathlib import Path

import pytest
import yaml

from meshd import policies
from meshd.policies.mesh_traffic_permission import TYPE, permit_for
from tests.policies.mtp import mtp, view
from tests.topology.builders import dataplane, inbound

README = Path(policies.__file__).parent / "mesh_traffic_permission" / "README.md"
EXAMPLES = {d["name"]: d for d in map(yaml.safe_load, re.findall(r"```yaml\n(.*?)```", README.read_text(), re.DOTALL))}
PAYMENTS = dataplane("dp", inbound("payments", 8080, name="http"), labels={"app": "payments"})


def verdict(*names, uris):
    wanted = view(*(mtp(name, EXAMPLES[name]["spec"]) for name in names))
    found = permit_for(wanted, PAYMENTS, PAYMENTS.spec.networking.inbound[0].tags).decide(uris)
    return found.allowed, found.rule, found.shadow_denied


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_examples_are_valid(name):
    document = EXAMPLES[name]
    assert document.keys() == {"type", "mesh", "name", "spec"}
    assert document["type"] == TYPE.kind
    assert TYPE.validate(mtp(name, document["spec"])) == ()


def test_allow_all():
    assert verdict("allow-all", uris=["spiffe://default/any"]) == (True, "allow-all", False)


@pytest.mark.parametrize(
    ("uris", "expected"),
    [
        (["spiffe://default/any"], (False, False)),
        (["spiffe://default/shop", "kuma://version/v1"], (False, False)),
        (["spiffe://default/shop", "kuma://version/v2"], (True, False)),
        (["spiffe://default/x", "kuma://team/audit"], (True, True)),
    ],
)
def test_payments_only_from_shop(uris, expected):
    allowed, rule, shadow = verdict("allow-all", "payments-only-from-shop", uris=uris)
    assert (allowed, shadow) == expected
    assert rule == "payments-only-from-shop"


@pytest.mark.parametrize(
    ("uris", "expected"),
    [
        (["spiffe://default/shop"], (True, "payments-by-identity", False)),
        (["spiffe://default/shopping"], (True, "payments-by-identity", False)),
        (["spiffe://default/shop-legacy"], (False, "payments-by-identity", False)),
        (["spiffe://default/batch"], (True, "payments-by-identity", True)),
        (["spiffe://default/any"], (False, "default", False)),
    ],
)
def test_payments_by_identity(uris, expected):
    assert verdict("allow-all", "payments-by-identity", uris=uris) == expected
