"""The plain HTTP part of the dp-server: ``POST /bootstrap``, as kuma-dp asks and understands.

kuma-dp's reading of an answer: 404 with an empty body, try again, the proxy may yet be created; another 4xx, show the
body and stop; else try again. Source: reference/dataplane.md 1.3; Kuma ``pkg/xds/bootstrap/handler.go`` (behaviour).
"""

import base64
import json
import logging

import yaml

from meshd.model.registry import Registry
from meshd.rpc import HttpHandler, HttpRequest, HttpResponse
from meshd.xds.bootstrap import bootstrap_document
from meshd.xds.bootstrap_answer import BootstrapSettings, Lookup, RefusedError, params_for, sidecar_json
from meshd.xds.bootstrap_request import parse_request
from meshd.xds.encode import Document

log = logging.getLogger(__name__)

PATH = "/bootstrap"
JSON = "application/json"
NOT_FOUND = HttpResponse(404, b"404: Page Not Found")
"""kuma-dp knows this very text as "this is not the port of the dp-server"."""


def bootstrap_handler(settings: BootstrapSettings, lookup: Lookup, registry: Registry) -> HttpHandler:
    """What a ``GrpcServer`` is given as ``http``. ``lookup`` is the store's ``get``."""

    async def handle(request: HttpRequest) -> HttpResponse:
        return answer(request, settings, lookup, registry)

    return handle


def answer(request: HttpRequest, settings: BootstrapSettings, lookup: Lookup, registry: Registry) -> HttpResponse:
    """The answer to one request on the dp-server's port."""
    if request.path != PATH:
        return NOT_FOUND
    if request.method != "POST":
        return HttpResponse(405, b"only POST is served here\n", headers=(("Allow", "POST"),))
    try:
        asked = parse_request(request.body)
    except ValueError as error:
        return HttpResponse(400, f"no bootstrap request: {error}\n".encode(errors="backslashreplace"))
    try:
        params, sidecar = params_for(asked, _without_port(request.host), settings, lookup, registry)
    except RefusedError as error:
        level = logging.DEBUG if error.status == 404 else logging.INFO  # it is asked for again and again
        proxy = f"{asked.mesh}.{asked.name}"
        log.log(level, "bootstrap of proxy=%s peer=%s refused: %d %s", proxy, request.peer, error.status, error)
        return HttpResponse(error.status, str(error).encode(errors="backslashreplace"))
    document = bootstrap_document(params)
    text = _text(document)
    if JSON not in request.header("accept"):
        # From the text, for the document's parts are in it more than once, which YAML would say by anchors.
        return HttpResponse(200, yaml.dump(json.loads(text), Dumper=yaml.CSafeDumper).encode(), "text/x-yaml")
    template = settings.corefile_template if asked.proxy_type in ("", "dataplane") else None
    sidecar_document = sidecar_json(sidecar)
    sidecar_document["networking"]["corefileTemplate"] = _base64(template) if template is not None else None
    whole = {"bootstrap": _base64(text), "kumaSidecarConfiguration": sidecar_document}
    return HttpResponse(200, json.dumps(whole).encode(), JSON)


def _text(document: Document) -> bytes:
    """JSON, which is YAML, and which kuma-dp reads as such; a hundred times faster to write."""
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _without_port(host: str) -> str:
    """The host of a ``Host`` header: ``name:1``, ``1.2.3.4``, ``[::1]:1``."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0] if host.count(":") == 1 else host
