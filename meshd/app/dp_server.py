"""What the configuration says of the dp-server: certificate, limits, what proxies are told. Blocking for files."""

import math
import ssl
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from ipaddress import ip_address
from pathlib import Path

from meshd.ca.server_certificate import Address, ServerNames, names_of, wanted_names
from meshd.ca.server_files import own_server_files
from meshd.config import Config
from meshd.config.dp_server import DpAuthn, TlsVersion, ZoneAuthn
from meshd.rpc import DP_SERVER_LIMITS, Limits
from meshd.runtime.tls_files import TlsFilesError, load_pair
from meshd.xds.bootstrap import Admin, ControlPlaneAt
from meshd.xds.bootstrap_answer import BootstrapSettings

SECTION = "dpServer"
DIRECTORY = "dp-server"
"""In the role's state directory: the CA and the certificate that the zone makes itself."""
_VERSIONS = {TlsVersion.TLS_1_2: ssl.TLSVersion.TLSv1_2, TlsVersion.TLS_1_3: ssl.TLSVersion.TLSv1_3}


@dataclass(frozen=True, slots=True)
class Prepared:
    """The TLS of the dp-server, the names in its certificate and the CA that proxies are to know it by."""

    tls: ssl.SSLContext
    names: ServerNames
    ca_pem: bytes
    corefile_template: bytes | None


def prepare(config: Config, hostname: str, addresses: Iterable[Address], now: datetime) -> Prepared:
    """Read the configured certificate, or make one for this host's name and addresses.

    As Kuma does, a configured certificate is given to proxies as the CA, so one that another CA has signed needs
    kuma-dp's ``--ca-cert-file``.

    Raises:
        TlsFilesError: a file cannot be used, or the certificate is not for ``bootstrapServer.params.xdsHost``.
    """
    params = config.bootstrap_server.params
    configured = config.dp_tls_files
    if configured is not None:
        certificate, key = configured
        context = _context(config, certificate, key)
        ca_pem = certificate.read_bytes()
    else:
        wanted = wanted_names(hostname, addresses, params.xds_host)
        files = own_server_files(config.state_dir / DIRECTORY, config.zone_name, wanted, now)
        certificate, ca_pem = files.certificate, files.ca_pem
        context = _context(config, certificate, files.key)
    try:
        names = names_of(certificate.read_bytes())
    except ValueError as error:
        raise TlsFilesError(f"{SECTION}.tlsCertFile: {certificate}: {error}") from None
    if params.xds_host and not names.has(params.xds_host):
        raise TlsFilesError(
            f"bootstrapServer.params.xdsHost: {params.xds_host!r} is not in the certificate {certificate}, which is for"
            f" {', '.join(names.sorted()) or 'nobody'}; proxies would refuse it"
        )
    return Prepared(context, names, ca_pem, _corefile(params.corefile_template_path))


def limits(config: Config) -> Limits:
    """What a connection of a proxy may cost. 0 is no limit, as in Kuma."""
    return replace(DP_SERVER_LIMITS, head_s=config.dp_server.read_header_timeout.total_seconds() or math.inf)


def settings(config: Config, prepared: Prepared, port: int) -> BootstrapSettings:
    """What every proxy is told; ``port`` is where the server listens."""
    server, params = config.dp_server, config.bootstrap_server.params
    return BootstrapSettings(
        names=prepared.names,
        ca_pem=prepared.ca_pem,
        xds_port=params.xds_port or port,
        xds_host=params.xds_host,
        xds_connect_timeout=params.xds_connect_timeout,
        max_receive_bytes=params.xds_grpc_max_receive_message_bytes,
        admin=Admin(params.admin_port, params.admin_address, access_log_path=params.admin_access_log_path),
        has_admin_socket=params.envoy_admin_unix_socket,
        needs_dataplane_token=server.authn.dp_proxy.type is not DpAuthn.NONE,
        needs_zone_token=server.authn.zone_proxy.type is not ZoneAuthn.NONE,
        has_reloadable_tokens=server.authn.enable_reloadable_tokens,
        has_hds=server.hds.enabled,
        corefile_template=prepared.corefile_template,
    )


def from_this_host(config: Config, prepared: Prepared, port: int) -> ControlPlaneAt:
    """Where an Envoy of this host finds the dp-server, and by which of its names it knows it."""
    bound = ip_address(config.dp_server.interface)
    loopback = "127.0.0.1" if bound.version == 4 else "::1"
    address = loopback if bound.is_unspecified else str(bound)
    named = [name for name in sorted(prepared.names.dns) if not name.startswith("*")]
    host = address if prepared.names.has(address) else next(iter([*named, *prepared.names.sorted()]), address)
    timeout = config.bootstrap_server.params.xds_connect_timeout
    return ControlPlaneAt(host, port, prepared.ca_pem, address, connect_timeout=timeout)


def _context(config: Config, certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[config.dp_server.tls_min_version]
    load_pair(context, certificate, key, SECTION)
    return context


def _corefile(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        raise TlsFilesError(
            f"bootstrapServer.params.corefileTemplatePath: cannot read {path}: {error.strerror}"
        ) from error
