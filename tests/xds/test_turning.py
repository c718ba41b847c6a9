import math

from meshd.kinds.mesh import CertificateAuthorityBackend, Mode
from meshd.xds.turning import LEAD_S, Instance, Turning

PERMISSIVE = CertificateAuthorityBackend(name="ca", type="builtin", mode=Mode.PERMISSIVE)
STRICT = PERMISSIVE.model_copy(update={"mode": Mode.STRICT})


def web(certified_at: float | None, *services: str) -> Instance:
    return Instance("m", services or ("web",), certified_at)


def turned(*backends: CertificateAuthorityBackend | None) -> Turning:
    turning = Turning()
    for backend in backends:
        turning.see({"m": backend}, 100.0)
    return turning


def test_a_mesh_that_is_found_with_mtls_has_it() -> None:
    turning = turned(PERMISSIVE)
    assert turning.update([web(None)], 100.0) == {}
    assert not turning.is_busy
    assert not turning.is_plain("m", "web")


def test_tls_to_a_service_begins_once_all_its_instances_have_had_certificates_for_a_while() -> None:
    turning = turned(None, PERMISSIVE)
    assert turning.update([web(None), web(None), web(None, "api")], 100.0) == {"m": {"web", "api"}}
    assert turning.is_plain("m", "web")
    assert not turning.is_plain("m", "db")  # nobody who is connected offers it
    assert turning.due_at([web(None)], 100.0) == math.inf

    instances = [web(100.0), web(101.0), web(None, "api")]
    assert turning.update(instances, 101.0) == {}
    assert turning.due_at(instances, 101.0) == 100.0 + LEAD_S
    assert turning.update(instances, 100.0 + LEAD_S) == {}
    assert turning.due_at(instances, 100.0 + LEAD_S) == 101.0 + LEAD_S
    assert turning.update(instances, 101.0 + LEAD_S) == {"m": {"web"}}
    assert not turning.is_plain("m", "web")
    assert turning.is_plain("m", "api")
    assert turning.due_at(instances, 101.0 + LEAD_S) == math.inf

    assert turning.update([web(100.0)], 101.0 + LEAD_S) == {"m": {"api"}}  # the last one that had none is gone
    assert not turning.is_busy


def test_strict_is_at_once() -> None:
    assert not turned(None, STRICT).is_busy
    turning = turned(None, PERMISSIVE, STRICT)
    assert turning.update([web(None)], 100.0) == {}
    assert not turning.is_plain("m", "web")


def test_inbounds_take_both_for_a_while_when_it_is_turned_off() -> None:
    turning = turned(STRICT, None)
    assert turning.ending("m") == PERMISSIVE
    assert turning.due_at([], 100.0) == 100.0 + LEAD_S
    assert turning.update([], 100.0) == {}
    assert turning.update([], 100.0 + LEAD_S) == {"m": frozenset()}
    assert turning.ending("m") is None
    assert not turning.is_busy


def test_it_may_be_turned_back_at_any_time_and_the_mesh_may_go() -> None:
    turning = turned(None, PERMISSIVE, None)
    assert turning.ending("m") == PERMISSIVE
    assert not turning.is_plain("m", "web")
    turning.see({"m": PERMISSIVE}, 100.0)
    assert turning.ending("m") is None
    assert turning.update([web(None)], 100.0) == {"m": {"web"}}
    turning.see({}, 100.0)
    assert not turning.is_busy
