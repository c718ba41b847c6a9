"""Bootstrap documents: goldens, Envoy's schema, and Envoy itself."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from meshd.xds.bootstrap import BootstrapParams, ControlPlaneAt, Token, bootstrap_document
from meshd.xds.encode import PREFIX, encode
from tests.xds.bootstraps import CASES, case, document_of, names

BOOTSTRAP = PREFIX + "envoy.config.bootstrap.v3.Bootstrap"
ENVOY = Path(sys.executable).with_name("envoy")


@pytest.mark.parametrize("name", names())
def test_a_case_has_its_document(name, golden):
    document = document_of(case(name))
    golden(CASES / f"{name}.golden.yaml", yaml.safe_dump(document, sort_keys=True, width=120))


@pytest.mark.parametrize("name", names())
def test_envoys_schema_has_all_of_it(name):
    assert encode(BOOTSTRAP, document_of(case(name)))


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.parametrize("name", names())
def test_envoy_takes_it(name, tmp_path):
    (tmp_path / "bootstrap.json").write_text(json.dumps(document_of(case(name))))
    argv = [str(ENVOY), "--mode", "validate", "-c", str(tmp_path / "bootstrap.json")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "OK" in done.stdout + done.stderr


def test_the_token_is_nowhere_in_the_representation():
    to = ControlPlaneAt("cp.example", 5678, b"")
    params = BootstrapParams("default", "web-1", "dataplane", "web", to, token=Token("secret"))
    assert "secret" not in repr(params)
    assert "secret" in json.dumps(bootstrap_document(params))


def test_a_proxy_without_a_token_sends_none():
    to = ControlPlaneAt("cp.example", 5678, b"")
    document = bootstrap_document(BootstrapParams("default", "web-1", "dataplane", "web", to))
    (service,) = document["dynamicResources"]["adsConfig"]["grpcServices"]
    assert "initialMetadata" not in service
