from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from meshd.dns.explain import explain
from meshd.dns.render import Rendering
from meshd.model.errors import InvalidError
from meshd.model.steps import finished
from meshd.topology.view import BoundVips, Endpoint, MeshView, Reach, ServiceView, Vip
from tests.dns.support import view, vip

VIPS = {
    "backend": vip("240.0.0.1", "backend.mesh", ports={80: "backend"}),
    "a_b": vip("240.0.0.2", "a_b.mesh", "a.b.mesh", ports={80: "a_b"}),
    "a.b": vip("240.0.0.3", "a.b.mesh", ports={8080: "a.b"}),
    "x" * 64: vip("240.0.0.4", "x" * 64 + ".mesh"),
}
SERVICES = {
    "backend": ServiceView("backend", "http", (), 2, {"zone-c": 1, "zone-b": 3}),
    "without": ServiceView("without", "tcp", (), 1, {}),
}


def rendering(vips: Mapping[str, Vip] = VIPS, bound: BoundVips | None = None, *, recursive: bool = False) -> Rendering:
    made = Rendering("mesh", recursive=recursive)
    finished(made.update(view(vips), bound))
    return made


def here(**more: Any) -> Mapping[str, MeshView]:
    return {"default": replace(view(VIPS), services=SERVICES, **more)}


def told(name: str, qtype: str = "A", *, made: Rendering | None = None, **more: Any) -> Mapping[str, Any]:
    return explain(
        name, qtype, made or rendering(), more.get("views", here()), more.get("mesh", "default"), ("10.0.0.2:53",)
    )


def test_a_service_is_told_with_its_address_and_its_instances_by_zone() -> None:
    assert told("Backend.mesh.") == {
        "name": "backend.mesh",
        "type": "A",
        "mesh": "default",
        "rcode": "NOERROR",
        "answers": ["backend.mesh.           30      IN      A       240.0.0.1"],
        "vip": "240.0.0.1",
        "names": ["backend.mesh"],
        "services": [
            {
                "port": 80,
                "service": "backend",
                "protocol": "http",
                "zones": {"zone-a": 2, "zone-b": 3, "zone-c": 1},
                "dataplanes": [],
                "moreDataplanes": 0,
            }
        ],
        "alsoWantedBy": [],
    }


def test_a_name_that_two_want_says_so() -> None:
    seen = told("a.b.mesh")
    assert (seen["vip"], seen["alsoWantedBy"]) == ("240.0.0.3", ["a_b"])
    assert seen["services"] == [
        {"port": 8080, "service": "a.b", "zones": {}, "reason": "nothing is behind this service now"}
    ]


def test_an_external_service_is_told_with_its_real_addresses() -> None:
    ends = (Endpoint("192.0.2.1", 443, "", 1, 0, Reach.EXTERNAL, {}),)
    resource = view({}).mesh
    services = {"backend": ServiceView("backend", "tcp", ends, 0, {}, external=resource)}
    (service,) = told("backend.mesh", views={"default": replace(view(VIPS), services=services)})["services"]
    assert (service["externalService"], service["addresses"]) == ("default", ["192.0.2.1:443"])


@pytest.mark.parametrize(
    ("name", "more", "rcode", "why"),
    [
        ("bakend.mesh", {}, "NXDOMAIN", "no service of mesh 'default' has this name; did you mean backend.mesh?"),
        ("zzz.mesh", {}, "NXDOMAIN", "no service of mesh 'default' has this name"),
        ("without.mesh", {}, "NXDOMAIN", "service 'without' is there, but has no virtual IP"),
        ("b.mesh", {}, "NOERROR", "names beneath b.mesh exist, itself it has no record"),
        ("mesh", {}, "NOERROR", "mesh is the domain itself"),
        ("example.org", {}, "REFUSED", "is not under mesh, and there are no upstreams"),
        ("backend.mesh", {"made": rendering(bound=BoundVips(frozenset({8080})))}, "NXDOMAIN",
         "has the virtual IP 240.0.0.1, but nothing here listens on port 80 of it yet"),
        ("backend.mesh", {"made": rendering({}), "views": {}}, "NXDOMAIN", "is not here; there are: none"),
        ("backend.mesh", {"made": Rendering("mesh", recursive=False, is_known=False)}, "SERVFAIL",
         "no Mesh has come to this zone yet"),
        ("blue.mesh", {"views": {**here(), "blue": view({"b": vip("240.0.0.9", "blue.mesh")}, "blue")}}, "NXDOMAIN",
         "is a name of mesh 'blue'; this host has the names of 'default'"),
    ],
)  # fmt: skip
def test_why_there_is_no_answer(name: str, more: dict[str, Any], rcode: str, why: str) -> None:
    seen = told(name, **more)
    assert seen["rcode"] == rcode
    assert why in seen["reason"]
    assert seen["answers"] == []


def test_a_type_that_a_name_has_not() -> None:
    assert told("backend.mesh", "MX")["reason"] == "backend.mesh has an address, but no record of this type"


def test_other_names_are_said_to_be_asked_elsewhere() -> None:
    seen = told("example.org", made=rendering(recursive=True))
    assert (seen["rcode"], seen["reason"]) == ("", "example.org is not of this mesh: asked of 10.0.0.2:53")


@pytest.mark.parametrize(
    ("name", "qtype", "field"),
    [("x" * 64, "A", "name"), ("a..b", "A", "name"), ("a", "NONE", "type"), ("a", "TYPE70000", "type")],
)
def test_what_is_no_question_is_refused(name: str, qtype: str, field: str) -> None:
    with pytest.raises(InvalidError) as caught:
        told(name, qtype)
    assert [v.field for v in caught.value.violations] == [field]


def test_a_type_may_be_a_number() -> None:
    assert told("backend.mesh", "TYPE1")["vip"] == "240.0.0.1"
