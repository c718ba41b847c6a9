from dataclasses import replace

import pytest

from meshd.kinds import KINDS
from meshd.model.registry import Registry
from meshd.model.resource_type import Flow

MESH, ZONE = KINDS[0], KINDS[1]


def test_finds_by_kind():
    registry = Registry(KINDS)
    assert registry["Mesh"] is MESH
    assert registry.get("Nothing") is None
    assert [t.kind for t in registry] == sorted(t.kind for t in KINDS)


@pytest.mark.parametrize(
    ("types", "problem"),
    [
        ([MESH, MESH], "kind Mesh is declared twice"),
        ([MESH, replace(ZONE, path="meshes")], "path meshes is claimed by Mesh and Zone"),
        ([MESH, replace(ZONE, aliases=("meshes",))], "path meshes is claimed by Mesh and Zone"),
        ([MESH, replace(ZONE, short="m")], "short name m is claimed by Mesh and Zone"),
        ([replace(MESH, flow=Flow.ACROSS_ZONES)], "Mesh travels across zones but not from a zone to the global"),
        ([replace(MESH, flow=Flow.ZONE_TO_GLOBAL)], "Mesh is sent by zones but zones may not own any"),
        ([replace(MESH, is_policy=True)], "policy Mesh must belong to a mesh"),
    ],
)
def test_contradictions_are_refused(types, problem):
    with pytest.raises(ValueError, match=problem):
        Registry(types)
