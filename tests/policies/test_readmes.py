"""Every example of every README is valid and survives every form; the names of the folders are the kinds'."""

import pytest

from meshd.kds import crossing, envelope
from meshd.model.codec import (
    decode_document,
    encode_document,
    spec_from_text,
    spec_from_wire,
    spec_to_text,
    spec_to_wire,
)
from tests.policies.support import FOLDERS, POLICIES, REGISTRY, examples

DOCUMENTS = [document for folder in FOLDERS for document in examples(folder)]


def test_every_policy_has_a_readme_with_examples_of_it():
    assert {document["type"] for document in DOCUMENTS} == {p.type.kind for p in POLICIES}
    assert len(FOLDERS) == len(POLICIES)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: f"{d['type']}-{d['name']}")
def test_examples_are_valid_and_survive_every_form(document):
    resource = decode_document(document, REGISTRY)
    type_ = REGISTRY[document["type"]]
    assert spec_from_wire(type_, spec_to_wire(type_, resource.spec)) == resource.spec
    assert spec_from_text(type_, spec_to_text(type_, resource.spec)) == resource.spec
    printed = encode_document(resource, REGISTRY)
    again = decode_document(printed, REGISTRY)
    assert again.spec == resource.spec
    assert encode_document(again, REGISTRY) == printed


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: f"{d['type']}-{d['name']}")
def test_examples_cross_to_a_zone(document):
    type_ = REGISTRY[document["type"]]
    sent = crossing.to_zone(type_, decode_document(document, REGISTRY))
    arrived = envelope.decode(type_, envelope.encode(type_, sent))
    assert arrived.key == sent.key
    assert arrived.labels["kuma.io/display-name"] == document["name"]
    assert spec_from_wire(type_, arrived.spec) == sent.spec
