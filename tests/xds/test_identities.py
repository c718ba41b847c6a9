from datetime import UTC, datetime

import pytest
import trio

from meshd.ca.identity import Credentials, Identity, TrustBundle
from meshd.model.resource import ResourceKey
from meshd.runtime.latest import Latest
from meshd.xds.abilities import Abilities
from meshd.xds.identities import Identities
from meshd.xds.proxies import Proxy
from meshd.xds.resources import SECRET

NOW = datetime(2026, 1, 1, tzinfo=UTC)
URIS = ("spiffe://default/web",)


def credentials(certificate):
    return Credentials(Identity("default", URIS, certificate, b"key", NOW, NOW), TrustBundle("default", b"root"))


class Issuer:
    def __init__(self):
        self.cells = {}

    def __call__(self, mesh, owner, uris):  # noqa: ARG002
        return self.cells.setdefault((mesh, owner), Latest(credentials(b"1")))


@pytest.fixture
def proxy():
    return Proxy(ResourceKey("Dataplane", "default", "web-1"), Abilities())


async def test_who_shows_an_identity_hears_that_it_was_renewed(nursery, autojump_clock, proxy):
    issuer, told = Issuer(), []
    identities = Identities(issuer, told.append)
    await nursery.start(identities.cells.run)
    identities.need(proxy, "default", "web-1", URIS)
    await trio.testing.wait_all_tasks_blocked()
    identities.certify_renewed([proxy], lambda _: False, 5.0)
    assert (proxy.certified, proxy.certified_at) == ({"default"}, 5.0)
    shown = shown_by(proxy)
    told.clear()

    issuer.cells["default", "web-1"].publish(credentials(b"2"))
    await trio.testing.wait_all_tasks_blocked()

    assert told == [{proxy.key}]
    identities.certify_renewed([proxy], lambda _: True, 6.0)
    assert shown_by(proxy) == shown  # its mesh is about to have no mTLS
    identities.certify_renewed([proxy], lambda _: False, 7.0)
    assert shown_by(proxy) != shown
    assert proxy.certified_at == 5.0


def shown_by(proxy):
    return {name: entry.version for name, entry in proxy.secrets.of(SECRET).items()}


def test_an_identity_is_let_go_when_the_last_of_its_proxies_is_gone(proxy):
    identities = Identities(Issuer(), lambda _: None)
    other = Proxy(ResourceKey("Dataplane", "default", "web-2"), Abilities())
    for one in (proxy, other):
        identities.need(one, "default", "shared", URIS)

    assert identities.let_go(lambda key, _: key == other.key) == []
    assert identities.let_go(lambda *_: False) == [("default", "shared")]
    assert identities.let_go(lambda *_: False) == []


def test_an_identity_of_a_mesh_that_a_proxy_needs_no_more_is_let_go(proxy):
    identities = Identities(Issuer(), lambda _: None)
    for mesh in ("default", "other"):
        identities.need(proxy, mesh, "out", URIS)

    identities.keep(proxy, {"default": "out"})

    assert identities.let_go(lambda *_: True) == [("other", "out")]
    assert proxy.identities == {"default": "out"}
