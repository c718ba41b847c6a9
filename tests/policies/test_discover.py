from meshd.model.registry import Registry
from meshd.policies import discover


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
