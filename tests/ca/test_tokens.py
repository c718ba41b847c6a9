import base64
import functools
import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta

import jwt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meshd.ca import rsa_pem, tokens
from meshd.model.errors import DeniedError
from tests.ca.builders import NOW, TESTDATA, signing_pem

DAY = timedelta(days=1)
ZONE = tokens.ZoneClaims("zone-a", ("cp", "ingress"))


@functools.cache
def key(kid="1"):
    return tokens.SigningKey(kid, rsa_pem.private_key(signing_pem()))


def ring(public=None, revoked=()):
    public = {"1": rsa_pem.signing_to_public(signing_pem())} if public is None else public
    where = "GlobalSecret 'zone-token-signing-key-{kid}'"
    return tokens.KeyRing("zone token", where, public, frozenset(revoked))


def token(claims=ZONE, now=NOW, valid_for=DAY, kid="1"):
    return tokens.issue(claims, key(kid), token_id="id-1", valid_for=valid_for, now=now)


def signed(payload, headers=None, algorithm="RS256"):
    body = {"exp": NOW.timestamp() + 60, **payload}
    body = {k: v for k, v in body.items() if v is not ...}
    return jwt.encode(body, key().private, algorithm=algorithm, headers={"kid": "1", **(headers or {})})


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def raw(header, payload=b"{}", signature=b"x"):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    return ".".join((b64(header), b64(payload), b64(signature)))


def test_claims_come_back():
    claims = tokens.verify(token(), ring(), NOW)
    assert tokens.zone_claims(claims) == ZONE
    bound = tokens.DataplaneClaims("dp", "default", {"kuma.io/service": ("a", "b")}, "dataplane", "w")
    assert tokens.dataplane_claims(tokens.verify(token(bound), ring(), NOW)) == bound
    user = tokens.UserClaims("john", ("x", "y"))
    assert tokens.user_claims(tokens.verify(token(user), ring(), NOW)) == user


def test_token_has_the_shape_of_kumactls():
    head, body, _ = token().split(".")
    assert base64.urlsafe_b64decode(head + "==") == b'{"alg":"RS256","kid":"1","typ":"JWT"}'
    issued, expires = int(NOW.timestamp()) - 5, int((NOW + DAY).timestamp())
    expected = (
        f'{{"Zone":"zone-a","Scope":["cp","ingress"],"exp":{expires},"nbf":{issued},"iat":{issued},"jti":"id-1"}}'
    )
    assert base64.urlsafe_b64decode(body + "==").decode() == expected


MADE_BY_KUMACTL = [
    ("zone", tokens.zone_claims, tokens.ZoneClaims("zone-a", ("ingress",))),
    (
        "dataplane",
        tokens.dataplane_claims,
        tokens.DataplaneClaims("dp1", "default", {"kuma.io/service": ("api", "web")}, "", "w1"),
    ),
    ("user", tokens.user_claims, tokens.UserClaims("john", ("a", "b"))),
]


@pytest.mark.parametrize(("kind", "read", "expected"), MADE_BY_KUMACTL)
def test_tokens_of_kumactl_are_accepted_with_its_own_public_key(kind, read, expected):
    text = (TESTDATA / f"kumactl-{kind}-token.jwt").read_text().strip()
    public = (TESTDATA / "kumactl-public-key.pem").read_bytes()
    claims = tokens.verify(text, ring({"1": public}), datetime(2027, 1, 1, tzinfo=UTC))
    assert read(claims) == expected


EXPIRED = r"zone token expired at 2026-03-02T12:00:00\+00:00, now it is 2026-03-0"


@pytest.mark.parametrize(
    ("at", "reason"),
    [
        (NOW - timedelta(seconds=10), None),  # back-dated by 5 s, checked with 5 s
        (NOW - timedelta(seconds=11), "not valid before 2026-03-01T11:59:55.*compare the clocks"),
        (NOW + DAY + timedelta(seconds=4), None),
        (NOW + DAY + timedelta(seconds=5), EXPIRED),
        (NOW + timedelta(days=5), EXPIRED),
    ],
)
def test_times_are_checked_with_five_seconds_of_skew(at, reason):
    if reason is None:
        tokens.verify(token(), ring(), at)
    else:
        with pytest.raises(DeniedError, match=reason):
            tokens.verify(token(), ring(), at)


def hs256_with_the_public_key():
    """The classic confusion: the public key as an HMAC secret."""
    head, body = b64(b'{"alg":"HS256","kid":"1"}'), b64(json.dumps({"exp": 2**32, "Zone": "zone-a"}).encode())
    mac = hmac.new(rsa_pem.signing_to_public(signing_pem()), f"{head}.{body}".encode(), hashlib.sha256)
    return f"{head}.{body}.{b64(mac.digest())}"


HOSTILE = {
    "nothing": ("", "no zone token given"),
    "words": ("not a token", "not a JSON Web Token"),
    "not ascii": ("é.é.é", "not a JSON Web Token"),
    "two parts": ("e30.e30", "not a JSON Web Token"),
    "four parts": (lambda: token() + ".e30", "not a JSON Web Token"),
    "header is a list": (raw(b"[]"), "not a JSON Web Token"),
    "header is deep": (raw(b"[" * 8000), "not a JSON Web Token"),
    "oversized": ("a" * 16385, "has 16385 characters; at most 16384"),
    "alg none": (raw({"alg": "none", "kid": "1"}, signature=b""), "algorithm 'none'; only RS256"),
    "alg missing": (raw({"kid": "1"}), "algorithm missing"),
    "alg is a list": (raw({"alg": ["RS256"], "kid": "1"}), "algorithm .*RS256.*; only RS256"),
    "HS256 with the public key": (hs256_with_the_public_key, "algorithm 'HS256'"),
    "RS512 by the right key": (lambda: signed({}, algorithm="RS512"), "algorithm 'RS512'"),
    "crit": (raw({"alg": "RS256", "kid": "1", "crit": ["x"]}), "critical headers"),
    "kid missing": (raw({"alg": "RS256"}), "kid missing; a string"),
    "kid is a number": (raw({"alg": "RS256", "kid": 1}), "kid 1; a string"),
    "kid is a list": (raw({"alg": "RS256", "kid": ["1"]}), "a string is needed"),
    "kid is an object": (raw({"alg": "RS256", "kid": {"a": 1}}), "a string is needed"),
    "kid is empty": (raw({"alg": "RS256", "kid": ""}), "a string is needed"),
    "kid is a path": (raw({"alg": "RS256", "kid": "../../etc/passwd"}), r"no signing key '\.\./\.\./etc/passwd'"),
    "kid is a format": (raw({"alg": "RS256", "kid": "{0.__class__}"}), "there is no signing key"),
    "kid breaks lines": (raw({"alg": "RS256", "kid": "1\nroot logged in"}), r"no signing key '1\?root logged in'"),
    "kid is long": (raw({"alg": "RS256", "kid": "9" * 5000}), r"no signing key '9{32}\.\.\.'"),
    "signature of another": (raw({"alg": "RS256", "kid": "1"}), "signature of the zone token is not by key '1'"),
    "no exp": (lambda: signed({"exp": ...}), r"no expiration \(exp\)"),
    "exp is a text": (lambda: signed({"exp": "2099"}), "exp '2099'; a number"),
    "exp is true": (lambda: signed({"exp": True}), "exp true; a number"),
    "exp is infinite": (lambda: signed({"exp": float("inf")}), "exp Infinity; that is no time"),
    "exp is huge": (lambda: signed({"exp": 10**30}), "that is no time"),
    "nbf is a text": (lambda: signed({"nbf": "now"}), "nbf 'now'; a number"),
    "jti is a number": (lambda: signed({"jti": 7}), "not a string"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_tokens_are_refused_with_the_reason(name):
    text, reason = HOSTILE[name]
    with pytest.raises(DeniedError, match=reason) as caught:
        tokens.verify(text() if callable(text) else text, ring(), NOW)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.one_of(st.text(), st.binary().map(b64), st.builds(raw, st.binary(), st.binary(), st.binary())))
def test_random_tokens_are_denied_and_nothing_else(text):
    with pytest.raises(DeniedError):
        tokens.verify(text, ring(), NOW)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_one_changed_character_breaks_a_token(data):
    good = token()
    at = data.draw(st.integers(0, len(good) - 2))  # the last character has bits that mean nothing
    bad = good[:at] + data.draw(st.sampled_from("AZaz09-_.").filter(lambda c: c != good[at])) + good[at + 1 :]
    with pytest.raises(DeniedError):
        tokens.verify(bad, ring(), NOW)


def test_revoked_token_is_named():
    with pytest.raises(DeniedError, match="'id-1' is revoked"):
        tokens.verify(token(), ring(revoked={"id-0", "id-1"}), NOW)


def test_a_damaged_key_is_blamed_and_harms_only_its_own_tokens():
    keys = ring({"1": signing_pem(), "2": b"rubbish"})
    tokens.verify(token(), keys, NOW)
    with pytest.raises(DeniedError, match="zone-token-signing-key-2' is not an unencrypted RSA key"):
        tokens.verify(token(kid="2"), keys, NOW)


@pytest.mark.parametrize("valid_for", [timedelta(), -DAY, timedelta(days=3651)])
def test_nonsense_periods_are_refused(valid_for):
    with pytest.raises(ValueError, match="validFor"):
        token(valid_for=valid_for)


@pytest.mark.parametrize(
    ("claims", "zone", "scope", "reason"),
    [
        (ZONE, "zone-a", "cp", None),
        (ZONE, "zone-a", "ingress", None),
        (ZONE, "zone-b", "cp", "zone token is for zone 'zone-a', this is 'zone-b'"),
        (tokens.ZoneClaims("zone-a", ("ingress",)), "zone-a", "cp", r"scope \[ingress\], which does not contain 'cp'"),
        (tokens.ZoneClaims("zone-a", ()), "zone-a", "egress", r"scope \[\], which does not contain 'egress'"),
        (tokens.ZoneClaims("", ("ingress",)), "zone-b", "ingress", None),
        (tokens.ZoneClaims("", ("cp",)), "zone-b", "cp", "no particular zone"),
    ],
)
def test_zone_and_scope_must_fit(claims, zone, scope, reason):
    if reason is None:
        tokens.check_zone(claims, zone, scope)
    else:
        with pytest.raises(DeniedError, match=reason):
            tokens.check_zone(claims, zone, scope)


PROXY = {
    "mesh": "default",
    "name": "dp",
    "tags": {"kuma.io/service": ("web", "web-api"), "v": ("1",)},
    "labels": {"kuma.io/workload": "w"},
}


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({}, None),
        ({"name": "dp", "mesh": "default", "workload": "w"}, None),
        ({"tags": {"kuma.io/service": ("web", "web-api", "other")}}, None),
        ({"name": "dq"}, "dataplane token is for 'dq', this is 'dp'"),
        ({"mesh": "m"}, "is for mesh 'm', this is mesh 'default'"),
        ({"tags": {"team": ("a",)}}, "has no tag 'team'"),
        ({"tags": {"kuma.io/service": ("web",)}}, r"'kuma.io/service=web-api'; its token allows \[web\]"),
        ({"tags": {"v": ()}}, "'v=1'"),
        ({"workload": "x"}, "for workload 'x', 'dp' has 'w'"),
        ({"type": "ingress"}, None),
    ],
)
def test_a_dataplane_token_must_fit_the_proxy(claims, reason):
    if reason is None:
        tokens.check_dataplane(tokens.DataplaneClaims(**claims), **PROXY)
    else:
        with pytest.raises(DeniedError, match=reason):
            tokens.check_dataplane(tokens.DataplaneClaims(**claims), **PROXY)


@pytest.mark.parametrize(
    ("read", "claims"),
    [
        (tokens.zone_claims, {"Zone": 1}),
        (tokens.zone_claims, {"Zone": "a", "Scope": "cp"}),  # a text contains "cp", too
        (tokens.zone_claims, {"Scope": [1]}),
        (tokens.dataplane_claims, {"Tags": []}),
        (tokens.dataplane_claims, {"Tags": {"a": "b"}}),
        (tokens.dataplane_claims, {"Name": {}}),
        (tokens.user_claims, {}),
        (tokens.user_claims, {"Name": "a", "Groups": "mesh-system:admin"}),
    ],
)
def test_claims_of_a_wrong_type_are_refused(read, claims):
    with pytest.raises(DeniedError):
        read(claims)


def test_null_claims_are_empty_as_go_reads_them():
    assert tokens.zone_claims({"Zone": None, "Scope": None}) == tokens.ZoneClaims("", ())
    assert tokens.dataplane_claims({"Tags": None}) == tokens.DataplaneClaims()
