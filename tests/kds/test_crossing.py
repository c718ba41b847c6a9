"""What resources become at the border, and what is withheld (reference/kds.md 5.3 to 5.6)."""

import dataclasses

import pytest

from meshd.ca import rsa_pem
from meshd.kds.crossing import NODE_FEATURES, ZoneEnd, admits, names_taken, to_global, to_zone
from meshd.kinds.config import Config
from meshd.kinds.secret import Secret
from meshd.model import codec
from meshd.model import labels as label
from meshd.model.resource import Resource, ResourceKey
from tests.kds.lab import REGISTRY, dataplane, ingress, mesh, permission

ALL = frozenset(NODE_FEATURES)


def resource(document: dict, **labels: str) -> Resource:
    named = {key.replace("_", "/"): value for key, value in labels.items()}
    return dataclasses.replace(
        codec.decode_document(document, REGISTRY), labels={f"kuma.io/{k}": v for k, v in named.items()}
    )


def secret(name: str, data: bytes = b"x", **labels: str) -> Resource:
    return Resource(ResourceKey("GlobalSecret", "", name), Secret(data=data), labels=labels)


def cross(made: Resource) -> Resource | None:
    return to_zone(REGISTRY[made.key.kind], made)


def seen(made: Resource, zone: str = "zone-1", features: frozenset[str] = ALL, *, enabled: bool = True) -> bool:
    type_ = REGISTRY[made.key.kind]
    return to_zone(type_, made) is not None and admits(type_, made, ZoneEnd(zone, features), lambda _: enabled)


def test_a_dataplane_of_a_zone_on_its_way_up() -> None:
    made = dataclasses.replace(resource(dataplane("dp-1")), labels={"team": "x", "kuma.io/origin": "zone"})
    sent = to_global(REGISTRY["Dataplane"], made, "zone-1")
    assert sent.key.name == "dp-1-dff6z597w47d46xx"
    assert sent.labels == {
        "kuma.io/display-name": "dp-1",
        "kuma.io/origin": "zone",
        "kuma.io/zone": "zone-1",
        "team": "x",
    }


def test_the_own_zone_is_said_whatever_a_label_says() -> None:
    made = resource(dataplane("dp-1"), zone="zone-9", **{"deletion-grace-period-started-at": "x"})
    sent = to_global(REGISTRY["Dataplane"], made, "zone-1")
    assert sent.labels["kuma.io/zone"] == "zone-1"
    assert "kuma.io/deletion-grace-period-started-at" not in sent.labels


def test_labels_of_one_control_plane_stay_in_it() -> None:
    made = dataclasses.replace(resource(ingress("in")), labels={label.MANAGED_BY_FILE: "true", "team": "x"})
    assert label.MANAGED_BY_FILE not in to_global(REGISTRY["ZoneIngress"], made, "zone-1").labels
    of_file = dataclasses.replace(resource(mesh()), labels=made.labels)
    assert to_zone(REGISTRY["Mesh"], of_file).labels == {"kuma.io/origin": "global", "team": "x"}


@pytest.mark.parametrize("labels", [{"origin": "global"}, {"kds-sync": "disabled"}])
def test_what_a_zone_does_not_send(labels: dict[str, str]) -> None:
    assert to_global(REGISTRY["Dataplane"], resource(dataplane("dp-1"), **labels), "zone-1") is None


def test_a_mesh_keeps_its_name_on_its_way_down() -> None:
    sent = cross(resource(mesh()))
    assert (sent.key.name, dict(sent.labels)) == ("default", {"kuma.io/origin": "global"})


def test_a_policy_of_the_global_gets_its_hash() -> None:
    sent = cross(resource({**permission("x"), "name": "default-timeout-global"}))
    assert sent.key.name == "default-timeout-global-54dbd4c66zwbcf9c"
    assert sent.labels == {"kuma.io/origin": "global", "kuma.io/display-name": "default-timeout-global"}


def test_a_forwarded_ingress_has_the_name_it_has_on_the_global() -> None:
    up = to_global(REGISTRY["ZoneIngress"], resource(ingress("ingress-1")), "zone-1")
    down = cross(up)
    assert up.key.name == down.key.name == "ingress-1-d42xfc5b76vxd222"
    assert down.labels["kuma.io/origin"] == "global"
    assert down.labels["kuma.io/zone"] == "zone-1"


def test_a_signing_key_arrives_as_its_public_half() -> None:
    private = rsa_pem.new_private_key()
    sent = cross(secret("zone-token-signing-key-1", private))
    assert sent.key.name == "zone-token-signing-public-key-1"
    assert sent.labels == {"kuma.io/origin": "global", "kuma.io/display-name": "zone-token-signing-key-1"}
    assert sent.spec.data == rsa_pem.signing_to_public(private)
    assert b"RSA PUBLIC KEY" in sent.spec.data


def test_a_broken_signing_key_is_an_error_that_does_not_print_it() -> None:
    with pytest.raises(ValueError, match="zone-token-signing-key-1") as caught:
        cross(secret("zone-token-signing-key-1", b"hunter2"))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "name",
    ["envoy-admin-ca", "admin-user-token", "inter-cp-ca", "user-token-revocations", "user-token-signing-key-1"],
)
def test_the_globals_own_secrets_stay(name: str) -> None:
    assert cross(secret(name)) is None


def test_other_global_secrets_go() -> None:
    assert cross(secret("zone-token-revocations")).key.name == "zone-token-revocations"


def test_only_the_cluster_id_of_configs_goes() -> None:
    def config(name: str) -> Resource:
        return Resource(ResourceKey("Config", "", name), Config(config="x"))

    assert cross(config("kuma-cluster-id")).key.name == "kuma-cluster-id"
    assert cross(config("meshd-vips")) is None


@pytest.mark.parametrize(
    ("document", "labels", "zone", "enabled", "expected"),
    [
        (mesh(), {}, "zone-1", True, True),
        (mesh(), {"kds-sync": "disabled"}, "zone-1", True, False),
        (dataplane("dp"), {"origin": "zone", "zone": "zone-2"}, "zone-1", True, False),
        (ingress("in"), {"origin": "zone", "zone": "zone-2"}, "zone-1", True, True),
        (ingress("in"), {"origin": "zone", "zone": "zone-2"}, "zone-1", False, False),
        (ingress("in"), {"origin": "zone", "zone": "zone-1"}, "zone-1", True, False),
        (ingress("in"), {}, "zone-1", True, False),
        (permission("p"), {}, "zone-1", True, True),
        (permission("p"), {"origin": "zone", "zone": "zone-2"}, "zone-1", True, False),
        (permission("p"), {"origin": "zone", "zone": "zone-2", "policy-role": "producer"}, "zone-1", True, False),
    ],
)
def test_who_may_see_what(document: dict, labels: dict, zone: str, enabled: bool, expected: bool) -> None:
    assert seen(resource(document, **labels), zone, enabled=enabled) is expected


def test_a_policy_without_target_needs_the_feature() -> None:
    document = permission("p")
    del document["spec"]["targetRef"]
    made = resource(document)
    assert seen(made)
    assert not seen(made, features=ALL - {"optional-top-level-target-ref"})


def test_an_old_policy_has_no_target_to_miss() -> None:
    match = [{"match": {"kuma.io/service": "*"}}]
    made = resource(
        {"type": "TrafficPermission", "mesh": "default", "name": "p", "sources": match, "destinations": match}
    )
    assert seen(made, features=ALL - {"optional-top-level-target-ref"})


def test_a_generator_for_services_of_many_zones_needs_the_feature() -> None:
    def generator(kind: str) -> Resource:
        selector = {kind: {"matchLabels": {}}}
        return resource(
            {"type": "HostnameGenerator", "name": "g", "spec": {"selector": selector, "template": "x.mesh"}}
        )

    old = ALL - {"hg-mz-selector"}
    assert seen(generator("meshService"), features=old)
    assert seen(generator("meshMultiZoneService"))
    assert not seen(generator("meshMultiZoneService"), features=old)


@pytest.mark.parametrize(
    ("labels", "mesh_name", "taken"),
    [
        ({"kuma.io/origin": "global", "kuma.io/display-name": "p-hashed"}, "default", True),
        ({"kuma.io/origin": "global", "kuma.io/display-name": "p"}, "default", False),
        ({"kuma.io/origin": "global", "kuma.io/display-name": "p-hashed"}, "other", False),
        ({"kuma.io/origin": "zone", "kuma.io/display-name": "p-hashed"}, "default", False),
        # Of another zone: what it is called there is not what the global calls it.
        ({"kuma.io/origin": "global", "kuma.io/zone": "z2", "kuma.io/display-name": "p-hashed"}, "default", False),
    ],
)
def test_a_name_that_the_global_gave_to_a_resource_of_its_own(labels: dict, mesh_name: str, taken: bool) -> None:
    made = resource(permission("p"))
    key = dataclasses.replace(made.key, mesh=mesh_name, name="whatever-it-is-here")
    copy = dataclasses.replace(made, key=key, labels=labels)
    found = names_taken({"p-hashed.default": made.key}, [copy])
    assert set(found) == ({made.key} if taken else set())
    assert not taken or "'p-hashed.default'" in found[made.key]
