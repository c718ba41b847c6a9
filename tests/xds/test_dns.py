import json
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.dns.render import table_of
from meshd.dns.wire import name_to_wire
from meshd.model.steps import finished
from meshd.topology.view import Vip
from meshd.xds.abilities import Abilities, Redirect
from meshd.xds.dns import Form, Names, extra_labels, form_of, listener, mapped, reachable, records, updated
from tests.dns.support import view
from tests.xds.support import GOLDENS, dataplane, document_of, golden_text

REDIRECT = Redirect(15006, 15001, ipv6=True)
BACKEND = Vip(
    IPv4Address("240.0.0.0"),
    {80: "backend_test-ns_svc_8080"},
    ("backend_test-ns_svc_8080.mesh", "backend.test-ns.svc.8080.mesh"),
)
HTTPBIN = Vip(IPv4Address("240.0.0.1"), {80: "httpbin", 8080: "httpbin"}, ("httpbin.mesh",))
VIPS = {"backend_test-ns_svc_8080": BACKEND, "httpbin": HTTPBIN}
ENVOY, KUMA_DP = Names(Form.ENVOY, ipv6=True), Names(Form.KUMA_DP, ipv6=True)


def made(kind, vips):
    return finished(updated(kind, vips))


def addresses(names):
    """What is answered, by name."""
    if names.form is Form.KUMA_DP:
        return {r["name"]: r["ips"] for r in json.loads(records(names, ()).body)["records"]}
    (filter_,) = document_of(listener(names, 15054))["listenerFilters"]
    table = filter_["typedConfig"]["serverConfig"]["inlineDnsTable"].get("virtualDomains", [])
    assert all(domain["answerTtl"] == "30s" for domain in table)
    return {domain["name"]: domain["endpoint"]["addressList"]["address"] for domain in table}


def test_listener(golden):
    golden(GOLDENS / "dns.yaml", golden_text([listener(made(ENVOY, VIPS), 15054)]))


def test_listener_without_names(golden):
    """Else who asks gets no answer, and waits for one."""
    golden(GOLDENS / "dns-no-names.yaml", golden_text([listener(made(ENVOY, {}), 15054)]))


def test_records():
    labels = {"kuma.io/zone": "zone-1", "k8s.kuma.io/namespace": "test-ns", "kuma.io/workload": "backend"}

    found = records(made(KUMA_DP, VIPS), extra_labels(dataplane(labels=labels)))

    # Kuma's own golden: pkg/xds/generator/testdata/dns/4-envoy-config.golden.yaml
    assert found.path == "/dns"
    assert found.body == (
        '{"records":[{"name":"backend.test-ns.svc.8080.mesh","ips":["240.0.0.0","::ffff:f000:0"]},'
        '{"name":"backend_test-ns_svc_8080.mesh","ips":["240.0.0.0","::ffff:f000:0"]},'
        '{"name":"httpbin.mesh","ips":["240.0.0.1","::ffff:f000:1"]}],"ttl":30,"extraLabels":'
        '{"k8s_kuma_io_namespace":"test-ns","kuma_io_zone":"zone-1","kuma_workload":"backend","mesh":"default"}}'
    )
    assert found.etag == "3a7819834364a9832e4a7b58cf52f72bc5b33bb1766e86dfd5cfe5afab562693"


@pytest.mark.parametrize("form", Form)
def test_without_ipv6_only_a_is_answered(form):
    assert addresses(made(Names(form, ipv6=False), {"httpbin": HTTPBIN})) == {"httpbin.mesh": ["240.0.0.1"]}


@pytest.mark.parametrize(
    ("address", "expected"),
    [("240.0.0.0", "::ffff:f000:0"), ("240.0.0.1", "::ffff:f000:1"), ("10.20.30.40", "::ffff:a14:1e28")],
)
def test_ipv6_form_of_a_virtual_ip(address, expected):
    assert mapped(IPv4Address(address)) == expected


@pytest.mark.parametrize(
    ("abilities", "form"),
    [
        (Abilities(redirect=REDIRECT, dns_port=15054), Form.ENVOY),
        (Abilities(redirect=REDIRECT, dns_port=15053, embedded_dns=True), Form.KUMA_DP),
        (Abilities(redirect=REDIRECT), None),
        (Abilities(dns_port=15054), None),
        (Abilities(redirect=REDIRECT, dns_port=15054, bind_outbounds=True), None),
    ],
)
def test_who_answers(abilities, form):
    assert form_of(abilities) is form


def test_only_what_can_be_reached_has_a_name():
    assert set(reachable(VIPS, frozenset({"httpbin"}))) == {"httpbin"}
    assert reachable(VIPS, None) is VIPS


@pytest.mark.parametrize("name", ["a/b.mesh", "a:b.mesh", "a b.mesh", "ä.mesh", "", "a\nb"])
def test_a_name_that_envoy_refuses_does_not_cost_the_others(name):
    odd = Vip(IPv4Address("240.0.0.9"), {80: "odd"}, (name, "odd.mesh"))

    assert set(addresses(made(ENVOY, {"odd": odd}))) == {"odd.mesh"}


def test_nothing_is_rendered_anew_if_nothing_changed():
    before = made(ENVOY, VIPS)

    assert made(before, dict(VIPS)) is before


@pytest.mark.parametrize("form", Form)
def test_unchanged_names_keep_their_bytes(form):
    before = made(Names(form, ipv6=True), VIPS)

    after = made(before, {**VIPS, "httpbin": Vip(IPv4Address("240.0.0.7"), {80: "httpbin"}, ("httpbin.mesh",))})

    assert addresses(after)["httpbin.mesh"] == ["240.0.0.7", "::ffff:f000:7"]
    assert after.rendered["backend.test-ns.svc.8080.mesh"] is before.rendered["backend.test-ns.svc.8080.mesh"]


services = st.sampled_from(["a", "a_b", "a.b", "a_b.c", "a.b_c", "b", "odd/one"])


@st.composite
def vip_tables(draw):
    keys = draw(st.lists(services, unique=True, max_size=5))
    tails = draw(st.lists(st.integers(0, 7), unique=True, min_size=len(keys), max_size=len(keys)))
    found = {}
    for key, tail in zip(keys, tails, strict=True):
        spellings = dict.fromkeys((f"{key}.mesh", f"{key.replace('_', '.')}.mesh"))
        found[key] = Vip(IPv4Address("240.0.0.0") + tail, {80: key}, tuple(spellings))
    if draw(st.booleans()):
        found["a.b.mesh"] = Vip(IPv4Address("240.0.0.200"), {80: "ext"}, ("a.b.mesh",))
    return found


@given(st.lists(vip_tables(), min_size=1, max_size=4), st.sampled_from(Form))
def test_changes_lead_to_the_same_as_a_new_start(tables, form):
    names = Names(form, ipv6=True)

    for vips in tables:
        names = made(names, vips)

    fresh = made(Names(form, ipv6=True), tables[-1])
    assert dict(names.rendered) == dict(fresh.rendered)
    assert dict(names.claims) == dict(fresh.claims)


@given(vip_tables())
def test_the_owner_of_a_name_is_who_the_built_in_resolver_thinks(vips):
    theirs = table_of(view(vips), None).contents().names

    for name, ips in addresses(made(ENVOY, vips)).items():
        entry = theirs[name_to_wire(name)]
        assert entry is not None
        assert entry.address == IPv4Address(ips[0]).packed
