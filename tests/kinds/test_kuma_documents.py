"""What a real Kuma 2.14.3 zone ("zone-a", Universal) prints for documents that were PUT to it, against what we print.

``testdata/kuma-2.14.3.json`` was recorded from its REST API; times are left out.
"""

import json
from pathlib import Path

import pytest

from meshd.kinds import KINDS
from meshd.kinds.defaults import on_write
from meshd.model.codec import decode_document, encode_document
from meshd.model.registry import Registry

REGISTRY = Registry(KINDS)
CASES = json.loads((Path(__file__).parent / "testdata" / "kuma-2.14.3.json").read_text())
EMPTY_IN_KUMA = {"Mesh plain": {"mtls", "routing"}}
"""Kuma prints "{}" for a section that was written empty; we leave it out, it means the same."""


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c['written']['type']}-{c['written']['name']}")
def test_printed_as_kuma_prints_it(case):
    resource = decode_document(case["written"], REGISTRY)
    resource = on_write(resource, REGISTRY[resource.key.kind], zone="zone-a")
    printed = json.loads(json.dumps(encode_document(resource, REGISTRY)))
    skipped = EMPTY_IN_KUMA.get(str(resource.key), set())
    expected = {key: value for key, value in case["printed"].items() if key not in skipped}
    assert {k: v for k, v in printed.items() if not k.endswith("Time")} == expected


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c['printed']['type']}-{c['printed']['name']}")
def test_what_kuma_prints_can_be_applied_here(case):
    written, printed = (decode_document(case[form], REGISTRY) for form in ("written", "printed"))
    zone_tagged = on_write(written, REGISTRY[written.key.kind], zone="zone-a")
    assert printed.spec == zone_tagged.spec
