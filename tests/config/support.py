"""Decoding for tests of the configuration: the shape of a resource and nothing of its kind."""

from pathlib import Path

from meshd.config import ConfigErrors, load_files
from meshd.model.errors import InvalidError, Violation
from meshd.model.resource import Resource, ResourceKey, Spec

HOME = {"HOME": "/home/somebody"}


def decode(data):
    wrong = [Violation(k, "is required") for k in ("type", "name") if k not in data]
    port = data.get("networking", {}).get("port", 1)
    if not isinstance(port, int):
        wrong.append(Violation("networking.port", f"must be a number, not {port!r}"))
    if wrong:
        raise InvalidError("resource", wrong)
    return Resource(ResourceKey(data["type"], data.get("mesh", ""), data["name"]), Spec())


def load(directory: Path, *texts: str, env=None):
    paths = []
    for index, text in enumerate(texts):
        path = directory / f"{index}.yaml"
        path.write_text(text)
        paths.append(path)
    return load_files(paths, HOME | (env or {}), decode)


def problems(directory: Path, *texts: str, env=None):
    """What is wrong, as "0.yaml:3: key: message" lines."""
    try:
        load(directory, *texts, env=env)
    except ConfigErrors as error:
        return [str(p).removeprefix(f"{directory}/") for p in error.problems]
    return []
