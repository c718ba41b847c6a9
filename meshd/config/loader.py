"""Files and environment -> ``LoadedConfig``, or every error at once."""

import copy
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from meshd.config.consistency import contradictions, warnings
from meshd.config.document import Document, parse
from meshd.config.environment import BY_KEY, SOURCE, Setting, overrides
from meshd.config.not_yet import NOT_YET, refusal
from meshd.config.problem import ConfigErrors, Problem, did_you_mean
from meshd.config.proxies import Decode, Entry, OwnProxy, readable_entries, resolve_proxies
from meshd.config.tree import Config


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    """One role, ready to start. ``warnings`` are allowed but should be said; ``lines`` finds a key for later errors."""

    config: Config
    path: Path
    proxies: tuple[OwnProxy, ...]
    warnings: tuple[Problem, ...]
    document: Document
    variables: Mapping[str, str]

    def problem(self, key: str, message: str) -> Problem:
        """A problem with a setting, at the place that set it: its line, or its environment variable."""
        return _locate(self.document, self.variables, key, message)

    def assumed(self) -> tuple[Problem, ...]:
        """Who this role is as far as nobody said it: worth a note, for such a file may be the wrong one."""
        settings = [("mode", self.config.mode.value)]
        if not self.config.is_global:
            settings.append(("multizone.zone.name", self.config.zone_name))
        return tuple(
            self.problem(key, f"is not set: {value}")
            for key, value in settings
            if key not in self.document.lines and key not in self.variables
        )


def load_files(paths: Sequence[Path], env: Mapping[str, str], decode: Decode) -> tuple[LoadedConfig, ...]:
    """Load one configuration a file; the environment overrides all of them.

    ``decode`` turns a resource document into a Resource, strictly. Relative paths in a file are relative to its
    directory, those in the environment to the working directory. Whether the roles fit into one process is
    ``check_together``.

    Raises:
        ConfigErrors: everything that is wrong in all files and in the environment.
    """
    found, problems = overrides(env)
    loaded: list[LoadedConfig] = []
    for path in paths:
        one, wrong = _load(path, found, env, decode)
        problems += wrong
        if one is not None:
            loaded.append(one)
    if problems:
        raise ConfigErrors(problems)
    return tuple(loaded)


def _load(
    path: Path, found: Sequence[tuple[Setting, Any]], env: Mapping[str, str], decode: Decode
) -> tuple[LoadedConfig | None, list[Problem]]:
    source = str(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        return None, [Problem(source, 0, "", f"cannot read: {error.strerror}")]
    except UnicodeDecodeError:
        return None, [Problem(source, 0, "", "cannot read: is not UTF-8 text")]
    documents, problems = parse(text, source)
    if len(documents) > 1:
        problems.append(Problem(source, 0, "", f"must hold one configuration, not {len(documents)} documents"))
    if problems:
        return None, problems
    document = documents[0] if documents else Document(source, {}, 0, {})
    if not isinstance(document.data, dict):
        return None, [*problems, document.problem("", f"must be a mapping of settings, not {document.data!r:.60}")]

    data = copy.deepcopy(document.data)
    base = Path(os.path.abspath(path)).parent  # noqa: PTH100  # resolve() would follow symlinks away from the file
    _make_absolute(data, base)
    variables: dict[str, str] = {}
    for setting, value in found:
        anchored = str(Path(value).absolute()) if setting.is_path and value else value
        if _set(data, setting.path, anchored):
            variables[setting.key] = setting.variable
    _default_work_dir(data, env)
    try:
        config = Config.model_validate(data)
    except ValidationError as error:
        details = error.errors(include_url=False)
        problems += [_explain(document, variables, detail) for detail in details]
        # One wrong key must not hide what is wrong with the proxies.
        readable = readable_entries(data.get("proxies"))
        return None, problems + resolve_proxies(readable, document, _Shown(path), decode)[1]

    given = frozenset(document.lines) | {k for key in variables for k in _prefixes(key)}
    problems += [_locate(document, variables, key, message) for key, message in contradictions(config, given)]
    if config.general.work_dir is None:
        problems.append(document.problem("general.workDir", "is required: neither STATE_DIRECTORY nor HOME is set"))
    show = _Shown(path)
    entries = [Entry(index, entry) for index, entry in enumerate(config.proxies)]
    proxies, wrong = resolve_proxies(entries, document, show, decode)
    problems += wrong
    for proxy in proxies:
        served = config.dns_server.mesh
        if proxy.vips and proxy.resource.key.mesh != served:
            message = f"vips: true is for mesh '{served}', whose names this host has (dnsServer.mesh), not"
            where = f"'{proxy.resource.key.mesh}'; change one of the two"
            problems.append(Problem(proxy.source, proxy.line, "proxies", f"{message} {where}"))
    said = tuple(_locate(document, variables, key, message) for key, message in warnings(config))
    return LoadedConfig(config, path, tuple(proxies), said, document, variables), problems


class _Shown:
    """Names a file as the user would: beside the configuration file, by the way they named that."""

    def __init__(self, config: Path) -> None:
        self._written = config.parent
        self._absolute = Path(os.path.abspath(config)).parent  # noqa: PTH100  # see _load

    def __call__(self, path: Path) -> str:
        if path.is_relative_to(self._absolute):
            return str(self._written / path.relative_to(self._absolute))
        return str(path)


def _make_absolute(data: dict[str, Any], base: Path) -> None:
    """Anchor every path setting that is plain text; whatever else is there is the tree's to refuse."""
    for setting in BY_KEY.values():
        if setting.is_path:
            holder = _holder(data, setting.path)
            value = holder.get(setting.path[-1]) if holder is not None else None
            if holder is not None and isinstance(value, str) and value:
                holder[setting.path[-1]] = os.path.normpath(base / value)
    entries = data.get("proxies")
    for entry in entries if isinstance(entries, list) else ():
        for key in ("file", "binary"):
            if isinstance(entry, dict) and isinstance(entry.get(key), str) and entry[key]:
                entry[key] = os.path.normpath(base / entry[key])


def _holder(data: Any, path: tuple[str, ...]) -> dict[str, Any] | None:
    for part in path[:-1]:
        data = data.get(part) if isinstance(data, dict) else None
    return data if isinstance(data, dict) else None


def _set(data: dict[str, Any], path: tuple[str, ...], value: Any) -> bool:
    """Put ``value`` at ``path``; False if something that is no section is in the way."""
    for part in path[:-1]:
        inner = data.get(part)
        if inner is None:
            inner = data[part] = {}
        if not isinstance(inner, dict):
            return False
        data = inner
    data[path[-1]] = value
    return True


def _default_work_dir(data: dict[str, Any], env: Mapping[str, str]) -> None:
    """Systemd gives a service its StateDirectory= by name; a user has a home."""
    holder = _holder(data, ("general", "workDir"))
    if holder is not None and holder.get("workDir"):
        return
    # systemd joins several directories with colons; the first is ours.
    state = env.get("STATE_DIRECTORY", "").split(":")[0]
    home = env.get("HOME", "")
    if state or home:
        _set(data, ("general", "workDir"), state or str(Path(home) / ".meshd"))


def _prefixes(key: str) -> list[str]:
    parts = key.split(".")
    return [".".join(parts[: n + 1]) for n in range(len(parts))]


def _locate(document: Document, variables: Mapping[str, str], key: str, message: str) -> Problem:
    inside = [v for k, v in sorted(variables.items()) if k == key or (key not in document.lines and k.startswith(key))]
    if inside and (key in variables or key not in document.lines):
        return Problem(SOURCE, 0, inside[0], f"({key}) {message}")
    return document.problem(key, message)


def _explain(document: Document, variables: Mapping[str, str], detail: ErrorDetails) -> Problem:
    """Say a pydantic error in our words, at its line."""
    path = ""
    for part in detail["loc"]:
        path = f"{path}[{part}]" if isinstance(part, int) else f"{path}.{part}" if path else str(part)
    value = detail["input"]
    match detail["type"]:
        case "extra_forbidden":
            message = _unknown(detail["loc"])
        case "missing":
            message = "is required"
        case "value_error":
            message = str(detail["ctx"]["error"])
        case "enum":
            message = f"must be {detail['ctx']['expected'].replace(chr(39), '')}, not {value!r}"
        case "int_type":
            message = f"must be a whole number, not {value!r}"
        case "bool_type":
            message = f"must be true or false, not {value!r}"
        case "string_type":
            message = f"must be text, not {value!r} (quote it)"
        case "greater_than_equal" | "less_than_equal":
            message = f"must be a port number up to 65535, not {value!r}"
        case "model_type" | "model_attributes_type" | "dict_type":
            message = f"must be a mapping of settings, not {value!r:.60}"
        case "tuple_type":
            message = f"must be a list, not {value!r:.60}"
        case _:
            message = f"{detail['msg']}, not {value!r:.60}"
    return _locate(document, variables, path, message)


def _unknown(loc: tuple[int | str, ...]) -> str:
    name = str(loc[-1])
    key = ".".join(map(str, loc))
    if key in NOT_YET:
        return refusal(key)
    model: Any = Config
    for part in loc[:-1]:
        if isinstance(part, str) and isinstance(model, type) and issubclass(model, BaseModel):
            model = next((f.annotation for n, f in model.model_fields.items() if part in (n, f.alias)), None)
            arguments = getattr(model, "__args__", None)
            model = arguments[0] if arguments else model
    known: list[str] = []
    if isinstance(model, type) and issubclass(model, BaseModel):
        known = [f.alias or n for n, f in model.model_fields.items()]
    return "is no setting" + did_you_mean(name, known)
