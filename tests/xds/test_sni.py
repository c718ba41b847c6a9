from collections import Counter
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from meshd.model.steps import finished
from meshd.topology.view import Group, Reach
from meshd.xds.abilities import Abilities
from meshd.xds.encode import encode
from meshd.xds.resources import LISTENER
from meshd.xds.sni import subsets_of
from meshd.xds.zone_egress import EgressRenderer
from meshd.xds.zone_ingress import IngressRenderer
from tests.l4.lab import egress, endpoint, ingress, service, view
from tests.topology.builders import external
from tests.xds.support import document_of

V1, V2 = (("version", "1"),), (("version", "2"),)


def nothing(*_):
    raise ValueError("nothing can be read")


def new_egress(shape=lambda *_: None, read=nothing):
    return EgressRenderer(shape, read, ipv6=False, system_ca="/ca.pem")


def state(renderer):
    """All that a proxy would be sent."""
    if isinstance(renderer, IngressRenderer):
        listener = renderer.listener(ingress(1), Abilities())
    else:
        listener = renderer.listener(egress(1), Abilities(), {"default", "other"})
    entries = {(type_url, e.name): e.version for type_url, e in renderer.layer.items()}
    return entries, listener and listener.entry.version


def services(drawn):
    """Services by name: the versions of their endpoints, and whether they are outside."""
    found = []
    for name, (versions, outside) in drawn.items():
        reach = Reach.EXTERNAL if outside else Reach.INSTANCE
        several = [endpoint(80 + n, reach=reach, version=version) for n, version in enumerate(versions)]
        resource = external(name, name, "127.0.0.1:80") if outside else None
        groups = tuple(Group({"version": v}, n) for v, n in sorted(Counter(versions).items()))
        found.append(replace(service(name, *several, external=resource), groups={"a": groups}))
    return found


SERVICES = st.dictionaries(
    st.sampled_from(["a", "B", "c"]), st.tuples(st.lists(st.sampled_from(["1", "2"]), max_size=3), st.booleans())
)
STEPS = st.lists(
    st.fixed_dictionaries(
        {
            "meshes": st.dictionaries(
                st.sampled_from(["default", "other"]), st.tuples(SERVICES, st.sampled_from(["STRICT", None]))
            ),
            "subsets": st.frozensets(st.tuples(st.sampled_from(["a", "B", "x"]), st.sampled_from([V1, V2]))),
            "named": st.booleans(),
        }
    ),
    max_size=5,
)


def views_of(step, before):
    """Views and what changed; services that are as they were are the same objects, as the topology has it."""
    views, changed = {}, {}
    for mesh, (drawn, mode) in step["meshes"].items():
        old = before.get(mesh)
        made = services(drawn)
        if old is not None:
            made = [old.ingress_services[s.name] if old.ingress_services.get(s.name) == s else s for s in made]
        views[mesh] = view(ingress=made, egress=made, name=mesh, mode=mode)
        known = old.ingress_services if old is not None else {}
        now = views[mesh].ingress_services
        changed[mesh] = {n for n in known.keys() | now.keys() if known.get(n) is not now.get(n)}
    return views, changed


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_what_is_made_from_differences_is_what_is_made_from_scratch(steps):
    for new in (lambda: IngressRenderer("a"), new_egress):
        renderer, views, told = new(), {}, state(new())[1]
        for step in steps:
            views, changed = views_of(step, views)
            subsets = dict.fromkeys(views, step["subsets"])
            moved = finished(renderer.update(views, changed if step["named"] else None, subsets))
            fresh = new()
            finished(fresh.update(views, None, subsets))
            assert state(renderer) == state(fresh)
            listener = state(renderer)[1]
            assert moved or listener == told
            told = listener


def test_joined_fields_are_the_encoded_document():
    renderer = IngressRenderer("a")
    many = [service(f"s{n}", endpoint(80)) for n in range(3)]
    finished(renderer.update({"default": view(ingress=many)}, None, {}))
    listener = renderer.listener(ingress(1), Abilities(reuse_port=True))
    document = document_of(listener)
    document.pop("@type")
    assert listener.entry.body.endswith(encode(LISTENER, document))


def test_an_endpoint_changes_one_assignment():
    renderer = IngressRenderer("a")
    one, other = service("one", endpoint(80)), service("other", endpoint(81))
    finished(renderer.update({"default": view(ingress=[one, other])}, None, {}))
    before, _ = state(renderer)
    moved = service("other", endpoint(81), endpoint(82))
    assert not finished(renderer.update({"default": view(ingress=[one, moved])}, {"default": {"other"}}, {}))
    after, _ = state(renderer)
    assert {key[0].rpartition(".")[2] + " " + key[1] for key in after if after[key] != before[key]} == {
        "ClusterLoadAssignment default:other"
    }


def test_an_address_that_becomes_known_is_used():
    known = {}
    renderer = IngressRenderer("a", known.get)
    views = {"default": view(ingress=[service("web", endpoint(80, address="web.example"))])}
    finished(renderer.update(views, None, {}))
    empty, listener = state(renderer)
    assert listener is None, "where it listens is not known either"
    known["web.example"] = "10.0.0.1"
    for changed in ({"default": {"web"}}, {"default": None}, None):
        assert not finished(renderer.update(views, changed, {}))
        assert state(renderer)[0] != empty
    known["127.0.0.1"] = "127.0.0.1"
    assert state(renderer)[1] is not None


def test_a_service_that_cannot_be_rendered_keeps_what_it_has_and_the_others_go_on():
    broken = set()

    def shape(_, draft):
        if draft.inbound.service in broken:
            draft.cluster["noSuchField"] = 1

    def outside(name, port):
        return service(name, endpoint(port, reach=Reach.EXTERNAL), external=external(name, name, f"127.0.0.1:{port}"))

    renderer = new_egress(shape)
    finished(renderer.update({"default": view(egress=[outside("a", 1), outside("b", 1)])}, None, {}))
    before, _ = state(renderer)
    broken.add("a")
    finished(renderer.update({"default": view(egress=[outside("a", 2), outside("b", 2)])}, None, {}))
    after, _ = state(renderer)
    assert {name for (_, name), version in after.items() if before[_, name] != version} == {"default:b"}
    assert list(renderer.failed) == [("default", "a")]
    assert "noSuchField" in renderer.failed["default", "a"]
    broken.clear()
    finished(renderer.update({"default": view(egress=[outside("a", 3)])}, None, {}))
    assert renderer.failed == {}


def test_subsets_are_sorted_and_each_is_there_once():
    assert subsets_of([("web", V2), ("web", V1), ("web", V2), ("db", ())]) == {"web": (V1, V2)}
