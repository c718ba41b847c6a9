"""Resources as objects of Kubernetes: against recorded answers of a Kuma with the same resources.

``testdata/kuma-2.14.3-kubernetes.json`` was recorded from kuma-cp 2.14.3 (universal); without times, and without the
``routing: {}`` that Kuma writes into a Mesh.
"""

import json
from pathlib import Path

import pytest

from tests.rest.support import MESH, STANDALONE, Plane, dataplane, path_of

RECORDED = json.loads((Path(__file__).parent / "testdata/kuma-2.14.3-kubernetes.json").read_text())


@pytest.mark.parametrize("kind", sorted(RECORDED))
async def test_objects_are_those_of_kuma(kind, tmp_path):
    recorded = RECORDED[kind]
    plane = Plane(tmp_path, STANDALONE)
    await plane.add(MESH, recorded["document"])
    for form in ("k8s", "kubernetes"):
        found = (await plane.get(f"{path_of(recorded['document'])}?format={form}")).json()
        assert found["metadata"].pop("creationTimestamp") == "2026-03-04T05:06:07Z"
        assert found == recorded["kubernetes"]


async def test_labels_of_an_author_stay_and_those_of_a_control_plane_go(tmp_path):
    plane = Plane(tmp_path, STANDALONE)
    await plane.add(MESH)
    labels = {"kuma.io/effect": "shadow", "team": "a"}
    spec = {"to": [{"targetRef": {"kind": "Mesh"}, "default": {"connectionTimeout": "1s"}}]}
    await plane.put({"type": "MeshTimeout", "mesh": "default", "name": "t", "labels": labels, "spec": spec})
    assert "kuma.io/origin" in plane.stored("MeshTimeout", "default", "t").labels
    found = (await plane.get("/meshes/default/meshtimeouts/t?format=k8s")).json()
    assert found["metadata"]["labels"] == {"kuma.io/mesh": "default", **labels}


async def test_the_namespace_can_be_another_where_there_is_one(tmp_path):
    plane = Plane(tmp_path, STANDALONE)
    await plane.add(MESH, dataplane())
    found = (await plane.get("/meshes/default/dataplanes/web-1?format=k8s&namespace=shop")).json()
    assert found["metadata"]["namespace"] == "shop"
    assert "namespace" not in (await plane.get("/meshes/default?format=k8s&namespace=shop")).json()["metadata"]


async def test_another_format_is_refused(tmp_path):
    plane = Plane(tmp_path, STANDALONE)
    await plane.add(MESH)
    answer = await plane.get("/meshes/default?format=xml")
    assert answer.status_code == 400
    [cause] = answer.json()["causes"]
    assert cause == {"field": "format", "message": "must be one of k8s, kubernetes, universal, not 'xml'"}
