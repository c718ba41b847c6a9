import subprocess
import sys

import pytest

from meshd import __version__
from tests.cli.support import run


def test_version():
    assert run("--version").output == f"meshd {__version__}\n"


def test_without_anything_to_do_it_says_how(tmp_path):
    result = run()
    assert result.exit_code == 2
    assert "--config FILE" in result.output


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mode: zone\nmultizone: {zone: {name: a, globalAddress: 'grpcs://h:1', kds: {rootCaFile: no.pem}}}",
         "multizone.zone.kds.rootCaFile: cannot read"),
        ("apiServer: {http: {port: 5680}}", "diagnostics.serverPort: 127.0.0.1:5680 is also apiServer.http.port"),
    ],
)  # fmt: skip
def test_what_cannot_start_is_refused_before_it_starts(tmp_path, text, expected):
    file = tmp_path / "zone.yaml"
    file.write_text(text)
    result = run("--config", str(file), env={"HOME": str(tmp_path)})
    assert result.exit_code == 2
    assert expected in result.stderr


def test_config_does_not_go_with_a_command(tmp_path):
    result = run("--config", "x.yaml", "get", "meshes")
    assert result.exit_code == 2
    assert "--config runs a control plane" in result.stderr


@pytest.mark.parametrize(
    ("args", "not_needed"),
    [
        (["--version"], "pydantic httpx trio"),
        (["get", "--help"], "httpx trio"),
        (["check", "conf/resources/mesh.yaml"], "httpx trio"),
    ],
)
def test_a_command_imports_only_what_it_needs(pytestconfig, args, not_needed):
    code = f"""
import sys
from meshd.cli import main
try:
    main()
finally:
    print("imported:", *sorted(set({not_needed!r}.split()) & sys.modules.keys()), file=sys.stderr)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, *args], cwd=pytestconfig.rootpath, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "imported:\n")
