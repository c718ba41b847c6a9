import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.support import run

CONF = Path(__file__).parents[2] / "conf"


@pytest.mark.parametrize("file", sorted(CONF.rglob("*.yaml")), ids=lambda p: str(p.relative_to(CONF)))
def test_every_file_we_ship_is_right(file):
    result = run("check", str(file))
    assert result.exit_code == 0, result.output
    assert f"{file}: ok" in result.output


def test_the_demo_fits_into_one_process():
    result = run("check", "--together", *(str(p) for p in sorted((CONF / "demo").glob("*.yaml"))))
    assert result.exit_code == 0, result.output
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("text", "said"), [("", 2), ("mode: zone\n", 1), ("mode: zone\nmultizone: {zone: {name: a}}\n", 0)]
)
def test_a_file_that_says_not_who_it_is_for_is_right_with_a_note(tmp_path, text, said):
    config = tmp_path / "zone.yaml"
    config.write_text(text)
    result = run("check", str(config))
    assert result.exit_code == 0
    assert f"{config}: ok (zone {'a' if not said else 'default'})" in result.stdout
    notes = [line for line in result.stderr.splitlines() if line.startswith(f"note: {config}")]
    assert len(notes) == said
    assert not said or notes[-1].endswith("multizone.zone.name: is not set: default")


def test_a_resource_file_with_wrong_indentation_says_where(tmp_path):
    file = tmp_path / "mesh.yaml"
    file.write_text("type: Mesh\n name: a\n---\n")
    result = run("check", str(file))
    assert result.exit_code == 2
    assert f"{file}:2: cannot be read: " in result.stderr
    assert "; check the indentation of this line" in result.stderr


def test_everything_wrong_in_all_files_is_said_with_lines_and_exit_code_2(tmp_path):
    config, resources = tmp_path / "zone.yaml", tmp_path / "mesh.yaml"
    config.write_text("mode: zone\napiServer:\n  http: {prot: 1}\n")
    resources.write_text("type: Mesh\nname: Default\n---\ntype: Mash\nname: x\n---\ntype: Mesh\nname: y\nmtsl: {}\n")
    result = run("check", str(config), str(resources), str(tmp_path / "none.yaml"))
    assert result.exit_code == 2
    lines = result.stderr.replace(f"{tmp_path}/", "").splitlines()
    assert lines[-1] == f"{len(lines) - 1} errors; nothing was done"
    for start in (
        "mesh.yaml:2: name: ",
        'mesh.yaml:4: type: "Mash" is no known kind; did you mean "Mesh"?',
        "mesh.yaml:9: mtsl: unknown field",
        "none.yaml: cannot read: No such file or directory",
        "zone.yaml:3: apiServer.http.prot: is no setting; did you mean 'port'?",
    ):
        assert any(line.startswith(start) for line in lines), (start, lines)


def test_a_violation_of_a_proxy_in_the_configuration_has_its_line(tmp_path):
    config = tmp_path / "zone.yaml"
    config.write_text("proxies:\n  - resource:\n      type: ZoneIngress\n      name: in\n"
                      "      networking:\n        address: 1.2.3.4\n        prot: 1\n")  # fmt: skip
    result = run("check", str(config))
    assert result.exit_code == 2
    assert f"{config}:7: proxies[0].resource.networking.prot: unknown field" in result.stderr


def test_a_missing_envoy_is_a_note_for_the_file_may_be_for_another_machine(tmp_path):
    config = tmp_path / "zone.yaml"
    config.write_text("proxies:\n  - {engine: envoy, binary: none, dataplanes: {}}\n")
    result = run("check", str(config))
    assert result.exit_code == 0
    assert f"note: {config}:2: proxies[0].binary: {tmp_path}/none does not exist; correct the path, or" in result.stderr


def test_a_missing_certificate_is_a_note_for_the_same_reason(tmp_path):
    config = tmp_path / "zone.yaml"
    config.write_text(
        "multizone:\n  zone:\n    name: a\n    globalAddress: grpcs://g:1\n    kds: {rootCaFile: ca.pem}\n"
    )
    result = run("check", str(config))
    assert result.exit_code == 0
    assert f"note: {config}:5: multizone.zone.kds.rootCaFile: cannot read {tmp_path}/ca.pem: No such" in result.stderr


def test_roles_that_collide_are_refused_together_only(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").write_text(f"store: {{type: memory}}\nmultizone: {{zone: {{name: {name}}}}}\n")
    files = [str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml")]
    assert run("check", *files).exit_code == 0
    result = run("check", "--together", *files)
    assert result.exit_code == 2
    assert "is also apiServer.http.port" in result.stderr


@pytest.mark.e2e
@pytest.mark.slow
def test_a_broken_configuration_starts_nothing(tmp_path):
    (tmp_path / "zone.yaml").write_text("mode: zoen\nstoer: {}\n")
    result = subprocess.run(
        [sys.executable, "-m", "meshd", "--config", str(tmp_path / "zone.yaml")],
        capture_output=True,
        text=True,
        timeout=30,
        cwd=tmp_path,
        env={**os.environ, "HOME": str(tmp_path)},
    )
    assert result.returncode == 2
    assert "zone.yaml:1: mode: must be global or zone, not 'zoen'" in result.stderr
    assert "zone.yaml:2: stoer: is no setting; did you mean 'store'?" in result.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["zone.yaml"]


def test_a_resource_that_is_twice_in_a_file_is_wrong(tmp_path):
    file = tmp_path / "mesh.yaml"
    file.write_text("type: Mesh\nname: x\n---\ntype: Mesh\nname: y\n---\ntype: Mesh\nname: x\n")
    result = run("check", str(file))
    assert result.exit_code == 2
    assert f"{file}:7: Mesh x is already at {file}:1; remove one or give it another name" in result.stderr
