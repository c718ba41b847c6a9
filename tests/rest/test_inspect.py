"""What the Envoy of a proxy says, through the API."""

import logging

import pytest

from meshd.kds.admin.wire import Question, What
from meshd.model.errors import UnavailableError
from meshd.model.resource import ResourceKey
from tests.rest.support import GLOBAL, INGRESS, MESH, STANDALONE, Plane, dataplane

WEB = ResourceKey("Dataplane", "default", "web-1")
URL = "/meshes/default/dataplanes/web-1"


async def asking(tmp_path, config=STANDALONE, said=b"{}"):
    """A plane with a proxy, and what is asked of it."""
    asked = []

    async def inspect(zone, question):
        asked.append((zone, question))
        if said is None:
            raise UnavailableError("it is on another host")
        return said

    plane = Plane(tmp_path, config, inspect=inspect)
    await plane.add(MESH, dataplane())
    return plane, asked


QUESTIONS = [
    ("xds", Question(What.CONFIG_DUMP, WEB), "application/json"),
    ("xds?include_eds=true", Question(What.CONFIG_DUMP, WEB, include_eds=True), "application/json"),
    ("stats", Question(What.STATS, WEB, used_only=True), "text/plain; charset=utf-8"),
    ("stats?usedonly=false&format=json", Question(What.STATS, WEB, as_json=True), "application/json"),
    ("clusters", Question(What.CLUSTERS, WEB), "text/plain; charset=utf-8"),
    ("clusters?format=json", Question(What.CLUSTERS, WEB, as_json=True), "application/json"),
]


@pytest.mark.parametrize(("path", "question", "media_type"), QUESTIONS)
async def test_what_is_asked(path, question, media_type, tmp_path):
    plane, asked = await asking(tmp_path)
    answer = await plane.get(f"{URL}/{path}")
    assert (answer.status_code, answer.content, answer.headers["content-type"]) == (200, b"{}", media_type)
    assert asked == [("", question)]


async def test_the_global_asks_the_zone_by_the_name_that_the_proxy_has_there(tmp_path):
    plane, asked = await asking(tmp_path, GLOBAL)
    labels = {"kuma.io/origin": "zone", "kuma.io/zone": "zone-a", "kuma.io/display-name": "web"}
    await plane.add(dataplane("web-x2f5", labels=labels), {**INGRESS, "zone": "zone-b"})
    assert (await plane.get("/meshes/default/dataplanes/web-x2f5/stats")).status_code == 200
    assert (await plane.get("/zoneingresses/in/stats")).status_code == 200
    assert [(zone, question.proxy) for zone, question in asked] == [
        ("zone-a", ResourceKey("Dataplane", "default", "web")),
        ("zone-b", ResourceKey("ZoneIngress", "", "in")),
    ]


async def test_a_proxy_of_another_zone_is_not_asked_at_a_zone(tmp_path):
    plane, asked = await asking(tmp_path)
    await plane.add({**INGRESS, "zone": "zone-b"})
    answer = await plane.get("/zone-ingresses/in/clusters")
    assert (answer.status_code, asked) == (400, [])
    assert "is of zone 'zone-b'" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("path", "status", "title", "detail"),
    [
        (f"{URL}/stats?format=xml", 400, "Bad Request", "format must be text or json, not 'xml'"),
        ("/meshes/default/dataplanes/nope/xds", 404, "Could not get dataplane resource", "Not found"),
        ("/zoneegresses/nope/xds", 404, "Could not get zone egress resource", "Not found"),
        (f"{URL}/xds", 503, "Could not execute admin operation", "it is on another host"),
    ],
)
async def test_refusals(path, status, title, detail, tmp_path):
    plane, _ = await asking(tmp_path, said=None)
    answer = await plane.get(path)
    assert (answer.status_code, answer.json()["title"], answer.json()["detail"]) == (status, title, detail)


async def test_an_envoy_that_cannot_be_asked_is_a_line_in_the_log(tmp_path, caplog):
    plane, _ = await asking(tmp_path, said=None)
    await plane.get(f"{URL}/xds")
    (line,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert (line.levelname, line.exc_info) == ("WARNING", None)
    assert line.getMessage() == f"GET {URL}/xds: Could not execute admin operation: it is on another host"


async def test_without_envoys_there_is_a_reason(tmp_path):
    plane = Plane(tmp_path, STANDALONE)
    await plane.add(MESH, dataplane())
    answer = await plane.get(f"{URL}/xds")
    assert (answer.status_code, "has no Envoy that is connected" in answer.json()["detail"]) == (503, True)
