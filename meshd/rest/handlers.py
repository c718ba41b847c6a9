"""One request in, one answer out: finds, lists, writes, and the rest of the API."""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from prometheus_client import CollectorRegistry, Counter
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from meshd.ca.access import User, authenticate_user
from meshd.ca.service import read_materials
from meshd.config import Config
from meshd.kds.admin.wire import Question, What
from meshd.kinds.defaults import on_write
from meshd.model.codec import decode_document, encode_document
from meshd.model.errors import InvalidError, MeshdError, NotFoundError, UnavailableError, Violation
from meshd.model.registry import Registry
from meshd.model.resource import Resource, ResourceKey
from meshd.model.resource_type import ResourceType, Scope
from meshd.rest import access, errors, index, inspect, matched, query, tokens, view, writes
from meshd.rest.authn import identify
from meshd.rest.body import LONG_BYTES, read_body
from meshd.runtime.aside import Aside
from meshd.store.store import Create, Delete, Store, Update

log = logging.getLogger(__name__)

ExplainName = Callable[[str, str], Mapping[str, Any]]
"""``dns.explain``: (name, type) -> what a client that asks is told, and why."""
Handler = Callable[[Request], Awaitable[Response]]


Inspect = Callable[[str, Question], Awaitable[bytes]]
"""Asks the Envoy of a proxy of a zone; raises UnavailableError if that cannot be."""


async def nobody_to_ask(_: str, question: Question) -> bytes:
    """The ``inspect`` of a control plane without proxies."""
    raise UnavailableError(f"{question.proxy} has no Envoy that is connected to this control plane")


def nothing() -> Mapping[str, Any]:
    """The ``kds_status`` of a control plane without KDS."""
    return {}


def unknown(_: str) -> Mapping[str, Any] | None:
    """The ``zone_sync`` of a control plane without KDS."""
    return None


def alone(_: Resource) -> Sequence[Resource]:
    """The ``initial`` of a control plane whose new meshes have no policies."""
    return ()


@dataclass(frozen=True, slots=True)
class Api:
    """What the handlers work with.

    ``initial`` makes the policies that a new Mesh begins with.
    ``inspect`` asks the Envoy of a proxy of a zone ("" for one that says none).
    ``explain_name`` is shown at ``/_dns/NAME``, ``kds_status`` at ``/_kds``: connections, quarantine, plain data.
    ``zone_sync`` is shown at ``/zones/ZONE/_sync``, None of a zone of which nothing is known. ``now`` is UTC.
    """

    store: Store
    registry: Registry
    config: Config
    now: Callable[[], datetime]
    instance_id: str
    hostname: str
    kds_status: Callable[[], Mapping[str, Any]] = nothing
    zone_sync: Callable[[str], Mapping[str, Any] | None] = unknown
    initial: Callable[[Resource], Sequence[Resource]] = alone
    explain_name: ExplainName | None = None
    inspect: Inspect = nobody_to_ask
    aside: Aside = field(default_factory=Aside)

    @property
    def role(self) -> access.Role:
        """What this control plane is, as far as writing goes."""
        return access.Role(
            is_global=self.config.is_global,
            is_federated=self.config.is_federated,
            zone=self.config.zone_name,
            read_only=self.config.api_server.read_only,
            allow_zone_policies=self.config.multizone.zone.allow_zone_policies,
        )

    def user(self, request: Request) -> User:
        """Who is calling.

        Raises:
            RequestError: 401.
        """
        headers = {name.lower(): value for name, value in request.headers.items()}
        return identify(
            headers,
            request.client.host if request.client else "",
            localhost_is_admin=self.config.api_server.authn.localhost_is_admin,
            authenticate=lambda token: authenticate_user(self.store, token, self.now()),
        )

    async def read(self, request: Request) -> Any:
        """The body as data; see ``read_body``. Long ones are read one at a time, beside the loop."""
        body, content_type = await request.body(), request.headers.get("content-type", "")
        if len(body) <= LONG_BYTES:
            return read_body(body, content_type)
        return await self.aside.run(read_body, body, content_type)


class Metrics:
    """Requests by method and status."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "meshd_rest_requests_total",
            "Requests to the API by method and status.",
            ["method", "status"],
            registry=registry,
        )


def guarded(handler: Handler, title: str) -> Handler:
    """A handler whose errors become answers titled ``title``."""

    async def run(request: Request) -> Response:
        try:
            return await handler(request)
        except MeshdError as error:
            refused = errors.explain(error, title)
            if refused.status >= 500:
                log.exception("%s %s failed", request.method, request.url.path)
            return errors.answer(refused)
        except Exception:  # request edge: a bug here costs one request
            log.exception("%s %s failed", request.method, request.url.path)
            return errors.answer(errors.RequestError(500, title, "Internal Server Error"))

    return run


class ResourceHandlers:
    """CRUD, lists and overviews of one kind."""

    def __init__(self, api: Api, type_: ResourceType) -> None:
        self._api = api
        self._type = type_

    def _key(self, request: Request) -> ResourceKey:
        mesh = request.path_params.get("mesh", "") if self._type.scope is Scope.MESH else ""
        return ResourceKey(self._type.kind, mesh, request.path_params["name"])

    def _check_mesh(self, request: Request) -> str | None:
        mesh: str | None = request.path_params.get("mesh")
        if mesh is not None and self._api.store.get(ResourceKey("Mesh", "", mesh)) is None:
            raise errors.not_found(errors.MESH)
        return mesh

    async def find(self, request: Request) -> Response:
        """One resource."""
        resource = self._find(request)
        check_format(request)
        return JSONResponse(encode_document(resource, self._api.registry))

    async def find_overview(self, request: Request) -> Response:
        """One resource with its insight."""
        resource = self._find(request)
        return JSONResponse(view.overview(resource, self._insight(resource), self._api.registry))

    def _find(self, request: Request, title: str = errors.GET) -> Resource:
        self._check_mesh(request)
        access.check_user(self._api.user(request), self._type)
        resource = self._api.store.get(self._key(request))
        if resource is None:
            raise errors.not_found(title)
        return resource

    def _insight(self, resource: Resource) -> Resource | None:
        kind = view.OVERVIEWS[resource.key.kind].insight
        return self._api.store.get(replace(resource.key, kind=kind))

    def inspect(self, what: What) -> Handler:
        """What the Envoy of a proxy says."""

        async def run(request: Request) -> Response:
            resource = self._find(request, f"Could not get {index.words(self._type.kind).lower()} resource")
            inspect.check_is_here(resource, self._api.role.zone)
            asked = inspect.question(what, resource, request.query_params)
            try:
                body = await self._api.inspect(inspect.zone_of(resource), asked)
            except UnavailableError as error:
                raise inspect.failure(error) from None
            return Response(body, media_type=inspect.media_type(asked))

        return run

    async def matched_policies(self, request: Request) -> Response:
        """The policies about one Dataplane."""
        dataplane = self._find(request, "Could not get MatchedPolicies")
        return JSONResponse(matched.policies_of(self._api.registry, self._api.store.list, dataplane))

    async def needs_mesh_services(self, request: Request) -> Response:
        """What Kuma answers about a Dataplane in a mesh without MeshServices, which none here uses."""
        self._find(request)
        part = request.url.path.rpartition("/")[2]
        raise errors.bad_request(f"bad request: can't use {part} endpoint without meshService enabled")

    async def matched_proxies(self, request: Request) -> Response:
        """A page of the Dataplanes that one policy changes something for."""
        return self._page_of_proxies(request, lambda d: matched.identity(d, self._api.registry))

    async def attached_proxies(self, request: Request) -> Response:
        """The same in the form of older clients."""
        return self._page_of_proxies(request, matched.attached)

    def _page_of_proxies(self, request: Request, show: Callable[[Resource], Any]) -> Response:
        wanted = request.query_params.multi_items()
        page = query.read_page(wanted)
        tests = query.read_filters(wanted, "Dataplane")
        policy = self._find(request)
        dataplanes = query.select(self._api.store.list("Dataplane", policy.key.mesh), tests)
        found = matched.proxies_of(self._type, policy, dataplanes)
        items = [show(d) for d in found[page.offset : page.offset + page.size]]
        return answer_page(request, page, items, len(found))

    async def list(self, request: Request) -> Response:
        """A page of the resources."""
        return self._page(request, lambda r: encode_document(r, self._api.registry))

    async def list_overviews(self, request: Request) -> Response:
        """A page of the resources with their insights."""
        return self._page(request, lambda r: view.overview(r, self._insight(r), self._api.registry))

    def _page(self, request: Request, show: Callable[[Resource], Any]) -> Response:
        wanted = request.query_params.multi_items()
        page = query.read_page(wanted)
        tests = query.read_filters(wanted, self._type.kind)
        mesh = self._check_mesh(request)
        access.check_user(self._api.user(request), self._type)
        found = query.select(self._api.store.list(self._type.kind, mesh), tests)
        items = [show(r) for r in found[page.offset : page.offset + page.size]]
        return answer_page(request, page, items, len(found))

    async def put(self, request: Request) -> Response:
        """Create or replace one resource."""
        api, key = self._api, self._key(request)
        user = api.user(request)
        access.check_user(user, self._type)
        refused = access.refusal(self._type, api.role)
        if refused is not None:
            raise refused
        document = await api.read(request)
        wanted = self._decode(key, document)
        if self._type.scope is Scope.MESH:
            writes.check_mesh(api.store, key.mesh)
        stored = api.store.get(key)
        if stored is not None:
            access.check_stored(stored, api.role)
        wrong = list(access.label_violations(self._type, wanted.labels, stored, api.role))
        if key.kind == "Mesh":
            wrong += writes.mesh_violations(stored, wanted, await read_materials(api.store, wanted))
        elif key.kind == "Dataplane":
            wrong += writes.dataplane_violations(api.store, wanted)
        if wrong:
            raise InvalidError(str(key), wrong)
        is_probed = key.kind == "Dataplane" and api.config.has_probes(key.mesh, key.name)
        made = on_write(wanted, self._type, zone=api.role.zone, is_probed=is_probed, stored=stored)
        resource = writes.carry_over(made, stored)
        writes.check_among_others(api.store, resource)
        if stored is not None:
            await api.store.write([Update(resource)])
        else:
            first = api.initial(resource) if key.kind == "Mesh" else ()
            await api.store.write([Create(resource), *writes.initial_edits(api.store, first)])
        if stored is None or not stored.same_content(resource):
            log.info("%s %s by=%s", key, "created" if stored is None else "updated", user.name)
        said = writes.warnings(api.store, resource)
        return JSONResponse({"warnings": said} if said else {}, 200 if stored is not None else 201)

    def _decode(self, key: ResourceKey, document: Any) -> Resource:
        """The resource of a body, which names the same resource as the URL."""
        if not isinstance(document, Mapping):
            raise errors.bad_request("the body must be an object with type and name")
        wrong = writes.url_violations(self._type, key, document)
        whole = {"type": key.kind, "name": key.name, **({"mesh": key.mesh} if key.mesh else {})}
        try:
            # with the URL's names, so that a wrong one does not hide what else is wrong
            resource = decode_document({**document, **whole}, self._api.registry)
        except InvalidError as error:
            raise InvalidError(error.subject, [*wrong, *error.violations]) from None
        if wrong:
            raise InvalidError(str(key), wrong)
        return resource

    async def delete(self, request: Request) -> Response:
        """Delete one resource and what it owns."""
        api, key = self._api, self._key(request)
        self._check_mesh(request)
        user = api.user(request)
        access.check_user(user, self._type)
        stored = api.store.get(key)
        refused = access.refusal(self._type, api.role, stored)
        if refused is not None:
            raise refused
        if stored is None:
            raise errors.not_found(errors.DELETE)
        access.check_stored(stored, api.role, "delete")
        writes.check_delete(api.store, key)
        await api.store.write([Delete(key, stored.version)])
        log.info("%s deleted by=%s", key, user.name)
        return JSONResponse({})


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

    async def name(self, request: Request) -> Response:
        """``GET /_dns/NAME?type=A``: what a client is told that asks this zone for a name, and why (meshd)."""
        self._api.user(request)
        if self._api.explain_name is None:
            raise errors.RequestError(
                404, errors.GET, "this control plane answers no names: a zone with dnsServer does"
            )
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
                items = [i for i in items if i["serviceType"] == value]
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
        mesh: str | None = request.path_params.get("mesh")
        if mesh is not None and self._api.store.get(ResourceKey("Mesh", "", mesh)) is None:
            raise errors.not_found(errors.MESH)
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
                raise errors.RequestError(404, "Signing Key not found", str(error)) from None

        return run


TOKENS: Mapping[str, Callable[[Store, Any, datetime], str]] = {
    "zone": tokens.zone_token,
    "dataplane": tokens.dataplane_token,
    "user": tokens.user_token,
}


def check_format(request: Request) -> None:
    """Refuse a format that is not the universal one.

    Raises:
        RequestError: 400.
    """
    wanted = request.query_params.get("format", "")
    if wanted not in ("", "universal"):
        violation = Violation(
            "format", f"must be universal, not '{wanted}'; Kubernetes is not available in this version"
        )
        raise errors.RequestError(400, errors.GET, "Resource is not valid", [violation])


def answer_page(request: Request, page: query.Page, items: list[Any], total: int) -> Response:
    """A list answer with the link to the next page."""
    url = request.url
    base = f"{url.scheme}://{request.headers.get('host') or url.netloc}{url.path}"
    link = query.next_link(base, request.query_params.multi_items(), page, total)
    return JSONResponse(view.page_of(items, total, link))
