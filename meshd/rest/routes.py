"""The applications: the API, and diagnostics."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from meshd.kds.admin.wire import PROXY_KINDS
from meshd.model.resource_type import ResourceType
from meshd.model.resource_type import Scope as KindScope
from meshd.rest import errors, inspect
from meshd.rest.api import Api, Metrics, guarded
from meshd.rest.handlers import ResourceHandlers
from meshd.rest.others import TOKENS, OtherHandlers
from meshd.rest.proxies import ProxyHandlers
from meshd.rest.view import OVERVIEWS

SERVICES = "ServiceInsight"
GATEWAY = "MeshGateway"
RULED = ("Dataplane", GATEWAY)
"""Kinds whose resources have ``_rules``."""
WITH_HOST_NAMES = ("MeshService", "MeshExternalService", "MeshMultiZoneService")
NEED_MESH_SERVICES = (
    "_layout",
    "_policies",
    "_inbounds/{inbound}/_policies",
    "_outbounds/{outbound}/_policies",
    "_outbounds/{outbound}/_routes",
    "_outbounds/{outbound}/_routes/{route}/_policies",
)
"""What Kuma answers about Dataplanes of meshes that have only MeshServices."""


def api_app(api: Api, metrics: Metrics) -> ASGIApp:
    """The API."""
    other = OtherHandlers(api)
    routes = [
        get("/", other.index),
        get("/config", other.config),
        get("/policies", other.policies),
        get("/_resources", other.resources),
        get("/_kri/{kri}", other.by_kri),
        get("/who-am-i", other.who_am_i),
        get("/global-insight", other.global_insight),
        get("/_kds", other.kds),
        get("/_dns", other.dns),
        get("/_dns/{name}", other.name),
        get("/zones/{name}/_sync", other.zone_sync),
        get("/service-insights", other.services, errors.LIST),
        get("/meshes/{mesh}/service-insights", other.services, errors.LIST),
        get("/meshes/{mesh}/service-insights/{name}", other.service),
    ]
    routes += [
        Route(f"/tokens/{what}", guarded(other.token(issue), f"Could not issue a {what} token"), methods=["POST"])
        for what, issue in TOKENS.items()
    ]
    for type_ in api.registry:
        if type_.path and type_.kind != SERVICES:
            routes += resource_routes(api, type_)
    app = Starlette(routes=routes, exception_handlers={404: page_not_found, 405: method_not_allowed})
    app.router.redirect_slashes = False
    return Counted(app, metrics)


def resource_routes(api: Api, type_: ResourceType) -> list[Route]:
    """Every route of one kind, more special ones first."""
    handlers = ResourceHandlers(api, type_)
    in_mesh = "/meshes/{mesh}" if type_.scope is KindScope.MESH else ""
    routes = []
    for path in (type_.path, *type_.aliases):
        lists = [f"/{path}", f"{in_mesh}/{path}"] if in_mesh else [f"/{path}"]
        item = f"{in_mesh}/{path}/{{name}}"
        if type_.kind in OVERVIEWS:
            legacy = OVERVIEWS[type_.kind].legacy
            routes += [get(f"{prefix}/_overview", handlers.list_overviews, errors.LIST) for prefix in lists]
            routes.append(get(f"{item}/_overview", handlers.find_overview))
            old = [prefix.removesuffix(path) + legacy for prefix in lists]
            routes += [get(prefix, handlers.list_overviews, errors.LIST) for prefix in old]
            routes.append(get(f"{in_mesh}/{legacy}/{{name}}", handlers.find_overview))
        routes += proxy_routes(ProxyHandlers(api, type_), type_, item)
        routes += [get(prefix, handlers.list, errors.LIST) for prefix in lists]
        routes += [
            get(item, handlers.find),
            Route(item, guarded(handlers.put, errors.PROCESS), methods=["PUT"]),
            Route(item, guarded(handlers.delete, errors.DELETE), methods=["DELETE"]),
        ]
    return routes


def proxy_routes(handlers: ProxyHandlers, type_: ResourceType, item: str) -> list[Route]:
    """The routes about one proxy, or about the proxies of one policy; ``item`` is the path of the resource."""
    routes = []
    if type_.kind in PROXY_KINDS:
        routes += [get(f"{item}/{part}", handlers.inspect(what)) for part, what in inspect.PATHS.items()]
    if type_.kind in RULED:
        routes.append(get(f"{item}/_rules", handlers.rules))
    if type_.kind == "Dataplane":
        routes.append(get(f"{item}/policies", handlers.matched_policies))
        routes.append(get(f"{item}/_config", handlers.config))
        routes += [get(f"{item}/{part}", handlers.needs_mesh_services) for part in NEED_MESH_SERVICES]
    if type_.kind in WITH_HOST_NAMES:
        routes.append(get(f"{item}/_hostnames", handlers.host_names))
    if type_.kind == "MeshService":
        routes += [get(f"{item}/{part}", handlers.matched_proxies) for part in ("_dataplanes", "_resources/dataplanes")]
    if type_.kind == GATEWAY:
        routes.append(get(f"{item}/dataplanes", handlers.attached_proxies, errors.LIST))
    if type_.is_policy:
        # kumactl asks with a hyphen
        routes += [get(f"{item}/{mark}resources/dataplanes", handlers.matched_proxies, errors.LIST) for mark in "_-"]
        routes.append(get(f"{item}/dataplanes", handlers.attached_proxies, errors.LIST))
    return routes


def get(path: str, handler: Callable[[Request], Awaitable[Response]], title: str = errors.GET) -> Route:
    """A GET (and HEAD) route."""
    return Route(path, guarded(handler, title), methods=["GET"])


async def page_not_found(_: Request, __: Exception) -> Response:
    """An unknown URL: plain text, which kuma-dp expects."""
    return PlainTextResponse("404: Page Not Found", 404)


async def method_not_allowed(request: Request, _: Exception) -> Response:
    """A known URL with another method."""
    refused = errors.not_allowed(f"{request.method} is not supported here")
    return errors.answer(refused)


class Counted:
    """Counts requests by method and status."""

    METHODS = frozenset({"GET", "HEAD", "PUT", "POST", "DELETE"})

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                method = scope["method"] if scope["method"] in self.METHODS else "other"
                self._metrics.requests.labels(method, str(message["status"])).inc()
            await send(message)

        await self._app(scope, receive, counted if scope["type"] == "http" else send)


def diagnostics_app(registry: CollectorRegistry, ready: Callable[[], str]) -> ASGIApp:
    """``/healthy``, ``/ready``, ``/metrics``. ``ready`` returns what is still missing, empty when all is there."""

    async def healthy(_: Request) -> Response:
        return PlainTextResponse("healthy\n")

    async def readiness(_: Request) -> Response:
        missing = ready()
        return PlainTextResponse(f"not ready: {missing}\n", 503) if missing else PlainTextResponse("ready\n")

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    handlers: Mapping[str, Any] = {"/healthy": healthy, "/ready": readiness, "/metrics": metrics}
    app = Starlette(
        routes=[get(path, handler) for path, handler in handlers.items()], exception_handlers={404: page_not_found}
    )
    app.router.redirect_slashes = False
    return app
