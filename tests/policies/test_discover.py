from meshd.model.registry import Registry
from meshd.policies import discover


def test_every_policy_is_found_and_fits_a_registry():
    policies = discover()
    assert [(p.type.kind, p.type.path, p.type.short, p.order) for p in policies] == [
        ("MeshTrafficPermission", "meshtrafficpermissions", "mtp", 1100)
    ]
    assert list(Registry(p.type for p in policies)) == [policies[0].type]
