"""Proxies: what their Envoys say, which policies are about them, and the other way round."""

import json
from collections.abc import Sequence
from typing import Any, cast

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from meshd.kds.admin.wire import What
from meshd.kinds.mesh import Mesh, MeshServicesMode
from meshd.model.errors import UnavailableError
from meshd.model.resource import Resource, ResourceKey
from meshd.model.resource_type import ResourceType
from meshd.rest import errors, index, inspect, matched, query, view
from meshd.rest.api import Api, Handler, answer_page, find
from meshd.rest.patch import patch


class ProxyHandlers:
    """Of proxies of one kind; ``matched_proxies``, ``attached_proxies``: those that a policy of the kind is about."""

    def __init__(self, api: Api, type_: ResourceType) -> None:
        self._api = api
        self._type = type_

    def inspect(self, what: What) -> Handler:
        """What the Envoy of a proxy says."""

        async def run(request: Request) -> Response:
            resource = find(
                self._api, self._type, request, f"Could not get {index.words(self._type.kind).lower()} resource"
            )
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
        dataplane = find(self._api, self._type, request, "Could not get MatchedPolicies")
        return JSONResponse(matched.policies_of(self._api.registry, self._api.store.list, dataplane))

    async def rules(self, request: Request) -> Response:
        """What the policies about one Dataplane say."""
        api = self._api
        resource = find(api, self._type, request, f"Could not retrieve {self._type.kind}")
        mesh = api.store.get(ResourceKey("Mesh", "", resource.key.mesh))
        if mesh is None:
            raise errors.not_found(errors.MESH)
        stored = {t.kind: api.store.list(t.kind, resource.key.mesh) for t in api.registry if t.is_policy}

        def answer() -> Response:
            found = matched.rules_of(api.registry, api.policies, lambda kind, _: stored[kind], mesh, resource)
            return JSONResponse(found)

        # Seconds, if the clients of a policy are told apart by many tags.
        return await api.aside.run(answer)

    async def config(self, request: Request) -> Response:
        """What one Dataplane is sent, as things are or with the shadow policies, and the difference."""
        api = self._api
        if api.role.is_global:
            raise errors.not_allowed("Not allowed on global CP")
        dataplane = find(api, self._type, request, inspect.NO_INSIGHT)
        shadow, diff = inspect.read_config_query(request.query_params)
        found = await api.config_of(dataplane.key, shadow)
        before = await api.config_of(dataplane.key, False) if diff and shadow else found
        if found is None or before is None:
            detail = f"{dataplane.key} has no Envoy that is connected to this control plane"
            raise errors.RequestError(404, inspect.NO_INSIGHT, detail)

        def text() -> str:
            answer: dict[str, Any] = {"xds": found}
            if diff:
                answer["diff"] = list(patch(before, found))
            return json.dumps(answer, indent=1)  # kumactl prints it as it comes

        return Response(await api.aside.run(text), media_type="application/json")

    async def needs_mesh_services(self, request: Request) -> Response:
        """What Kuma answers about a Dataplane in a mesh without MeshServices, which nothing here acts upon."""
        dataplane = find(self._api, self._type, request)
        mesh = self._api.store.get(ResourceKey("Mesh", "", dataplane.key.mesh))
        if mesh is not None and cast("Mesh", mesh.spec).mesh_services.mode is MeshServicesMode.EXCLUSIVE:
            raise errors.bad_request(f"{mesh.key} is to have only MeshServices, which nothing here acts upon")
        # Kuma's own words, for _routes too
        part = "_layout" if request.url.path.endswith("/_layout") else "_policies"
        raise errors.bad_request(f"bad request: can't use {part} endpoint without meshService enabled")

    async def matched_proxies(self, request: Request) -> Response:
        """A page of the Dataplanes that one policy changes something for."""
        wanted = request.query_params.multi_items()
        page = query.read_page(wanted)
        found = self._proxies(request, query.read_filters(wanted, "Dataplane"))
        items = [matched.identity(d, self._api.registry) for d in found[page.offset : page.offset + page.size]]
        return answer_page(request, page, items, len(found), view.part_of)

    async def attached_proxies(self, request: Request) -> Response:
        """All of them, in the form of older clients, which know no pages."""
        items = [matched.attached(dataplane) for dataplane in self._proxies(request)]
        return JSONResponse(view.part_of(items, len(items), None))

    def _proxies(self, request: Request, tests: Sequence[query.Test] = ()) -> list[Resource]:
        policy = find(self._api, self._type, request)
        dataplanes = query.select(self._api.store.list("Dataplane", policy.key.mesh), tests)
        return matched.proxies_of(self._type, policy, dataplanes)

    async def host_names(self, request: Request) -> Response:
        """The host names of a service that is a resource: there are none here."""
        find(self._api, self._type, request, "could not retrieve service")
        return JSONResponse(view.part_of([], 0, None))
