"""What an Envoy gets under the READMEs' examples and the policies of a new mesh; a real Envoy takes it."""

import pytest

from meshd.model.codec import decode_document
from meshd.policies.initial import initial_policies
from tests.policies.shaped import CLIENT, GOLDENS, WANTED, inbounds, outbounds, server
from tests.policies.support import FOLDERS, POLICIES, REGISTRY, examples
from tests.topology import builders as b
from tests.xds.support import golden_text
from tests.xds.validate import complaints, read_golden

EXAMPLES = [decode_document(d, REGISTRY) for folder in FOLDERS for d in examples(folder)]
INITIAL = initial_policies(POLICIES, b.mesh(), "")


def to(service):
    return WANTED.__class__("127.0.0.1", 10001, service)


def rendered(case):
    policies = EXAMPLES if case.startswith("examples") else INITIAL
    match case:
        case "examples-http" | "initial-http":
            web = b.dataplane("web-1", b.inbound("web"))
            return outbounds(server("api"), *policies, client=web, wanted=to("api"))
        case "examples-tcp" | "initial-tcp":
            shop = b.dataplane("shop-1", b.inbound("shop"))
            return outbounds(server("database", "tcp"), *policies, client=shop, wanted=to("database"))
        case "examples-stock":
            shop = b.dataplane("shop-1", b.inbound("shop"))
            return outbounds(server("stock"), *policies, client=shop, wanted=to("stock"))
        case "initial-grpc":
            return outbounds(server("api", "grpc"), *policies, client=CLIENT, wanted=to("api"))
        case _:
            return inbounds(*policies, dataplane=server("payments"))


CASES = [
    *(f"examples-{what}" for what in ("http", "tcp", "stock", "inbound")),
    *(f"initial-{what}" for what in ("http", "tcp", "grpc", "inbound")),
]


@pytest.mark.parametrize("case", CASES)
def test_goldens(case, golden):
    golden(GOLDENS / f"{case}.yaml", golden_text(rendered(case)))


@pytest.mark.e2e
@pytest.mark.parametrize("case", CASES)
def test_envoy_takes_the_golden(case, tmp_path):
    assert complaints(tmp_path, read_golden(GOLDENS / f"{case}.yaml")) == []
