"""Everything that is not one kind's: the control plane itself, services, tokens, synchronization, names."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from meshd.kinds.service_insight import ServiceType
from meshd.model.errors import NotFoundError
from meshd.rest import access, errors, index, query, tokens, view
from meshd.rest.api import Api, Handler, answer_page, check_mesh
from meshd.rest.handlers import formatted
from meshd.rest.kri import read_kri
from meshd.store.store import Store

NO_KEY = "Signing Key not found"
"""What an error begins with that there is no key to sign a token."""


NO_NAMES = "this control plane answers no names: a zone with dnsServer does"


class OtherHandlers:
    """Everything that is not one kind's CRUD."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def index(self, _: Request) -> Response:
        """``GET /``."""
        return JSONResponse(index.index(self._api.store, self._api.hostname, self._api.instance_id))

    async def config(self, _: Request) -> Response:
        """``GET /config``: the settings in force. Secrets are in files; their paths are shown, never their content."""
        return JSONResponse(self._api.config.model_dump(mode="json", by_alias=True))

    async def policies(self, _: Request) -> Response:
        """``GET /policies``."""
        return JSONResponse(index.policies(self._api.registry))

    async def resources(self, _: Request) -> Response:
        """``GET /_resources``."""
        return JSONResponse(index.resources(self._api.registry))

    async def by_kri(self, request: Request) -> Response:
        """``GET /_kri/KRI``: one resource by Kuma's identifier."""
        wanted = read_kri(request.path_params["kri"], self._api.registry)
        access.check_user(self._api.user(request), wanted.type)
        resource = wanted.among(self._api.store.list(wanted.type.kind, wanted.mesh))
        if resource is None:
            raise errors.not_found(errors.GET)
        return formatted(self._api, request, resource)

    async def who_am_i(self, request: Request) -> Response:
        """``GET /who-am-i``."""
        user = self._api.user(request)
        return JSONResponse({"name": user.name, "groups": list(user.groups)})

    async def global_insight(self, request: Request) -> Response:
        """``GET /global-insight``."""
        self._api.user(request)
        return JSONResponse(index.global_insight(self._api.store, self._api.registry))

    async def kds(self, request: Request) -> Response:
        """``GET /_kds``: the state of synchronization (meshd)."""
        self._api.user(request)
        return JSONResponse(dict(self._api.kds_status()))

    async def dns(self, request: Request) -> Response:
        """``GET /_dns``: how the resolver does, and for administrators the names that are asked for most (meshd)."""
        user = self._api.user(request)
        if self._api.dns_status is None:
            raise errors.RequestError(404, errors.GET, NO_NAMES)
        told = dict(self._api.dns_status())
        if not user.is_admin:
            # They are what people and programs of this host look up anywhere, not only in the mesh.
            del told["topNames"]
        return JSONResponse(told)

    async def name(self, request: Request) -> Response:
        """``GET /_dns/NAME?type=A``: what a client is told that asks this zone for a name, and why (meshd)."""
        self._api.user(request)
        if self._api.explain_name is None:
            raise errors.RequestError(404, errors.GET, NO_NAMES)
        asked = request.path_params["name"], request.query_params.get("type", "A")
        return JSONResponse(dict(self._api.explain_name(*asked)))

    async def zone_sync(self, request: Request) -> Response:
        """``GET /zones/ZONE/_sync``: how this control plane and the other end agree, kind by kind (meshd)."""
        self._api.user(request)
        zone = request.path_params["name"]
        sync = self._api.zone_sync(zone)
        if sync is None:
            detail = f"zone {zone!r}: this control plane has no streams with a zone of that name"
            raise errors.RequestError(404, "Could not retrieve the synchronization", detail)
        return JSONResponse(dict(sync))

    async def services(self, request: Request) -> Response:
        """Virtual per-service items: all, or of one mesh."""
        wanted = request.query_params.multi_items()
        page = query.read_page(wanted)
        items = self._services(request)
        for name, value in wanted:
            if name == "name" and value:
                items = [i for i in items if value in i["name"]]
            elif name == "type" and value:
                types = query.read_service_types(value)
                items = [i for i in items if i.get("serviceType", ServiceType.INTERNAL) in types]
        return answer_page(request, page, items[page.offset : page.offset + page.size], len(items))

    async def service(self, request: Request) -> Response:
        """One virtual per-service item."""
        wanted = request.path_params["name"]
        for item in self._services(request):
            if item["name"] == wanted:
                return JSONResponse(item)
        raise errors.not_found(errors.GET)

    def _services(self, request: Request) -> list[dict[str, Any]]:
        self._api.user(request)
        mesh = check_mesh(self._api, request)
        return view.service_items(list(self._api.store.list("ServiceInsight", mesh)), self._api.registry)

    def token(self, issue: Callable[[Store, Any, datetime], str]) -> Handler:
        """``POST /tokens/...``: the token and nothing else, for administrators."""

        async def run(request: Request) -> Response:
            user = self._api.user(request)
            if not user.is_admin:
                raise access.denied(user, "cannot generate tokens")
            data = await self._api.read(request)
            try:
                return PlainTextResponse(issue(self._api.store, data, self._api.now()))
            except NotFoundError as error:
                detail = str(error).removeprefix(f"{NO_KEY}: ")
                raise errors.RequestError(404, NO_KEY, detail) from None

        return run


TOKENS: Mapping[str, Callable[[Store, Any, datetime], str]] = {
    "zone": tokens.zone_token,
    "dataplane": tokens.dataplane_token,
    "user": tokens.user_token,
}
