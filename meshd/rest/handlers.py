"""Resources: finds, lists, writes and overviews of one kind."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from meshd.ca.service import read_materials
from meshd.kinds.defaults import on_write
from meshd.model.codec import decode_document, encode_document
from meshd.model.errors import InvalidError, Violation
from meshd.model.resource import Resource, ResourceKey, Spec
from meshd.model.resource_type import ResourceType, Scope
from meshd.rest import access, errors, kubernetes, query, view, writes
from meshd.rest.api import Api, answer_page, check_mesh, find, key_of
from meshd.rest.own_zone import insight_of
from meshd.store.store import Create, Delete, Update

log = logging.getLogger(__name__)


class ResourceHandlers:
    """CRUD, lists and overviews of one kind."""

    def __init__(self, api: Api, type_: ResourceType) -> None:
        self._api = api
        self._type = type_

    async def find(self, request: Request) -> Response:
        """One resource."""
        return formatted(self._api, request, find(self._api, self._type, request))

    async def find_overview(self, request: Request) -> Response:
        """One resource with its insight."""
        resource = find(self._api, self._type, request)
        return JSONResponse(view.single_overview(resource, self._insight(resource), self._api.registry))

    def _insight(self, resource: Resource) -> Spec | None:
        kind = view.OVERVIEWS[resource.key.kind].insight
        stored = self._api.store.get(replace(resource.key, kind=kind))
        if stored is None and kind == "ZoneInsight" and resource.key.name == self._api.role.zone:
            sync = self._api.zone_sync(resource.key.name)
            return insight_of(sync, self._api.instance_id) if sync is not None else None
        return stored.spec if stored is not None else None

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
        mesh = check_mesh(self._api, request)
        access.check_user(self._api.user(request), self._type)
        found = query.select(self._api.store.list(self._type.kind, mesh), tests)
        items = [show(r) for r in found[page.offset : page.offset + page.size]]
        return answer_page(request, page, items, len(found))

    async def put(self, request: Request) -> Response:
        """Create or replace one resource."""
        api, key = self._api, key_of(request, self._type)
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
        api, key = self._api, key_of(request, self._type)
        check_mesh(self._api, request)
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


def formatted(api: Api, request: Request, resource: Resource) -> JSONResponse:
    """One resource in the format that was asked for.

    Raises:
        RequestError: 400, an unknown format.
    """
    wanted = request.query_params.get("format", "")
    if wanted in kubernetes.FORMATS:
        namespace = request.query_params.get("namespace", "")
        return JSONResponse(kubernetes.kubernetes_object(resource, api.registry, namespace))
    if wanted not in ("", "universal"):
        violation = Violation("format", f"must be one of k8s, kubernetes, universal, not '{wanted}'")
        raise errors.RequestError(400, errors.GET, "Resource is not valid", [violation])
    return JSONResponse(encode_document(resource, api.registry))
