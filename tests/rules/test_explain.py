"""What is laid open is what decides: the rules of a proxy against the functions by which its traffic is treated."""

from hypothesis import given, settings
from hypothesis import strategies as st

from meshd.model.resource import Resource, ResourceKey, Spec
from meshd.rules import regions
from meshd.rules.explain import Explainer, Sections, document
from meshd.rules.match import of_inbound, of_proxy
from meshd.rules.outbound import conf_of, to_entries
from meshd.rules.target_ref import TargetRef
from tests.topology.builders import dataplane, inbound, mesh

CLIENT = dataplane("web-1", inbound("web", tags={"v": "1"}))


class Conf(Spec):
    a: str | None = None
    b: str | None = None


class Entry(Spec):
    target_ref: TargetRef
    default: Conf


class Policy(Spec):
    target_ref: TargetRef | None = None
    to: tuple[Entry, ...] = ()
    clients: tuple[Entry, ...] = ()


ROUTES = [Resource(ResourceKey("MeshHTTPRoute", "default", name), Policy()) for name in ("r1", "r2")]
SECTIONS = Sections(
    to=lambda spec: [(e.target_ref, e.default) for e in spec.to],
    clients=lambda spec: [(e.target_ref, e.default) for e in spec.clients],
    inbound=lambda spec: [((), e.default) for e in spec.clients],
)

confs = st.fixed_dictionaries({}, optional={"a": st.sampled_from("12"), "b": st.sampled_from("12")})
services = [{"kind": "MeshService", "name": name} for name in ("x", "y")]
tops = st.sampled_from(
    [{"kind": "Mesh"}, {"kind": "MeshService", "name": "web"}, {"kind": "MeshService", "name": "no"}]
)
destinations = st.sampled_from([{"kind": "Mesh"}, *services, {"kind": "MeshHTTPRoute", "name": "r1"}])
groups = st.sampled_from([{"kind": "Mesh"}, *services, {"kind": "MeshSubset", "tags": {"v": "1"}}])


def lists(refs):
    return st.lists(st.fixed_dictionaries({"targetRef": refs, "default": confs}), max_size=3)


@st.composite
def policies(draw):
    found = []
    for number in range(draw(st.integers(0, 3))):
        spec = {"targetRef": draw(tops), "to": draw(lists(destinations)), "clients": draw(lists(groups))}
        key = ResourceKey("P", "default", f"p{number}")
        found.append(Resource(key, Policy.model_validate(spec)))
    if draw(st.booleans()):
        spec = {"targetRef": {"kind": "MeshHTTPRoute", "name": "r2"}, "to": [{"targetRef": {"kind": "Mesh"}}]}
        spec["to"][0]["default"] = draw(confs)
        found.append(Resource(ResourceKey("P", "default", "of-r2"), Policy.model_validate(spec)))
    return found


def named(resource):
    return {"name": resource.key.name, "type": resource.key.kind}


def explained(found):
    rule = Explainer(mesh(), CLIENT, ROUTES, named).rule("P", SECTIONS, found)
    return rule or {"toRules": [], "toResourceRules": [], "fromRules": [], "inboundRules": []}


@settings(max_examples=150)
@given(policies())
def test_it_says_of_each_destination_what_is_done(found):
    rules = explained(found)
    entries = to_entries(of_proxy(found, CLIENT), SECTIONS.to)
    said = {tuple(m["value"] for m in rule["matchers"]): rule["conf"] for rule in rules["toRules"]}
    for service in ("x", "y", "z"):
        conf = conf_of(entries, service)
        assert said.get((service,), said.get(())) == (document(conf) if conf is not None else None)
    under = {rule["resourceMeta"]["name"]: rule["conf"][0] for rule in rules["toResourceRules"]}
    for route in ROUTES:
        conf = conf_of(entries, "", [route])
        assert under.get(route.key.name, under.get("default")) == (document(conf) if conf is not None else None)


@settings(max_examples=150)
@given(policies(), st.sampled_from([{"kuma.io/service": s, **v} for s in "xyz" for v in ({}, {"v": "1"})]))
def test_it_says_of_each_client_what_is_done(found, client):
    rules = explained(found)
    [of] = CLIENT.spec.networking.inbound
    about = of_inbound(found, CLIENT, of)
    groups_ = regions.connected(regions.entries(about, SECTIONS.clients))
    done = [document(rule.conf) for rule in regions.confs_of_client(groups_, {k: [v] for k, v in client.items()})]
    said = [
        rule["conf"]
        for entry in rules["fromRules"]
        for rule in entry["rules"]
        if all((client.get(m["key"]) == m["value"]) is not m["not"] for m in rule["matchers"])
    ]
    assert said == done
    listed = [rule["conf"][0] for entry in rules["inboundRules"] for rule in entry["rules"]]
    assert listed == [document(e.default) for policy in about for e in policy.spec.clients]
