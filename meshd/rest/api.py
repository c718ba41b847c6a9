"""What all handlers share: the control plane they speak for, who is calling, what was asked for, and errors."""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from prometheus_client import CollectorRegistry, Counter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from meshd.ca.access import User, authenticate_user
from meshd.config import Config
from meshd.kds.admin.wire import Question
from meshd.model.errors import MeshdError, UnavailableError
from meshd.model.registry import Registry
from meshd.model.resource import Resource, ResourceKey
from meshd.model.resource_type import ResourceType, Scope
from meshd.rest import access, errors, query, view
from meshd.rest.authn import identify
from meshd.rest.body import LONG_BYTES, read_body
from meshd.rules.explain import Sections
from meshd.runtime.aside import Aside
from meshd.store.store import Store

log = logging.getLogger(__name__)

ExplainName = Callable[[str, str], Mapping[str, Any]]
"""``dns.explain``: (name, type) -> what a client that asks is told, and why."""
Handler = Callable[[Request], Awaitable[Response]]
Inspect = Callable[[str, Question], Awaitable[bytes]]
"""Asks the Envoy of a proxy of a zone; raises UnavailableError if that cannot be."""


Configuration = Mapping[str, Mapping[str, Any]]
"""Envoy's resources by type and name, in JSON."""
ConfigOf = Callable[[ResourceKey, bool], Awaitable[Configuration | None]]
"""What a Dataplane is to have, True: if shadow policies were real; None if its Envoy is not connected here. Raises
UnavailableError if it cannot be rendered."""


async def no_config(_: ResourceKey, __: bool) -> Configuration | None:
    """The ``config_of`` of a control plane without proxies."""
    return None


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
    ``inspect`` asks the Envoy of a proxy of a zone ("" for one that says none), ``config_of`` says what one is sent.
    ``policies`` are those that have an effect, in the order in which they take it.
    ``dns_status`` is shown at ``/_dns``, ``explain_name`` at ``/_dns/NAME``, ``kds_status`` at ``/_kds``: connections,
    quarantine, plain data.
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
    config_of: ConfigOf = no_config
    policies: Sequence[tuple[ResourceType, Sections]] = ()
    aside: Aside = field(default_factory=Aside)
    dns_status: Callable[[], Mapping[str, Any]] | None = None

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


def key_of(request: Request, type_: ResourceType) -> ResourceKey:
    """The resource that the path names."""
    mesh = request.path_params.get("mesh", "") if type_.scope is Scope.MESH else ""
    return ResourceKey(type_.kind, mesh, request.path_params["name"])


def check_mesh(api: Api, request: Request) -> str | None:
    """The mesh that the path names, None if it names none.

    Raises:
        RequestError: 404, it is not there.
    """
    mesh: str | None = request.path_params.get("mesh")
    if mesh is not None and api.store.get(ResourceKey("Mesh", "", mesh)) is None:
        raise errors.not_found(errors.MESH)
    return mesh


def find(api: Api, type_: ResourceType, request: Request, title: str = errors.GET) -> Resource:
    """The resource that the path names.

    Raises:
        RequestError: 401 or 403, the caller may not see it; 404, it is not there, answered with ``title``.
    """
    check_mesh(api, request)
    access.check_user(api.user(request), type_)
    resource = api.store.get(key_of(request, type_))
    if resource is None:
        raise errors.not_found(title)
    return resource


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
            if refused.status == 503:  # the reason is known and is in the answer: somebody else cannot be reached
                log.warning("%s %s: %s: %s", request.method, request.url.path, refused.title, refused.detail)
            elif refused.status >= 500:
                log.exception("%s %s failed", request.method, request.url.path)
            return errors.answer(refused)
        except Exception:  # request edge: a bug here costs one request
            log.exception("%s %s failed", request.method, request.url.path)
            return errors.answer(errors.RequestError(500, title, "Internal Server Error"))

    return run


Print = Callable[[list[Any], int, str | None], dict[str, Any]]
"""Prints a list: the items of a page, how many there are in all, and the link to the next page."""


def answer_page(
    request: Request, page: query.Page, items: list[Any], total: int, print_: Print = view.page_of
) -> Response:
    """A list answer with the link to the next page."""
    url = request.url
    base = f"{url.scheme}://{request.headers.get('host') or url.netloc}{url.path}"
    link = query.next_link(base, request.query_params.multi_items(), page, total)
    return JSONResponse(print_(items, total, link))
