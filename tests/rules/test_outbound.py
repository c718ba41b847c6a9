from typing import Any

import pytest

from meshd.model.resource import Resource, ResourceKey, Spec
from meshd.rules.match import by_specificity, of_proxy
from meshd.rules.outbound import conf_of, to_entries
from meshd.rules.target_ref import TargetRef
from tests.topology.builders import dataplane

CLIENT = dataplane("client-1", "client", labels={"kuma.io/zone": "zone-a"})


class Conf(Spec):
    a: str | None = None
    b: str | None = None


class To(Spec):
    target_ref: TargetRef
    default: Conf


class Policy(Spec):
    target_ref: TargetRef | None = None
    to: tuple[To, ...] = ()


def policy(name: str, *to: tuple[dict[str, Any], dict[str, Any]], top: Any = None, labels: Any = None) -> Resource:
    entries = [{"targetRef": ref, "default": conf} for ref, conf in to]
    spec = Policy.model_validate({"to": entries, **({"targetRef": top} if top else {})})
    return Resource(ResourceKey("P", "default", name), spec, labels or {})


def route(name: str, **labels: str) -> Resource:
    return Resource(ResourceKey("MeshHTTPRoute", "default", name), Spec(), labels)


def conf(*policies: Resource, service: str = "db", routes: tuple[Resource, ...] = ()) -> dict[str, Any] | None:
    matched = of_proxy(policies, CLIENT)
    entries = to_entries(matched, lambda spec: [(t.target_ref, t.default) for t in spec.to])  # type: ignore[attr-defined]
    found = conf_of(entries, service, routes)
    return None if found is None else found.model_dump(exclude_unset=True)


MESH = {"kind": "Mesh"}


def service(name: str, **more: str) -> dict[str, Any]:
    return {"kind": "MeshService", "name": name, **more}


@pytest.mark.parametrize(
    ("policies", "expected"),
    [
        ([], None),
        ([policy("p", (MESH, {"a": "1"}))], {"a": "1"}),
        ([policy("p", (service("db"), {"a": "1"}))], {"a": "1"}),
        ([policy("p", (service("other"), {"a": "1"}))], None),
        ([policy("p", ({"kind": "MeshExternalService", "name": "db"}, {"a": "1"}))], None),
        ([policy("p", ({"kind": "MeshMultiZoneService", "name": "db"}, {"a": "1"}))], None),
        ([policy("p", ({"kind": "MeshHTTPRoute", "name": "r"}, {"a": "1"}))], None),
        # an entry about the service beats one about the mesh, wherever it stands
        ([policy("p", (service("db"), {"a": "1"}), (MESH, {"a": "2", "b": "2"}))], {"a": "1", "b": "2"}),
        ([policy("z", (service("db"), {"a": "1"})), policy("a", (MESH, {"a": "2"}))], {"a": "1"}),
        ([policy("p", (service("db", sectionName="x"), {"a": "1"}), (service("db"), {"a": "2"}))], {"a": "1"}),
        # but a more specific policy beats both
        (
            [policy("z", (MESH, {"a": "1"}), top=service("client")), policy("a", (service("db"), {"a": "2"}))],
            {"a": "1"},
        ),
        # of equals the first name, and in one policy the last entry
        ([policy("b", (MESH, {"a": "1"})), policy("a", (MESH, {"a": "2"}))], {"a": "2"}),
        ([policy("p", (MESH, {"a": "1"}), (MESH, {"a": "2"}))], {"a": "2"}),
    ],
)  # fmt: skip
def test_what_a_destination_gets(policies, expected):
    assert conf(*policies) == expected


@pytest.mark.parametrize(
    ("made", "routes", "expected"),
    [
        (policy("p", ({"kind": "MeshHTTPRoute", "name": "r"}, {"a": "2"})), (route("r"),), "2"),
        (policy("p", ({"kind": "MeshHTTPRoute", "name": "r"}, {"a": "2"})), (route("s"), route("r")), "2"),
        (policy("p", ({"kind": "MeshHTTPRoute", "name": "r"}, {"a": "2"})), (route("s"),), "1"),
        (policy("p", ({"kind": "MeshHTTPRoute", "labels": {"x": "y"}}, {"a": "2"})), (route("r", x="y"),), "2"),
        (policy("p", (MESH, {"a": "2"}), top={"kind": "MeshHTTPRoute", "name": "r"}), (route("r"),), "2"),
        (policy("p", (MESH, {"a": "2"}), top={"kind": "MeshHTTPRoute", "name": "r"}), (route("s"),), "1"),
        (policy("p", (MESH, {"a": "2"}), top={"kind": "MeshHTTPRoute", "name": "r"}), (), "1"),
        (
            policy(
                "p",
                ({"kind": "MeshExternalService", "name": "e"}, {"a": "2"}),
                top={"kind": "MeshHTTPRoute", "name": "r"},
            ),
            (route("r"),),
            "1",
        ),
    ],
)
def test_what_a_route_gets(made, routes, expected):
    everywhere = policy("all", (service("db"), {"a": "1"}))
    assert conf(made, everywhere, routes=routes) == {"a": expected}


def test_a_policy_of_a_zone_is_about_routes_of_the_zone():
    labels = {"kuma.io/origin": "zone", "kuma.io/zone": "zone-a"}
    made = policy("p", ({"kind": "MeshHTTPRoute", "name": "r"}, {"a": "1"}), labels=labels)
    mine = route("r", **{"kuma.io/zone": "zone-a"})
    theirs = route("r", **{"kuma.io/zone": "zone-b"})
    assert conf(made, routes=(mine,)) == {"a": "1"}
    assert conf(made, routes=(theirs,)) is None


def test_order_does_not_depend_on_how_policies_came():
    policies = [policy(name, (MESH, {"a": name})) for name in "dbca"]
    assert [p.key.name for p in by_specificity(policies)] == ["d", "c", "b", "a"]
    assert conf(*policies) == conf(*reversed(policies)) == {"a": "a"}
