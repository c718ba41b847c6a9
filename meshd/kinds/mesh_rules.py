"""What the schema of a Mesh cannot say, and when it may change or go.

Source: Kuma ``pkg/core/resources/apis/mesh/mesh_validator.go``, ``pkg/core/managers/apis/mesh`` (rules, not texts).
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

from meshd.kinds import mesh_conf
from meshd.kinds.dataplane import MetricsBackend
from meshd.kinds.mesh import CertificateAuthorityBackend, LoggingBackend, Mesh, TracingBackend
from meshd.kinds.rules import data_source_violations, port_violations, tag_violations
from meshd.model.duration import parse_duration
from meshd.model.errors import Violation
from meshd.model.names import name_violations
from meshd.model.resource import Resource, ResourceKey, Spec
from meshd.model.shape import ShapeError, read_strict

C = TypeVar("C", bound=Spec)

_MIN_RSA_BITS, _MAX_RSA_BITS = 2048, 8192


def validate(resource: Resource) -> tuple[Violation, ...]:
    """Every violation of a Mesh."""
    assert isinstance(resource.spec, Mesh)  # noqa: S101 - the registry pairs kind and spec
    return tuple(_violations(resource.spec, resource.key.name))


def mesh_update_violations(previous: Mesh, new: Mesh) -> tuple[Violation, ...]:
    """What forbids this change of a Mesh: the CA in force cannot be swapped for another one under live connections."""
    before, after = previous.mtls.enabled_backend, new.mtls.enabled_backend
    if not before or not after or before == after:
        return ()
    message = f'cannot change from "{before}" to "{after}" while mTLS is on; turn it off first'
    return (Violation("mtls.enabledBackend", message),)


def mesh_delete_violations(mesh: str, dataplanes: Sequence[ResourceKey]) -> tuple[Violation, ...]:
    """What forbids deleting a Mesh: the Dataplanes it has, by the keys of all that exist (of any mesh)."""
    mine = sorted(key.name for key in dataplanes if key.mesh == mesh)
    if not mine:
        return ()
    named = ", ".join(mine[:5]) + (", ..." if len(mine) > 5 else "")
    return (Violation("mesh", f'mesh "{mesh}" still has {len(mine)} Dataplanes ({named}); remove them first'),)


def _violations(spec: Mesh, name: str) -> Iterator[Violation]:
    yield from _mtls(spec, name)
    yield from _backends("logging", spec.logging.default_backend, "defaultBackend", spec.logging.backends)
    for i, logging in enumerate(spec.logging.backends):
        yield from _logging(f"logging.backends[{i}]", logging)
    yield from _backends("tracing", spec.tracing.default_backend, "defaultBackend", spec.tracing.backends)
    for i, tracing in enumerate(spec.tracing.backends):
        yield from _tracing(f"tracing.backends[{i}]", tracing)
    yield from _backends("metrics", spec.metrics.enabled_backend, "enabledBackend", spec.metrics.backends)
    for i, metrics in enumerate(spec.metrics.backends):
        yield from metrics_backend_violations(f"metrics.backends[{i}]", metrics)
    constraints = spec.constraints.dataplane_proxy
    for part in ("requirements", "restrictions"):
        for i, rule in enumerate(getattr(constraints, part)):
            field = f"constraints.dataplaneProxy.{part}[{i}].tags"
            if not rule.tags:
                yield Violation(field, "must have at least one tag")
            yield from tag_violations(field, rule.tags, selector=True)
    if spec.routing.zone_egress and not spec.mtls.enabled_backend:
        yield Violation("mtls", "must be enabled for routing.zoneEgress: an egress routes by the SNI of mTLS")


def _backends(section: str, wanted: str, wanted_field: str, backends: Sequence[Any]) -> Iterator[Violation]:
    """Names are there and differ, and the wanted backend is one of them."""
    seen: set[str] = set()
    for i, backend in enumerate(backends):
        if not backend.name:
            yield Violation(f"{section}.backends[{i}].name", "cannot be empty")
        elif backend.name in seen:
            yield Violation(f"{section}.backends[{i}].name", f'"{backend.name}" is the name of another backend')
        seen.add(backend.name)
    if wanted and wanted not in seen:
        names = ", ".join(f'"{n}"' for n in sorted(seen)) or "none"
        yield Violation(f"{section}.{wanted_field}", f'"{wanted}" is no backend of the mesh; it has {names}')


def _mtls(spec: Mesh, mesh: str) -> Iterator[Violation]:
    backends = spec.mtls.backends
    if len(backends) > 1:
        yield Violation("mtls.backends", f"a mesh has at most one backend, not {len(backends)}")
    yield from _backends("mtls", spec.mtls.enabled_backend, "enabledBackend", backends)
    for i, backend in enumerate(backends):
        field = f"mtls.backends[{i}]"
        yield from _expiration(f"{field}.dpCert.rotation.expiration", backend.dp_cert.rotation.expiration)
        match backend.type:
            case "builtin":
                yield from _builtin(field, backend, mesh)
            case "provided":
                yield from _provided(field, backend)
            case other:
                yield Violation(f"{field}.type", f'must be "builtin" or "provided", not "{other}"')


def _expiration(field: str, text: str) -> Iterator[Violation]:
    if not text:
        return
    try:
        if parse_duration(text).total_seconds() <= 0:
            yield Violation(field, "must be longer than 0")
    except ValueError as error:
        yield Violation(field, str(error))


def _builtin(field: str, backend: CertificateAuthorityBackend, mesh: str) -> Iterator[Violation]:
    # the CA is kept in Secrets of these names
    if backend.name and tuple(name_violations(f"{mesh}.ca-builtin-cert-{backend.name}")):
        yield Violation(
            f"{field}.name",
            f'"{backend.name}" is no backend name: use lower case letters, digits and "-", and be short',
        )
    conf = _Conf(f"{field}.conf", backend.conf, mesh_conf.BuiltinCa)
    yield from conf.violations
    if conf.value is None:
        return
    yield from _expiration(f"{field}.conf.caCert.expiration", conf.value.ca_cert.expiration)
    bits = conf.value.ca_cert.rsa_bits
    if bits is not None and not _MIN_RSA_BITS <= bits <= _MAX_RSA_BITS:
        yield Violation(f"{field}.conf.caCert.RSAbits", f"must be from {_MIN_RSA_BITS} to {_MAX_RSA_BITS}, not {bits}")


def _provided(field: str, backend: CertificateAuthorityBackend) -> Iterator[Violation]:
    conf = _Conf(f"{field}.conf", backend.conf, mesh_conf.ProvidedCa)
    yield from conf.violations
    if conf.value is not None:
        yield from data_source_violations(f"{field}.conf.cert", conf.value.cert, required=True)
        yield from data_source_violations(f"{field}.conf.key", conf.value.key, required=True)


def _logging(field: str, backend: LoggingBackend) -> Iterator[Violation]:
    match backend.type:
        case "file":
            file = _Conf(f"{field}.conf", backend.conf, mesh_conf.FileLogging)
            yield from file.violations
            if file.value is not None and not file.value.path:
                yield Violation(f"{field}.conf.path", "cannot be empty")
        case "tcp":
            tcp = _Conf(f"{field}.conf", backend.conf, mesh_conf.TcpLogging)
            yield from tcp.violations
            if tcp.value is not None:
                host, _, port = tcp.value.address.rpartition(":")
                if not host or not port.isdecimal():
                    yield Violation(f"{field}.conf.address", f'must be HOST:PORT, not "{tcp.value.address}"')
        case other:
            yield Violation(f"{field}.type", f'must be "tcp" or "file", not "{other}"')


def _tracing(field: str, backend: TracingBackend) -> Iterator[Violation]:
    if backend.sampling is not None and not 0 <= backend.sampling <= 100:
        yield Violation(f"{field}.sampling", f"must be a percentage from 0 to 100, not {backend.sampling:g}")
    match backend.type:
        case "zipkin":
            zipkin = _Conf(f"{field}.conf", backend.conf, mesh_conf.ZipkinTracing)
            yield from zipkin.violations
            if zipkin.value is not None:
                yield from _zipkin(f"{field}.conf", zipkin.value)
        case "datadog":
            datadog = _Conf(f"{field}.conf", backend.conf, mesh_conf.DatadogTracing)
            yield from datadog.violations
            if datadog.value is not None:
                if not datadog.value.address:
                    yield Violation(f"{field}.conf.address", "cannot be empty")
                yield from port_violations(f"{field}.conf.port", datadog.value.port)
        case other:
            yield Violation(f"{field}.type", f'must be "zipkin" or "datadog", not "{other}"')


def _zipkin(field: str, conf: mesh_conf.ZipkinTracing) -> Iterator[Violation]:
    if conf.api_version not in ("", "httpJsonV1", "httpJson", "httpProto"):
        yield Violation(f"{field}.apiVersion", f'must be httpJsonV1, httpJson or httpProto, not "{conf.api_version}"')
    try:
        has_port = urlsplit(conf.url).port is not None
    except ValueError:
        has_port = False
    if not has_port:
        yield Violation(f"{field}.url", f'must be a URL with a port, not "{conf.url}"')


def metrics_backend_violations(field: str, backend: MetricsBackend) -> Iterator[Violation]:
    """What is wrong with a metrics backend of a Mesh or Dataplane."""
    if backend.type != "prometheus":
        yield Violation(f"{field}.type", f'must be "prometheus", not "{backend.type}"')
        return
    conf = _Conf(f"{field}.conf", backend.conf, mesh_conf.PrometheusMetrics)
    yield from conf.violations
    if conf.value is None:
        return
    if conf.value.port > 65535:
        yield from port_violations(f"{field}.conf.port", conf.value.port)
    if conf.value.skip_mtls is not None and conf.value.tls is not None:
        wanted = mesh_conf.PrometheusTlsMode.DISABLED if conf.value.skip_mtls else _ACTIVE
        if conf.value.tls.mode is not wanted:
            yield Violation(f"{field}.conf", "skipMTLS and tls contradict each other; keep tls only")
    if conf.value.envoy is not None:
        try:
            re.compile(conf.value.envoy.filter_regex)
        except re.error as error:
            yield Violation(f"{field}.conf.envoy.filterRegex", f"is no regular expression: {error}")
    names = [a.name for a in conf.value.aggregate]
    for i, name in enumerate(names):
        if name in names[:i]:
            yield Violation(f"{field}.conf.aggregate[{i}].name", f'"{name}" is there twice')


_ACTIVE = mesh_conf.PrometheusTlsMode.ACTIVE_MTLS_BACKEND


class _Conf(Generic[C]):
    """A backend's ``conf`` read as ``C``: the value, or what is wrong with it."""

    def __init__(self, field: str, conf: Any, wanted: type[C]) -> None:
        self.value: C | None = None
        self.violations: tuple[Violation, ...] = ()
        try:
            self.value = read_strict(wanted, conf or {})
        except ShapeError as error:
            self.violations = tuple(Violation(f"{field}.{v.field}".rstrip("."), v.message) for v in error.violations)
