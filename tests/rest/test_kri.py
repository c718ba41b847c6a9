"""Resources by Kuma's identifier."""

import pytest

from tests.rest.support import GLOBAL, MESH, STANDALONE, Plane, dataplane, permission

COPY = {"kuma.io/display-name": "web-1", "kuma.io/zone": "zone-b", "kuma.io/origin": "zone"}


@pytest.mark.parametrize(
    ("kri", "name"),
    [
        ("kri_dp_default_zone-b__web-1_", "web-1-x2f5"),
        ("kri_dp_default_zone-b__web-1_8080", "web-1-x2f5"),
        ("kri_mtp_default___allow_", "allow"),
        ("kri_m____default_", "default"),
    ],
)
async def test_it_means_a_resource_whatever_its_name_here(kri, name, tmp_path):
    plane = Plane(tmp_path, GLOBAL)
    await plane.add(MESH, dataplane("web-1-x2f5", labels=COPY), permission())
    answer = await plane.get(f"/_kri/{kri}")
    assert (answer.status_code, answer.json()["name"]) == (200, name)


async def test_it_takes_a_format(tmp_path):
    plane = Plane(tmp_path, STANDALONE)
    await plane.add(MESH)
    assert (await plane.get("/_kri/kri_m____default_?format=k8s")).json()["apiVersion"] == "kuma.io/v1alpha1"


@pytest.mark.parametrize(
    ("kri", "status", "detail"),
    [
        ("kri_mtp_default___nope_", 404, "Not found"),
        ("kri_mtp_nomesh___allow_", 404, "Not found"),
        ("kri_x", 400, "'kri_x' is no identifier: it must be kri_SHORT_MESH_ZONE_NAMESPACE_NAME_SECTION"),
        ("kri_xx_a_b_c_d_e", 400, "'kri_xx_a_b_c_d_e' is no identifier: no kind has the short name 'xx'"),
    ],
)
async def test_what_it_does_not_mean(kri, status, detail, tmp_path):
    plane = Plane(tmp_path, STANDALONE)
    await plane.add(MESH, permission())
    answer = await plane.get(f"/_kri/{kri}")
    assert (answer.status_code, answer.json()["detail"]) == (status, detail)


async def test_a_token_that_is_none_is_refused(tmp_path):
    plane = Plane(tmp_path, STANDALONE)
    await plane.add(MESH)
    answer = await plane.get("/_kri/kri_m____default_", headers={"authorization": "Bearer none"})
    assert answer.status_code == 401
