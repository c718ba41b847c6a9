import json
from pathlib import Path

import pytest

from meshd.cli.known import registry
from meshd.rest import index
from tests.rest.support import GLOBAL, INGRESS, MESH, Plane, dataplane, permission

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


async def test_the_global_insight_counts_what_kuma_counts(tmp_path):
    plane = Plane(tmp_path, GLOBAL)
    secret = {"type": "Secret", "mesh": "default", "name": "s", "data": "aGVsbG8="}
    generator = {
        "type": "HostnameGenerator",
        "name": "hg",
        "spec": {"selector": {"meshService": {"matchLabels": {"a": "b"}}}, "template": "x"},
    }
    seen = {"type": "ZoneInsight", "name": "a", "subscriptions": [{"id": "1", "connectTime": "2026-01-01T00:00:00Z"}]}
    zones = [{"type": "Zone", "name": name, "enabled": True} for name in "ab"]
    await plane.add(MESH, permission(), dataplane(), secret, generator, INGRESS, *zones, seen)
    insight = (await plane.get("/global-insight")).json()
    assert insight["meshes"] == insight["policies"] == {"total": 1}
    assert insight["resources"] == {
        kind: {"total": 1} for kind in ("Dataplane", "HostnameGenerator", "MeshTrafficPermission", "Secret")
    }
    nobody = {"online": 0, "total": 0}
    assert insight["zones"] == {
        "controlPlanes": {"online": 1, "total": 1},
        "zoneIngresses": nobody,
        "zoneEgresses": nobody,
    }
    assert insight["dataplanes"]["standard"] == {"online": 0, "offline": 1, "partiallyDegraded": 0, "total": 1}
