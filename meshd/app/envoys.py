"""What this process needs to run Envoys: the program, its options, and what only others know of them."""

import ssl
from collections.abc import Mapping
from pathlib import Path

from meshd.config.tree import EnvoyLogLevel, OnStop, ProxyEntry
from meshd.envoy.binary import find_binary, wheel_binary
from meshd.envoy.command import Options
from meshd.envoy.service import Surroundings
from meshd.kinds.dataplane import Dataplane
from meshd.kinds.zone_egress import ZoneEgress
from meshd.kinds.zone_ingress import ZoneIngress
from meshd.model.resource import Resource
from meshd.xds.bootstrap import DELTA, Admin, BootstrapParams, ControlPlaneAt, Token
from meshd.xds.bootstrap_answer import KIND_OF

FEATURES = (DELTA, "feature-reuse-port", "feature-strict-inbound-ports")
BIND_OUTBOUNDS = "feature-bind-outbounds"
UNKNOWN = "unknown"
SYSTEM_CAS = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
"""Where distributions keep them. Source: Kuma ``app/kuma-dp`` (the same list)."""

_TYPES = {kind: proxy_type for proxy_type, kind in KIND_OF.items()}


def bootstrap_params(
    about: Surroundings, to: ControlPlaneAt, proxy: Resource | None, *, owns_vips: bool, has_hds: bool, system_ca: str
) -> BootstrapParams:
    """What the Envoy of a proxy starts with. ``proxy`` is its resource, None if it has just gone.

    It is told nothing that changes with a run of this process: whatever it started with, the next run takes it over.
    """
    key, spec = about.proxy, proxy.spec if proxy is not None else None
    admin = spec.networking.admin if isinstance(spec, Dataplane | ZoneIngress | ZoneEgress) else None
    kind = _TYPES[key.kind]
    return BootstrapParams(
        key.mesh,
        key.name,
        kind,
        min(spec.services(), default=UNKNOWN) if isinstance(spec, Dataplane) else kind,
        to,
        workdir=str(about.socket_dir),
        admin=Admin(port=admin.port if admin is not None else 0, socket_path=str(about.admin_socket)),
        token=Token(about.credential),
        features=(*FEATURES, *([BIND_OUTBOUNDS] if owns_vips else [])),
        version={"envoy": {"version": about.version.text, "build": about.version.build}},
        system_ca_path=system_ca,
        has_hds=has_hds and isinstance(spec, Dataplane),
    )


def system_ca() -> str:
    """The file of the CAs that this host trusts; empty if there is none. Reads the disk."""
    own = ssl.get_default_verify_paths().cafile
    return own or next((path for path in SYSTEM_CAS if Path(path).is_file()), "")


def options(entry: ProxyEntry, drain_s: float, env: Mapping[str, str]) -> Options:
    """How the Envoy of a proxy is started. That there is one was checked at the start, but it may go at any time."""
    binary = find_binary(entry.binary, wheel_binary(), env.get("PATH", "")) or entry.binary or Path("envoy")
    return Options(binary, drain_s, entry.log_level or EnvoyLogLevel.WARNING, entry.concurrency)


def is_kept(on_stop: OnStop, *, stopped: bool, by_hand: bool, started: bool, adopted: bool) -> bool:
    """Whether an Envoy is to go on without this process, which ends now.

    ``stopped``: somebody asked for that, ``by_hand`` at a terminal (SIGINT). If nobody did, this process fails, and the
    next one takes its Envoys over; but one that never came up (``started``) leaves none behind that it did not find
    (``adopted``): what its operator has to set right may take long.
    """
    if stopped:
        return on_stop is OnStop.KEEP and not by_hand
    return started or adopted
