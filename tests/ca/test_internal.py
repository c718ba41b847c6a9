"""The credentials of Envoys that meshd starts itself."""

import pytest

from meshd.ca.internal import PREFIX, InternalCredentials, credential, is_internal
from meshd.model.resource import ResourceKey

WEB = ResourceKey("Dataplane", "default", "web")
INGRESS = ResourceKey("ZoneIngress", "", "web")
SECRET, OTHER = credential(bytes(range(32))), credential(bytes(32))


def test_a_credential_is_no_token():
    assert PREFIX + bytes(range(32)).hex() == SECRET
    assert is_internal(SECRET)
    assert not is_internal("eyJhbGciOiJSUzI1NiJ9.e30.x")
    assert not is_internal("")


def test_a_short_secret_is_refused():
    with pytest.raises(ValueError, match="needs 32 bytes, not 31"):
        credential(bytes(31))


@pytest.mark.parametrize(
    ("proxy", "shown", "proven"),
    [
        (WEB, SECRET, True),
        (WEB, OTHER, False),
        (WEB, SECRET[:-1], False),
        (WEB, SECRET + "0", False),
        (WEB, "", False),
        (WEB, PREFIX, False),
        (WEB, "\u00e9\ud800", False),
        (INGRESS, SECRET, False),
        (INGRESS, OTHER, True),
        (ResourceKey("Dataplane", "other", "web"), SECRET, False),
        (ResourceKey("ZoneEgress", "", "web"), OTHER, False),
    ],
)
def test_a_credential_proves_the_proxy_it_was_admitted_for_and_no_other(proxy, shown, proven):
    credentials = InternalCredentials()
    credentials.admit(WEB, SECRET)
    credentials.admit(INGRESS, OTHER)
    assert credentials.proves(proxy, shown) is proven


def test_a_forgotten_proxy_proves_nothing_and_a_new_secret_replaces_the_old_one():
    credentials = InternalCredentials()
    credentials.admit(WEB, SECRET)
    credentials.admit(WEB, OTHER)
    assert not credentials.proves(WEB, SECRET)
    credentials.forget(WEB)
    credentials.forget(WEB)
    assert not credentials.proves(WEB, OTHER)


def test_what_could_be_taken_for_a_token_is_not_admitted():
    with pytest.raises(ValueError, match="Dataplane default/web: an internal credential begins with meshd-internal-"):
        InternalCredentials().admit(WEB, "a.b.c")
