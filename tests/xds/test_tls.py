import pytest

from meshd.ca.identity import Credentials, Identity, TrustBundle, no_credentials
from meshd.xds import clusters, listeners, tls
from meshd.xds.resources import CLUSTER, LISTENER, SECRET, resource
from tests.ca.builders import NOW
from tests.xds.support import GOLDENS, document_of, golden_text

IDENTITY = Identity("default", ("spiffe://default/web",), b"the chain\n", b"the key\n", NOW, NOW)
TRUST = TrustBundle("default", b"the roots\n")


def upstream(socket):
    return {**clusters.eds("backend"), "transportSocket": socket}


def contexts(socket):
    """SNI, and what the peer's certificate must say."""
    config = document_of(resource(CLUSTER, upstream(socket)))["transportSocket"]["typedConfig"]
    validation = config["commonTlsContext"]["combinedValidationContext"]["defaultValidationContext"]
    return config.get("sni"), [san["matcher"] for san in validation["matchTypedSubjectAltNames"]]


def test_both_sides(golden):
    cluster = upstream(tls.outbound("default", "backend", "backend{mesh=default}"))
    listener = listeners.listener("inbound:10.0.0.1:80", "10.0.0.1", 80, "INBOUND")
    filters = [listeners.network_filter(listeners.tcp_proxy("backend", "backend"))]
    listener["filterChains"] = [listeners.chain(filters, None, tls.inbound("default"))]

    golden(GOLDENS / "tls.yaml", golden_text([resource(CLUSTER, cluster), resource(LISTENER, listener)]))


def test_a_service_must_show_its_own_name():
    assert contexts(tls.outbound("default", "backend", "the sni")) == (
        "the sni",
        [{"exact": "spiffe://default/backend"}],
    )


def test_a_service_may_have_other_names():
    _, expected = contexts(tls.outbound("default", "backend", "the sni", ("a", "b")))

    assert expected == [{"exact": "spiffe://default/a"}, {"exact": "spiffe://default/b"}]


def test_anyone_of_the_mesh_is_anyone_of_this_mesh():
    assert contexts(tls.outbound_to_any("default")) == (None, [{"prefix": "spiffe://default/"}])


@pytest.mark.parametrize(
    ("tags", "expected"),
    [({}, "backend{mesh=default}"), ({"version": "v1", "a": "b"}, "backend{a=b,mesh=default,version=v1}")],
)
def test_sni(tags, expected):
    assert tls.sni_of("backend", "default", tags) == expected


def test_secrets_say_what_is_shown_and_trusted():
    found = [document_of(resource(SECRET, s)) for s in tls.secrets("default", Credentials(IDENTITY, TRUST))]

    assert [(s["name"], [k for k in s if k not in ("@type", "name")]) for s in found] == [
        ("identity_cert:secret:default", ["tlsCertificate"]),
        ("mesh_ca:secret:default", ["validationContext"]),
    ]


@pytest.mark.parametrize(
    ("credentials", "expected"),
    [
        (Credentials(None, TRUST), ["mesh_ca:secret:default"]),
        (Credentials(IDENTITY, TrustBundle("default", b"")), ["identity_cert:secret:default"]),
        (no_credentials("default"), []),
    ],
)
def test_there_is_no_secret_of_nothing(credentials, expected):
    assert [s["name"] for s in tls.secrets("default", credentials)] == expected
