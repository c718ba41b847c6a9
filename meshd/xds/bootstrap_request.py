"""What kuma-dp sends when it asks for a bootstrap document.

Read as Go's JSON does: unknown fields are ignored, so that a newer kuma-dp is served, ``null`` says nothing; a field of
another type is an error. Source: reference/dataplane.md 1.3; Kuma ``pkg/xds/bootstrap/types``.
"""

import json
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr, ValidationError, model_validator
from pydantic.alias_generators import to_camel

UInt32 = Annotated[StrictInt, Field(ge=0, lt=2**32)]


class Part(BaseModel):
    """Base of the request and its parts."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel, validate_by_alias=True)

    @model_validator(mode="before")
    @classmethod
    def _null_says_nothing(cls, data: Any) -> Any:
        return {k: v for k, v in data.items() if v is not None} if isinstance(data, dict) else data


class KumaDpVersion(Part):
    """Which kuma-dp it is."""

    version: StrictStr = ""
    git_tag: StrictStr = ""
    git_commit: StrictStr = ""
    build_date: StrictStr = ""


class EnvoyVersion(Part):
    """Which Envoy it will start; ``kuma_dp_compatible`` is its own opinion."""

    version: StrictStr = ""
    build: StrictStr = ""
    kuma_dp_compatible: StrictBool = False


class Version(Part):
    """Both."""

    kuma_dp: KumaDpVersion = KumaDpVersion()
    envoy: EnvoyVersion = EnvoyVersion()


class MetricsResources(Part):
    """Certificate and key for the metrics endpoint, paths on the proxy's host."""

    cert_path: StrictStr = ""
    key_path: StrictStr = ""


class SpireResources(Part):
    """The SPIRE agent's socket, a path on the proxy's host."""

    socket_path: StrictStr = ""


class BootstrapRequest(Part):
    """See the module. ``has_app_probe_proxy`` is called ``appProbeProxyDisabled`` on the wire, and is no negation.

    ``dataplane_resource`` is JSON text. ``dataplane_config`` is the transparent proxying that kuma-dp was given, and
    with ``otel_env`` passed on as it is.
    """

    mesh: StrictStr = ""
    name: StrictStr = ""
    proxy_type: StrictStr = ""
    dataplane_token: StrictStr = Field(default="", repr=False)
    dataplane_token_path: StrictStr = ""
    dataplane_resource: StrictStr = ""
    version: Version = Version()
    ca_cert: StrictStr = ""
    dynamic_metadata: dict[StrictStr, StrictStr] = Field(default_factory=dict)
    otel_env: dict[str, Any] | None = None
    dns_port: UInt32 = 0
    readiness_port: UInt32 = 0
    has_app_probe_proxy: StrictBool = Field(default=False, alias="appProbeProxyDisabled")
    features: tuple[StrictStr, ...] = ()
    workdir: StrictStr = ""
    metrics_resources: MetricsResources = MetricsResources()
    system_ca_path: StrictStr = ""
    dataplane_config: dict[str, Any] | None = None
    ipv6_enabled: StrictBool = Field(default=False, alias="ipv6Enabled")
    spire_resources: SpireResources = SpireResources()

    @property
    def is_transparent(self) -> bool:
        """Whether the host redirects its traffic to the proxy, as far as kuma-dp says."""
        redirect = _section(self.dataplane_config or {}, "redirect")
        return any(_section(redirect, way).get("enabled") is True for way in ("inbound", "outbound"))


def _section(data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = data.get(key)
    return found if isinstance(found, dict) else {}


def parse_request(body: bytes) -> BootstrapRequest:
    """The request in a body.

    Raises:
        ValueError: it is no JSON object, or a field has another type; says which.
    """
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        raise ValueError("the body is no JSON") from None
    if not isinstance(data, dict):
        raise ValueError("the body is no JSON object")  # noqa: TRY004  # one error for whatever is wrong
    try:
        return BootstrapRequest.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg'].lower()}") from None
