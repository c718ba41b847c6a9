import pytest

from meshd.model.registry import Registry
from meshd.policies import discover
from meshd.rules.explain import nothing


def test_every_policy_is_found_and_fits_a_registry():
    policies = discover()
    assert [(p.type.kind, p.type.path, p.type.short, p.order) for p in policies] == [
        ("MeshHTTPRoute", "meshhttproutes", "mhttpr", 100),
        ("MeshTCPRoute", "meshtcproutes", "mtcpr", 200),
        ("MeshTimeout", "meshtimeouts", "mt", 1000),
        ("MeshTrafficPermission", "meshtrafficpermissions", "mtp", 1100),
        ("MeshCircuitBreaker", "meshcircuitbreakers", "mcb", 1300),
        ("MeshRetry", "meshretries", "mr", 1400),
    ]
    assert len(list(Registry(p.type for p in policies))) == len(policies)


@pytest.mark.parametrize("policy", discover(), ids=lambda policy: policy.type.kind)
def test_every_section_of_a_policy_can_be_explained(policy):
    declared = {"to": policy.sections.to, "from": policy.sections.clients, "rules": policy.sections.inbound}
    fields = {info.alias or name for name, info in policy.type.spec.model_fields.items()}
    assert {name for name, read in declared.items() if read is not nothing} == fields & declared.keys()
