"""What a Dataplane is sent, and would be with the shadow policies."""

import pytest

from meshd.model.errors import UnavailableError
from meshd.model.resource import ResourceKey
from tests.rest.support import GLOBAL, MESH, STANDALONE, Plane, dataplane

URL = "/meshes/default/dataplanes/web-1/_config"
CLUSTER = "type.googleapis.com/envoy.config.cluster.v3.Cluster"


def config(timeout):
    return {CLUSTER: {"api": {"name": "api", "connectTimeout": timeout}}}


async def of_web_1(proxy, shadow):
    return config("9s" if shadow else "5s") if proxy == ResourceKey("Dataplane", "default", "web-1") else None


async def plane_of(tmp_path, config_of=of_web_1, mode=STANDALONE):
    plane = Plane(tmp_path, mode, config_of=config_of)
    await plane.add(MESH, dataplane(), dataplane("api-1", "api"))
    return plane


CHANGE = [
    {"op": "test", "path": f"/{CLUSTER.replace('/', '~1')}/api/connectTimeout", "value": "5s"},
    {"op": "remove", "path": f"/{CLUSTER.replace('/', '~1')}/api/connectTimeout", "value": "5s"},
    {"op": "add", "path": f"/{CLUSTER.replace('/', '~1')}/api/connectTimeout", "value": "9s"},
]


@pytest.mark.parametrize(
    ("query", "answer"),
    [
        ("", {"xds": config("5s")}),
        ("?shadow=false&include=", {"xds": config("5s")}),
        ("?shadow=true", {"xds": config("9s")}),
        ("?include=diff", {"xds": config("5s"), "diff": []}),
        ("?shadow=1&include=diff", {"xds": config("9s"), "diff": CHANGE}),
    ],
)
async def test_configuration_and_difference(query, answer, tmp_path):
    plane = await plane_of(tmp_path)
    found = await plane.get(URL + query)
    assert (found.status_code, found.json()) == (200, answer)
    assert found.text.startswith('{\n "xds": {\n')  # people read it


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        ("?shadow=maybe", "unsupported value for query parameter 'shadow'"),
        ("?include=diff,all", "unsupported value for query parameter 'include'"),
    ],
)
async def test_what_cannot_be_asked_for(query, detail, tmp_path):
    found = await (await plane_of(tmp_path)).get(URL + query)
    assert (found.status_code, found.json()["detail"]) == (400, detail)


@pytest.mark.parametrize(
    ("name", "detail"),
    [
        ("api-1", "Dataplane default/api-1 has no Envoy that is connected to this control plane"),
        ("nope", "Not found"),
    ],
)
async def test_a_proxy_that_is_not_here(name, detail, tmp_path):
    found = await (await plane_of(tmp_path)).get(URL.replace("web-1", name))
    assert (found.status_code, found.json()["detail"]) == (404, detail)
    assert found.json()["title"] == "Failed to fetch dataplane insight"


async def test_a_global_sends_nothing(tmp_path):
    found = await (await plane_of(tmp_path, mode=GLOBAL)).get(URL)
    assert (found.status_code, found.json()["detail"]) == (405, "Not allowed on global CP")


async def test_why_it_cannot_be_rendered(tmp_path):
    async def broken(proxy, shadow):
        raise UnavailableError(f"{proxy}: its configuration cannot be rendered: no field 'x'")

    found = await (await plane_of(tmp_path, broken)).get(URL)
    assert found.status_code == 503
    assert "cannot be rendered: no field 'x'" in found.json()["detail"]


async def test_a_control_plane_without_proxies_sends_nothing(tmp_path):
    plane = Plane(tmp_path, STANDALONE)
    await plane.add(MESH, dataplane())
    assert (await plane.get(URL)).status_code == 404
