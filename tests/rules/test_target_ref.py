import pytest

from meshd.rules.target_ref import Kind, TargetRef, is_system, subset_of, tags_match, violations

ANY = tuple(Kind)


@pytest.mark.parametrize(
    ("document", "fields"),
    [
        ({"kind": "Mesh"}, []),
        ({"kind": "Mesh", "proxyTypes": ["Sidecar"]}, []),
        ({"kind": "Mesh", "name": "x", "tags": {"a": "b"}, "mesh": "m"}, ["name", "mesh", "tags"]),
        ({"kind": "Mesh", "proxyTypes": []}, ["proxyTypes"]),
        ({"kind": "MeshSubset", "tags": {"team": "a"}}, []),
        (
            {"kind": "MeshSubset", "tags": {"te am": "a", "x": "*", "y": ""}},
            ['tags["te am"]', 'tags["x"]', 'tags["y"]'],
        ),
        ({"kind": "MeshSubset", "name": "x", "sectionName": "y"}, ["name", "sectionName"]),
        ({"kind": "MeshService", "name": "web"}, []),
        ({"kind": "MeshService"}, [""]),
        ({"kind": "MeshService", "name": "We b"}, ["name"]),
        ({"kind": "MeshService", "name": "web", "labels": {"a": "b"}}, ["labels"]),
        ({"kind": "MeshServiceSubset", "name": "web", "tags": {"version": "*"}}, []),
        ({"kind": "MeshServiceSubset", "tags": {"version": "1"}}, ["name"]),
        ({"kind": "Dataplane"}, []),
        ({"kind": "Dataplane", "labels": {"app": "x"}, "sectionName": "http"}, []),
        ({"kind": "Dataplane", "labels": {"app": "x"}, "name": "dp"}, ["labels"]),
        ({"kind": "Dataplane", "tags": {"a": "b"}, "proxyTypes": ["Gateway"]}, ["tags", "proxyTypes"]),
        ({"kind": "MeshGateway", "name": "gw", "tags": {"a": "b"}}, ["tags"]),
    ],
)
def test_what_may_be_written_depends_on_the_kind(document, fields):
    found = violations(TargetRef.model_validate(document), "spec.targetRef", ANY, inbound_policy=True)
    assert [v.field for v in found] == [f"spec.targetRef.{f}" if f else "spec.targetRef" for f in fields]


def test_an_unsupported_kind_is_the_only_violation_and_says_what_is_supported():
    ref = TargetRef.model_validate({"kind": "MeshGateway"})
    (only,) = violations(ref, "t", (Kind.MESH, Kind.DATAPLANE))
    assert str(only) == "t.kind: value 'MeshGateway' is not supported here, use one of Mesh, Dataplane"


@pytest.mark.parametrize(
    ("document", "fields"),
    [
        ({"kind": "MeshGateway", "name": "gw", "tags": {"port": "*"}}, []),
        ({"kind": "MeshGateway", "name": "gw", "tags": {"port": "a b"}}, ['tags["port"]']),
        ({"kind": "MeshService", "name": "x", "tags": {"a": "b"}}, ["tags"]),
    ],
)
def test_some_policies_are_about_single_listeners_of_a_gateway(document, fields):
    found = violations(TargetRef.model_validate(document), "t", ANY, gateway_tags=True)
    assert [v.field for v in found] == [f"t.{f}" for f in fields]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [({}, True), ({"kuma.io/policy-role": "system"}, True), ({"kuma.io/policy-role": "producer"}, False)],
)
def test_whose_policy_it_is(labels, expected):
    assert is_system(labels) is expected


def test_a_section_is_for_inbound_policies():
    ref = TargetRef.model_validate({"kind": "Dataplane", "sectionName": "http"})
    assert [v.field for v in violations(ref, "t", ANY)] == ["t.sectionName"]


def test_groups_of_clients_as_tags():
    def tags(**document):
        return subset_of(TargetRef.model_validate(document))

    assert tags(kind="Mesh") == {}
    assert tags(kind="MeshSubset", tags={"a": "b"}) == {"a": "b"}
    assert tags(kind="MeshService", name="web") == {"kuma.io/service": "web"}
    assert tags(kind="MeshServiceSubset", name="web", tags={"v": "1"}) == {"kuma.io/service": "web", "v": "1"}
    with pytest.raises(ValueError, match="Dataplane"):
        tags(kind="Dataplane")


def test_a_star_asks_only_for_the_tag():
    assert tags_match({"a": "*"}, {"a": "x"})
    assert not tags_match({"a": "*"}, {"b": "x"})
    assert tags_match({}, {})
