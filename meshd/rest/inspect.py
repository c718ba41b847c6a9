"""What the Envoy of a proxy says: which proxy a request is about, and which control plane can ask it.

Source: reference/dataplane.md 6.5 ("Inspect").
"""

from collections.abc import Mapping

from meshd.kds.admin.wire import Question, What
from meshd.model import labels as label
from meshd.model.errors import UnavailableError
from meshd.model.resource import Resource, ResourceKey
from meshd.rest.errors import RequestError, bad_request

PATHS: Mapping[str, What] = {"xds": What.CONFIG_DUMP, "stats": What.STATS, "clusters": What.CLUSTERS}
"""Last part of the path -> what is asked."""
FAILED = "Could not execute admin operation"
TRUE = ("true", "1", "")
GO_TRUE = ("1", "t", "T", "true", "TRUE", "True")
GO_FALSE = ("0", "f", "F", "false", "FALSE", "False")
"""What Kuma reads as yes and no."""
NO_INSIGHT = "Failed to fetch dataplane insight"


def question(what: What, resource: Resource, query: Mapping[str, str]) -> Question:
    """What a request asks about a proxy.

    Raises:
        RequestError: 400, a format that there is not.
    """
    wanted = query.get("format", "")
    if wanted.lower() not in ("", "text", "json"):
        raise bad_request(f"format must be text or json, not '{wanted}'")
    proxy = resource.key
    return Question(
        what,
        ResourceKey(proxy.kind, proxy.mesh, resource.display_name),
        include_eds=what is What.CONFIG_DUMP and query.get("include_eds", "false").lower() in TRUE,
        as_json=what is not What.CONFIG_DUMP and wanted.lower() == "json",
        used_only=what is What.STATS and query.get("usedonly", "true").lower() in TRUE,
    )


def zone_of(resource: Resource) -> str:
    """The zone whose control plane has a proxy; empty for one that says none."""
    return resource.labels.get(label.ZONE) or str(getattr(resource.spec, "zone", ""))


def check_is_here(resource: Resource, zone: str) -> None:
    """Refuse to ask for a proxy of another zone at a zone.

    Raises:
        RequestError: 400.
    """
    of = zone_of(resource)
    if zone and of not in ("", zone):
        raise bad_request(f"{resource.key} is of zone '{of}': ask there, or at the global")


def media_type(asked: Question) -> str:
    """Of the answer."""
    return "application/json" if asked.as_json or asked.what is What.CONFIG_DUMP else "text/plain"


def read_config_query(query: Mapping[str, str]) -> tuple[bool, bool]:
    """Whether ``_config`` is to be told with the shadow policies, and whether with the difference.

    Raises:
        RequestError: 400, as in Kuma.
    """
    shadow = query.get("shadow", "")
    if shadow not in ("", *GO_TRUE, *GO_FALSE):
        raise bad_request("unsupported value for query parameter 'shadow'")
    wanted = [part for part in query.get("include", "").split(",") if part]
    if any(part != "diff" for part in wanted):
        raise bad_request("unsupported value for query parameter 'include'")
    return shadow in GO_TRUE, bool(wanted)


def failure(error: UnavailableError) -> RequestError:
    """The answer when Envoy could not be asked: whoever asks is an operator, who needs the reason."""
    return RequestError(503, FAILED, str(error))
