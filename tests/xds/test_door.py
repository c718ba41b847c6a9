"""The plain HTTP part of the dp-server."""

import logging

import pytest
import yaml

from meshd.cli.known import registry
from meshd.rpc import HttpRequest
from meshd.xds.door import NOT_FOUND, bootstrap_handler
from tests.xds.bootstraps import REQUEST, asked, document_of, settings_of


def handler():
    return bootstrap_handler(settings_of(), {}.get, registry())


@pytest.mark.parametrize("path", ["/", "/bootstrap/", "/bootstrap2", "/meshes", "*"])
async def test_other_paths_are_not_here(path):
    answer = await handler()(HttpRequest("POST", path))
    assert answer == NOT_FOUND
    assert (answer.status, answer.body) == (404, b"404: Page Not Found")  # kuma-dp compares it with this


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT"])
async def test_bootstraps_are_posted(method):
    answer = await handler()(HttpRequest(method, "/bootstrap"))
    assert (answer.status, answer.headers) == (405, (("Allow", "POST"),))


def test_what_is_no_request_is_a_400():
    answer = asked(b"{")
    assert (answer.status, answer.body) == (400, b"no bootstrap request: the body is no JSON\n")


def test_who_does_not_take_json_is_given_yaml():
    answer = asked(REQUEST, accept="*/*")
    assert (answer.status, answer.content_type) == (200, "text/x-yaml")
    assert b"&id" not in answer.body
    assert yaml.safe_load(answer.body) == document_of(asked(REQUEST))


def test_a_refusal_is_logged_without_the_token(caplog):
    caplog.set_level(logging.DEBUG, "meshd")
    asked(REQUEST | {"dataplaneToken": "secret", "name": "web-2"})
    asked(REQUEST | {"dataplaneToken": "secret"}, host="other")
    assert [r.levelname for r in caplog.records] == ["DEBUG", "INFO"]
    assert "proxy=default.web-1 peer=10.0.0.9:1 refused: 400" in caplog.records[1].getMessage()
    assert "secret" not in caplog.text
