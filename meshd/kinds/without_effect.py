"""The kinds that are stored, checked, synced and printed, but that nothing here acts upon: an entry each.

A kind leaves this table when something acts on it: then it gets a module of its own (or a folder in ``policies``).
Facts: reference/dataplane.md 6.3 (paths, short names), reference/kds.md 4.1 (directions) and 6 (encodings).
"""

from collections.abc import Iterator
from typing import Any

from meshd.kinds import open_specs
from meshd.kinds.from_message import spec_from_message
from meshd.kinds.rules import tag_violations
from meshd.model.errors import Violation
from meshd.model.resource import Resource, Spec
from meshd.model.resource_type import Flow, ResourceType, Scope
from meshd.proto.kuma.mesh import v1alpha1 as proto

_GLOBAL = Flow.GLOBAL_TO_ZONE | Flow.HASHED
_ZONE = Flow.ZONE_TO_GLOBAL | Flow.ZONE_LOCAL
_BOTH = _GLOBAL | _ZONE
_ACROSS = _ZONE | Flow.ACROSS_ZONES | Flow.HASHED
_POLICY = _BOTH | Flow.ACROSS_ZONES

_SELECTORS = ("sources", "destinations", "selectors")


def _validate_selectors(resource: Resource) -> tuple[Violation, ...]:
    """What is wrong with the selectors of an old policy: each list needs one, and each needs tags."""
    return tuple(_selector_violations(resource.spec))


def _selector_violations(spec: Spec) -> Iterator[Violation]:
    for name in _SELECTORS:
        selectors: Any = getattr(spec, name, None)
        if selectors is None:
            continue
        if not selectors:
            yield Violation(name, "must have at least one element")
        for index, selector in enumerate(selectors):
            at = f"{name}[{index}].match"
            if not selector.match:
                yield Violation(at, "must have at least one tag")
            yield from tag_violations(at, selector.match, selector=True)


def _old(
    message: Any, path: str, doc: str, *, short: str = "", flow: Flow = _GLOBAL, policy: bool = True
) -> ResourceType:
    """A kind that selects by tags and travels as protobuf."""
    name = message.__name__
    return ResourceType(
        kind=name,
        path=path,
        short=short,
        scope=Scope.MESH,
        flow=flow,
        spec=spec_from_message(message),
        message=message,
        message_name=f"kuma.mesh.v1alpha1.{name}",
        validate=_validate_selectors,
        is_policy=policy,
        doc=doc,
    )


def _json(
    kind: str,
    path: str,
    short: str,
    spec: type[Spec],
    flow: Flow,
    doc: str,
    *,
    scope: Scope = Scope.MESH,
    status: bool = False,
) -> ResourceType:
    """A kind that travels as JSON."""
    return ResourceType(
        kind=kind,
        path=path,
        short=short,
        scope=scope,
        flow=flow,
        spec=spec,
        flat=False,
        status=open_specs.Part if status else None,
        validate=open_specs.validate,
        is_policy=flow == _POLICY,
        doc=doc,
    )


OLD: tuple[ResourceType, ...] = (
    _old(proto.CircuitBreaker, "circuit-breakers", "Which endpoints are left out; MeshCircuitBreaker replaces it."),
    _old(proto.FaultInjection, "fault-injections", "Delays and errors on purpose; MeshFaultInjection replaces it."),
    _old(proto.HealthCheck, "health-checks", "Probes of endpoints; MeshHealthCheck replaces it."),
    _old(
        proto.MeshGateway,
        "meshgateways",
        "Listeners of a builtin gateway.",
        short="mgw",
        flow=_BOTH,
        policy=False,
    ),
    _old(proto.MeshGatewayRoute, "meshgatewayroutes", "Routes of a builtin gateway; MeshHTTPRoute replaces it."),
    _old(proto.ProxyTemplate, "proxytemplates", "Changes to an Envoy's resources; MeshProxyPatch replaces it."),
    _old(proto.RateLimit, "rate-limits", "Limits of requests; MeshRateLimit replaces it."),
    _old(proto.Retry, "retries", "Another attempt; MeshRetry replaces it."),
    _old(proto.Timeout, "timeouts", "How long things may take; MeshTimeout replaces it."),
    _old(proto.TrafficLog, "traffic-logs", "Logs of requests; MeshAccessLog replaces it."),
    _old(proto.TrafficPermission, "traffic-permissions", "Who may connect; MeshTrafficPermission replaces it."),
    _old(proto.TrafficRoute, "traffic-routes", "Where requests go; MeshHTTPRoute and MeshTCPRoute replace it."),
    _old(proto.TrafficTrace, "traffic-traces", "Spans of requests; MeshTrace replaces it."),
    _old(proto.VirtualOutbound, "virtual-outbounds", "Names for services by a template."),
)

JSON: tuple[ResourceType, ...] = (
    _json(
        "HostnameGenerator",
        "hostnamegenerators",
        "hg",
        open_specs.HostnameGenerator,
        _BOTH,
        "Gives services names by a template.",
        scope=Scope.GLOBAL,
    ),
    _json("MeshService", "meshservices", "msvc", open_specs.MeshService, _ACROSS, "A service of a zone.", status=True),
    _json(
        "MeshExternalService",
        "meshexternalservices",
        "extsvc",
        open_specs.MeshExternalService,
        _BOTH,
        "Something outside the mesh that has a name inside it.",
        status=True,
    ),
    _json(
        "MeshMultiZoneService",
        "meshmultizoneservices",
        "mzsvc",
        open_specs.MeshMultiZoneService,
        _GLOBAL,
        "A service that is in several zones.",
        status=True,
    ),
    _json(
        "MeshZoneAddress",
        "meshzoneaddresses",
        "mza",
        open_specs.MeshZoneAddress,
        _ACROSS,
        "Where a zone's ingress for a mesh can be reached.",
    ),
    _json(
        "MeshIdentity",
        "meshidentities",
        "mid",
        open_specs.MeshIdentity,
        _BOTH,
        "How proxies get their SPIFFE ids.",
        status=True,
    ),
    _json(
        "MeshTrust",
        "meshtrusts",
        "mtrust",
        open_specs.MeshTrust,
        _BOTH,
        "Which CAs are believed for a trust domain.",
        status=True,
    ),
    _json(
        "MeshOpenTelemetryBackend",
        "meshopentelemetrybackends",
        "motb",
        open_specs.MeshOpenTelemetryBackend,
        _BOTH,
        "Where telemetry goes.",
        status=True,
    ),
    _json("Workload", "workloads", "wl", open_specs.Workload, _ZONE, "A group of proxies under one name.", status=True),
    _json(
        "MeshAccessLog",
        "meshaccesslogs",
        "mal",
        open_specs.ToFromRules,
        _POLICY,
        "Logs of requests and connections.",
        status=True,
    ),
    _json(
        "MeshFaultInjection",
        "meshfaultinjections",
        "mfi",
        open_specs.ToFromRules,
        _POLICY,
        "Delays and errors on purpose.",
    ),
    _json("MeshHealthCheck", "meshhealthchecks", "mhc", open_specs.To, _POLICY, "Probes of endpoints."),
    _json(
        "MeshLoadBalancingStrategy",
        "meshloadbalancingstrategies",
        "mlbs",
        open_specs.To,
        _POLICY,
        "How an endpoint is chosen.",
    ),
    _json("MeshMetric", "meshmetrics", "mm", open_specs.Single, _POLICY, "Which metrics proxies show.", status=True),
    _json("MeshPassthrough", "meshpassthroughs", "mp", open_specs.Single, _POLICY, "What may leave the mesh as it is."),
    _json("MeshProxyPatch", "meshproxypatches", "mpp", open_specs.Single, _POLICY, "Changes to an Envoy's resources."),
    _json("MeshRateLimit", "meshratelimits", "mrl", open_specs.ToFromRules, _POLICY, "Limits of requests."),
    _json("MeshTLS", "meshtlses", "mtls", open_specs.FromRules, _POLICY, "TLS versions and modes of inbounds."),
    _json("MeshTrace", "meshtraces", "mtr", open_specs.Single, _POLICY, "Spans of requests.", status=True),
)

WITHOUT_EFFECT: tuple[ResourceType, ...] = (*OLD, *JSON)
"""All of them, in no particular order."""
EFFECTLESS = frozenset(type_.kind for type_ in WITHOUT_EFFECT)
"""Their names."""
IDLE_POLICIES = tuple(type_.kind for type_ in WITHOUT_EFFECT if type_.is_policy)
"""The names of those that are policies."""
NO_EFFECT = "has no effect: this version of meshd stores it, passes it on and prints it, and nothing else"
