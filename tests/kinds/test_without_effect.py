import json
from pathlib import Path

import pytest

from meshd.cli.known import registry
from meshd.kinds.without_effect import EFFECTLESS, JSON, WITHOUT_EFFECT
from meshd.model.codec import (
    decode_document,
    encode_document,
    spec_from_text,
    spec_from_wire,
    spec_to_text,
    spec_to_wire,
)
from meshd.model.errors import InvalidError
from meshd.policies import discover

DOCUMENTS = json.loads((Path(__file__).parent / "testdata" / "kuma-2.14.3-without-effect.json").read_text())
"""One resource of each of these kinds, as a Kuma 2.14.3 zone prints it after ``kumactl apply``."""
STAMPS = ("creationTime", "modificationTime", "kri")


def test_there_is_a_document_of_every_kind():
    assert {document["type"] for document in DOCUMENTS} == EFFECTLESS


def test_a_kind_that_has_an_effect_is_not_among_them():
    assert EFFECTLESS.isdisjoint(policy.type.kind for policy in discover())


def without_stamps(document):
    return {name: value for name, value in document.items() if name not in STAMPS}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: d["type"])
def test_what_kuma_prints_is_taken_and_printed_without_loss(document):
    resource = decode_document(document, registry())
    printed = encode_document(resource, registry())
    assert without_stamps(printed) == {k: v for k, v in without_stamps(document).items() if k != "snis"}
    type_ = registry()[document["type"]]
    assert spec_from_wire(type_, spec_to_wire(type_, resource.spec)) == resource.spec
    assert spec_from_text(type_, spec_to_text(type_, resource.spec)) == resource.spec


@pytest.mark.parametrize("type_", JSON, ids=lambda t: t.kind)
def test_what_a_newer_peer_says_is_kept(type_):
    data = b'{"newer":{"deep":[1,2.5,"x"]}}'
    assert spec_to_wire(type_, spec_from_wire(type_, data)) == data
    assert spec_to_text(type_, spec_from_text(type_, data.decode())) == data.decode()


POLICY = {"mesh": "default", "name": "p"}


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ({"type": "MeshTLS", **POLICY, "spec": {"too": []}}, "spec.too: unknown field"),
        ({"type": "MeshHealthCheck", **POLICY, "spec": {"to": [{"default": {}}]}}, "spec.to[0].targetRef: is required"),
        (
            {"type": "MeshTrace", **POLICY, "spec": {"targetRef": {"kind": "Mash"}, "default": {}}},
            'spec.targetRef.kind: "Mash" is no kind of target; did you mean "Mesh"',
        ),
        ({"type": "MeshMetric", **POLICY, "spec": {}}, "spec.default: is required"),
        ({"type": "MeshRateLimit", **POLICY, "spec": {"from": {}}}, "spec.from: must be a list"),
        (
            {"type": "MeshZoneAddress", **POLICY, "spec": {"address": "a", "port": "1"}},
            "spec.port: must be a whole",
        ),
        ({"type": "TrafficTrace", **POLICY, "conf": {"backend": "x"}}, "selectors: must have at least one element"),
        (
            {
                "type": "TrafficPermission",
                **POLICY,
                "sources": [{"match": {}}],
                "destinations": [{"match": {"a": "b"}}],
            },
            "sources[0].match: must have at least one tag",
        ),
    ],
)
def test_the_outline_is_checked(document, problem):
    with pytest.raises(InvalidError) as caught:
        decode_document(document, registry())
    assert any(problem in str(violation) for violation in caught.value.violations)


def test_the_table_has_each_kind_once():
    assert len(WITHOUT_EFFECT) == len(EFFECTLESS) == 33
