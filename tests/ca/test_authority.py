import base64
from datetime import timedelta

import pytest

from meshd.ca import authority
from meshd.ca.authority import Materials
from meshd.kinds.mesh import CertificateAuthorityBackend, Mode
from meshd.model.errors import InvalidError
from tests.ca.builders import builtin_secrets, kuma_like_pair, mesh, root


def materials(*secrets, files=None):
    return Materials({s.key.name: s.spec.data for s in secrets}, files or {})


def test_builtin_ca_comes_from_two_secrets():
    found = authority.authority_of(mesh(), materials(*builtin_secrets(root())))
    assert (found.mesh, found.backend, found.mode, found.life) == ("default", "ca-1", Mode.STRICT, timedelta(hours=24))
    assert found.pair == root()
    assert authority.references(mesh()).secrets == ("default.ca-builtin-cert-ca-1", "default.ca-builtin-key-ca-1")


def test_a_kuma_made_ca_signs():
    found = authority.authority_of(mesh(), materials(*builtin_secrets(kuma_like_pair())))
    assert found.signer.certificate.subject.rfc4514_string() == "CN=default,OU=Mesh,O=Kuma"


def test_mesh_without_mtls_has_no_authority_and_no_trust():
    assert authority.authority_of(mesh(enabled=""), materials()) is None
    assert authority.trust_of(mesh(enabled=""), materials(*builtin_secrets(root()))).pem == b""


def test_missing_secrets_are_named():
    with pytest.raises(InvalidError) as caught:
        authority.authority_of(mesh(), materials(builtin_secrets(root())[1]))
    assert "Secret 'default.ca-builtin-cert-ca-1' of mesh 'default' does not exist" in str(caught.value)


PEM = root()
SOURCES = [
    ({"secret": "mine"}, {"mine": PEM.cert_pem}, {}),
    ({"file": "/etc/ca.pem"}, {}, {"/etc/ca.pem": PEM.cert_pem}),
    ({"inline": base64.b64encode(PEM.cert_pem).decode()}, {}, {}),
    ({"inlineString": PEM.cert_pem.decode()}, {}, {}),
]


@pytest.mark.parametrize(("source", "secrets", "files"), SOURCES)
def test_provided_ca_comes_from_every_kind_of_source(source, secrets, files):
    resource = mesh(type_="provided", conf={"cert": source, "key": {"inlineString": PEM.key_pem.decode()}})
    found = authority.authority_of(resource, Materials(secrets, files))
    assert found.pair == PEM
    assert authority.references(resource).secrets == tuple(secrets)
    assert authority.references(resource).files == tuple(files)
    assert authority.check_backends(resource, Materials(secrets, files)) == ()


@pytest.mark.parametrize(
    ("conf", "expected"),
    [
        (None, {"cert": "is missing", "key": "is missing"}),
        ({"cert": {}, "key": {"secret": "a", "file": "b"}}, {"cert": "exactly one", "key": "exactly one"}),
        ({"cert": {"secret": "nope"}, "key": {"file": "/x"}}, {"cert": "does not exist", "key": "No such file"}),
        ({"cert": {"inline": "!"}, "key": {"inlineString": 1}}, {"cert": "not base64", "key": "'inlineString' is not"}),
        ({"cert": {"url": "x"}, "key": "text"}, {"cert": "'url' is not", "key": "exactly one"}),
        ({"cert": {"inlineString": "x"}, "key": {"inlineString": "x"}}, {"cert": "no PEM block", "key": "private key"}),
        (
            {"cert": {"inlineString": PEM.cert_pem.decode()}, "key": {"inlineString": PEM.key_pem.decode()}, "ca": 1},
            {"ca": "is not known"},
        ),
    ],
)
def test_every_fault_of_a_provided_backend_is_named_with_its_field(conf, expected):
    resource = mesh(type_="provided", conf=conf)
    found = authority.check_backends(resource, Materials({}, {"/x": "No such file or directory"}))
    assert [v.field for v in found] == [f"mtls.backends[0].conf.{part}" for part in expected]
    assert all(text in v.message for v, text in zip(found, expected.values(), strict=True))
    with pytest.raises(InvalidError):
        authority.authority_of(resource, Materials({}, {"/x": "No such file or directory"}))


@pytest.mark.parametrize(
    ("conf", "name", "expiration", "fields"),
    [
        (None, "ca-1", "", []),
        ({"caCert": {"RSAbits": 4096, "expiration": "10y"}}, "ca-1", "7d", []),
        ({"caCert": {"RSAbits": 2048.0}}, "ca-1", "1w", []),
        (
            {"caCert": {"RSAbits": 512, "expiration": "soon"}},
            "ca-1",
            "1.5h",
            ["dpCert", "RSAbits", "caCert.expiration"],
        ),
        ({"caCert": {"RSAbits": "2048"}}, "ca-1", "0", ["dpCert", "RSAbits"]),
        ({"caCert": {"RSAbits": True}}, "ca-1", "999999999999y", ["dpCert", "RSAbits"]),
        (None, "Upper", "", ["name"]),
        (None, "a/b", "", ["name"]),
        (None, "x" * 240, "", ["name"]),
    ],
)
def test_options_of_a_builtin_backend_are_checked(conf, name, expiration, fields):
    resource = mesh(conf=conf, expiration=expiration)
    backend = resource.spec.mtls.backends[0].model_copy(update={"name": name})
    found = authority.check_backends(mesh(enabled=name, backends=(backend,)), materials())
    assert len(found) == len(fields)
    assert all(part in v.field for v, part in zip(found, fields, strict=True))


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("10y", timedelta(days=3650)),
        ("2w", timedelta(14)),
        ("90m", timedelta(minutes=90)),
        ("1500ms", timedelta(0, 1.5)),
    ],
)
def test_periods_are_kumas(text, length):
    found = []
    assert authority.period(text, timedelta(), "f", found) == length
    assert found == []


def test_skip_validation_and_unknown_types():
    assert [v.field for v in authority.check_backends(mesh(type_="vault"), materials())] == ["mtls.backends[0].type"]
    assert authority.check_backends(mesh(type_="vault", skip=True), materials()) == ()


def two_backends(enabled):
    backends = [CertificateAuthorityBackend(name=n, type="builtin") for n in ("ca-1", "ca-2")]
    return mesh(enabled=enabled, backends=backends)


def test_trust_has_every_backend_with_the_enabled_one_first():
    secrets = [*builtin_secrets(root()), *builtin_secrets(kuma_like_pair(), backend="ca-2")]
    first, second = (p.cert_pem.strip() + b"\n" for p in (root(), kuma_like_pair()))
    assert authority.trust_of(two_backends("ca-1"), materials(*secrets)).pem == first + second
    assert authority.trust_of(two_backends("ca-2"), materials(*secrets)).pem == second + first
    assert authority.trust_of(two_backends("ca-1"), materials(*secrets[:2])).pem == first
