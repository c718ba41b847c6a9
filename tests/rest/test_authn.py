import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshd.ca.access import User
from meshd.model.errors import DeniedError
from meshd.rest.authn import ANONYMOUS, LOCAL_ADMIN, identify
from meshd.rest.errors import RequestError


def authenticate(token):
    if token != "good":
        raise DeniedError("signature is not ours")
    return User("jane", ("team",))


def who(headers, peer="127.0.0.1", localhost_is_admin=True):
    return identify(headers, peer, localhost_is_admin=localhost_is_admin, authenticate=authenticate)


@pytest.mark.parametrize(
    ("headers", "peer"),
    [
        ({"host": "127.0.0.1:5681"}, "127.0.0.1"),
        ({"host": "localhost:5681"}, "127.0.0.1"),
        ({"host": "LOCALHOST."}, "::1"),
        ({"host": "[::1]:5681"}, "::1"),
        ({"host": "127.0.0.1:5681"}, "::ffff:127.0.0.1"),
        ({"host": "127.0.0.1:5681", "origin": "http://127.0.0.1:5681", "sec-fetch-site": "same-origin"}, "127.0.0.1"),
    ],
)
def test_a_direct_local_request_is_an_administrators(headers, peer):
    assert who(headers, peer) == LOCAL_ADMIN
    assert who(headers, peer, localhost_is_admin=False) == ANONYMOUS


@pytest.mark.parametrize(
    ("headers", "peer"),
    [
        ({"host": "127.0.0.1"}, "10.0.0.1"),
        ({"host": "127.0.0.1"}, ""),
        ({}, "127.0.0.1"),
        ({"host": "evil.example:5681"}, "127.0.0.1"),  # DNS rebinding
        ({"host": "127.0.0.1.evil.example"}, "127.0.0.1"),
        ({"host": "127.0.0.1", "x-forwarded-for": "10.0.0.1"}, "127.0.0.1"),
        ({"host": "127.0.0.1", "forwarded": "for=10.0.0.1"}, "127.0.0.1"),
        ({"host": "127.0.0.1", "via": "1.1 proxy"}, "127.0.0.1"),
        ({"host": "127.0.0.1", "x-real-ip": "10.0.0.1"}, "127.0.0.1"),
        ({"host": "127.0.0.1", "origin": "http://evil.example"}, "127.0.0.1"),
        ({"host": "127.0.0.1", "origin": "null"}, "127.0.0.1"),
        ({"host": "127.0.0.1:5681", "origin": "http://127.0.0.1:9999"}, "127.0.0.1"),  # another local page
        ({"host": "127.0.0.1", "sec-fetch-site": "cross-site"}, "127.0.0.1"),
        ({"host": "127.0.0.1", "sec-fetch-site": "same-site"}, "127.0.0.1"),
    ],
)
def test_a_steered_or_forwarded_request_is_nobodys(headers, peer):
    assert who(headers, peer) == ANONYMOUS


def test_a_token_says_who_even_from_loopback():
    assert who({"host": "127.0.0.1", "authorization": "bearer good"}).name == "jane"


@pytest.mark.parametrize("value", ["Bearer bad", "Bearer ", "Basic Zm9vOmJhcg==", "good"])
def test_bad_credentials_are_401_also_from_loopback(value):
    with pytest.raises(RequestError) as caught:
        who({"host": "127.0.0.1", "authorization": value})
    assert caught.value.status == 401
    assert caught.value.title == "Invalid authentication data"


@settings(max_examples=100)
@given(
    st.dictionaries(st.sampled_from(["host", "origin", "authorization", "x", "via"]), st.text(max_size=30)), st.text()
)
def test_any_headers_give_a_user_or_401(headers, peer):
    try:
        user = who(headers, peer)
    except RequestError as error:
        user = error.status
    assert user in (ANONYMOUS, LOCAL_ADMIN, User("jane", ("team",)), 401)
