import hashlib

from meshd.xds.abilities import Abilities
from meshd.xds.dynconf import answer, dynamic_config
from meshd.xds.resources import LISTENER
from tests.xds.support import GOLDENS, by_name, golden_text

ABILITIES = Abilities(workdir="/tmp/dp", ipv6=False)


def routes(*answers):
    (chain,) = by_name(dynamic_config(answers, ABILITIES), LISTENER)["_kuma:dynamicconfig"]["filterChains"]
    return chain["filters"][0]["typedConfig"]["routeConfig"]


def test_documents(golden):
    found = dynamic_config([answer("/meshmetric", '{"b":1}'), answer("/dns", '{"records":[]}')], ABILITIES)

    golden(GOLDENS / "dynconf.yaml", golden_text(found))


def test_without_documents_there_is_no_listener():
    assert list(dynamic_config([], ABILITIES)) == []


def test_order_does_not_matter():
    a, b = answer("/a", "1"), answer("/b", "2")

    assert list(dynamic_config([a, b], ABILITIES)) == list(dynamic_config([b, a], ABILITIES))


def test_the_largest_document_may_be_answered():
    assert routes(answer("/a", "ä" * 5000), answer("/b", "b"))["maxDirectResponseBodySizeBytes"] == 10000


def test_who_has_a_document_is_told_so_first():
    unchanged, whole = routes(answer("/a", "body"))["virtualHosts"][0]["routes"]

    etag = hashlib.sha256(b"body").hexdigest()
    assert unchanged["directResponse"] == {"status": 304}
    assert unchanged["match"]["headers"][0]["stringMatch"] == {"exact": etag}
    assert whole["responseHeadersToAdd"][0]["header"] == {"key": "Etag", "value": etag}
