"""Every example of the README is a valid policy that decides what the text says."""

import re
from pathlib import Path

import pytest
import yaml

from meshd import policies
from meshd.kinds import KINDS
from meshd.model.codec import decode_document, encode_document, spec_from_wire, spec_to_wire
from meshd.model.registry import Registry
from meshd.policies.mesh_traffic_permission import TYPE, permit_for
from tests.policies.mtp import view
from tests.topology.builders import dataplane, inbound

REGISTRY = Registry((*KINDS, TYPE))
README = Path(policies.__file__).parent / "mesh_traffic_permission" / "README.md"
DOCUMENTS = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", README.read_text(), re.DOTALL)]
EXAMPLES = {document["name"]: decode_document(document, REGISTRY) for document in DOCUMENTS}
PAYMENTS = dataplane("dp", inbound("payments", 8080, name="http"), labels={"app": "payments"})


def verdict(*names, uris):
    wanted = view(*(EXAMPLES[name] for name in names))
    found = permit_for(wanted, PAYMENTS, PAYMENTS.spec.networking.inbound[0].tags).decide(uris)
    return found.allowed, found.rule, found.shadow_denied


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: d["name"])
def test_examples_are_valid_and_survive_every_form(document):
    resource = EXAMPLES[document["name"]]
    assert TYPE.validate(resource) == ()
    assert encode_document(resource, REGISTRY).items() >= document.items()
    assert spec_from_wire(TYPE, spec_to_wire(TYPE, resource.spec)) == resource.spec


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
