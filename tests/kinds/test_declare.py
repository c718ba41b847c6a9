from pathlib import Path

import pytest

from meshd.kinds import KINDS
from meshd.model.registry import Registry
from meshd.model.resource_type import Flow
from meshd.model.wire import schema_of
from meshd.policies import discover

GOLDEN = Path(__file__).parents[1] / "golden" / "registry.txt"


def test_registry_as_a_table(golden):
    golden(GOLDEN, Registry([*KINDS, *(p.type for p in discover())]).table())


@pytest.mark.parametrize("type_", KINDS, ids=lambda t: t.kind)
def test_spec_and_message_have_the_same_fields(type_):
    schema = schema_of(type_.spec, type_.message)
    assert len(schema.fields) == len(type_.spec.model_fields)
    namespace, name = type_.message_name.rsplit(".", 1)
    assert type_.message.__module__.endswith(namespace)
    assert type_.message.__name__ == name


@pytest.mark.parametrize(
    ("flow", "kinds"),
    [
        (Flow.GLOBAL_TO_ZONE, "Config ExternalService GlobalSecret Mesh Secret ServiceInsight"),
        (
            Flow.ZONE_TO_GLOBAL,
            "Dataplane DataplaneInsight ZoneEgress ZoneEgressInsight ZoneIngress ZoneIngressInsight",
        ),
        (Flow.ACROSS_ZONES, "ZoneIngress"),
    ],
)
def test_what_travels_which_way(flow, kinds):
    assert [t.kind for t in Registry(KINDS).flowing(flow)] == kinds.split()
