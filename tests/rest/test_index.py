import json
from pathlib import Path

import pytest

from meshd.cli.known import registry
from meshd.rest import index

KUMA = json.loads(Path(__file__).with_name("testdata").joinpath("kuma-2.14.3-kinds.json").read_text())
"""What ``/_resources`` and ``/policies`` of a Kuma 2.14.3 global say."""


@pytest.mark.parametrize("recorded", KUMA["resources"], ids=lambda r: r["name"])
def test_every_kind_of_kuma_is_here_and_described_as_there(recorded):
    found = {r["name"]: r for r in index.resources(registry())["resources"]}
    assert found[recorded["name"]] == recorded


def test_there_are_no_other_kinds():
    assert [r["name"] for r in index.resources(registry())["resources"]] == [r["name"] for r in KUMA["resources"]]


def test_policies_are_described_as_in_kuma():
    assert index.policies(registry())["policies"] == KUMA["policies"]
