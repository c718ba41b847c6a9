"""The ``conf`` of a mesh's backends, by type; on the wire they are a protobuf Struct, so their schema is here."""

import enum

from pydantic import Field

from meshd.kinds.external_service import DataSource
from meshd.model.fields import NO_TAGS, Tags, UInt32
from meshd.model.resource import Spec


class BuiltinCaCert(Spec):
    """``expiration`` is a Go duration ("10y" is allowed too)."""

    rsa_bits: UInt32 | None = Field(default=None, alias="RSAbits")
    expiration: str = ""


class BuiltinCa(Spec):
    """Of a CA backend of type "builtin"."""

    ca_cert: BuiltinCaCert = BuiltinCaCert()


class ProvidedCa(Spec):
    """Of a CA backend of type "provided"."""

    cert: DataSource | None = None
    key: DataSource | None = None


class FileLogging(Spec):
    """Of a logging backend of type "file"."""

    path: str = ""


class TcpLogging(Spec):
    """Of a logging backend of type "tcp"; ``address`` is host:port."""

    address: str = ""


class ZipkinTracing(Spec):
    """Of a tracing backend of type "zipkin"."""

    url: str = ""
    trace_id128bit: bool = Field(default=False, alias="traceId128bit")
    api_version: str = ""
    shared_span_context: bool | None = None


class DatadogTracing(Spec):
    """Of a tracing backend of type "datadog"."""

    address: str = ""
    port: UInt32 = 0
    split_service: bool = False


class PrometheusAggregate(Spec):
    """An application's own metrics, merged into the proxy's."""

    name: str = ""
    port: UInt32 = 0
    path: str = ""
    enabled: bool | None = None
    address: str = ""


class PrometheusEnvoy(Spec):
    """Which of Envoy's metrics are shown."""

    filter_regex: str = ""
    used_only: bool | None = None


class PrometheusTlsMode(enum.StrEnum):
    """How the metrics endpoint is protected."""

    ACTIVE_MTLS_BACKEND = "activeMTLSBackend"
    PROVIDED_TLS = "providedTLS"
    DISABLED = "disabled"


class PrometheusTls(Spec):
    """How the metrics endpoint is protected."""

    mode: PrometheusTlsMode = PrometheusTlsMode.ACTIVE_MTLS_BACKEND


class PrometheusMetrics(Spec):
    """Of a metrics backend of type "prometheus"."""

    port: UInt32 = 0
    path: str = ""
    tags: Tags = NO_TAGS
    skip_mtls: bool | None = Field(default=None, alias="skipMTLS")
    aggregate: tuple[PrometheusAggregate, ...] = ()
    envoy: PrometheusEnvoy | None = None
    tls: PrometheusTls | None = None
