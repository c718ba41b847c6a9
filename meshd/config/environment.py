"""Every setting has an environment name, derived mechanically: ``dnsServer.CIDR`` -> ``MESHD_DNS_SERVER_CIDR``."""

import re
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from meshd.config.problem import Problem, did_you_mean
from meshd.config.tree import Config

PREFIX = "MESHD_"
SOURCE = "environment"
NOT_SETTINGS = frozenset({"MESHD_CP", "MESHD_TOKEN"})
"""Variables of the command line client, which are no settings of a control plane."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One leaf of the tree. ``path`` are the keys as in YAML; ``types`` what the field may hold."""

    path: tuple[str, ...]
    types: frozenset[type]
    description: str

    @property
    def key(self) -> str:
        """``apiServer.http.port``."""
        return ".".join(self.path)

    @property
    def variable(self) -> str:
        """``MESHD_API_SERVER_HTTP_PORT``."""
        return PREFIX + "_".join(upper_snake(part) for part in self.path)

    @property
    def is_path(self) -> bool:
        """Whether a relative value is relative to the file that holds it."""
        return Path in self.types


def upper_snake(word: str) -> str:
    """``globalAddress`` -> ``GLOBAL_ADDRESS``; an all-capital word stays (``CIDR``)."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", word).upper()


def settings(model: type[BaseModel] = Config, above: tuple[str, ...] = ()) -> Iterator[Setting]:
    """Every leaf below ``model``, in the order of declaration. A list is a leaf."""
    for name, field in model.model_fields.items():
        path = (*above, field.alias or name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from settings(field.annotation, path)
        else:
            yield Setting(path, frozenset(_types(field.annotation)), field.description or "")


def _types(annotation: Any) -> Iterator[type]:
    """The plain types in an annotation: ``tuple[X, ...]`` counts as tuple, unions as their members."""
    origin = typing.get_origin(annotation)
    if isinstance(origin, type) and origin in (tuple, dict):
        yield origin
    elif origin is not None:
        for argument in typing.get_args(annotation):
            yield from _types(argument)
    elif isinstance(annotation, type):
        yield annotation


BY_VARIABLE: Mapping[str, Setting] = {s.variable: s for s in settings()}
BY_KEY: Mapping[str, Setting] = {s.key: s for s in settings()}


def overrides(env: Mapping[str, str]) -> tuple[list[tuple[Setting, Any]], list[Problem]]:
    """What the environment sets, as YAML data, and the variables with our prefix that name no setting."""
    found: list[tuple[Setting, Any]] = []
    problems: list[Problem] = []
    for variable in sorted(v for v in env if v.startswith(PREFIX) and v not in NOT_SETTINGS):
        setting = BY_VARIABLE.get(variable)
        if setting is None:
            problems.append(Problem(SOURCE, 0, variable, "names no setting" + did_you_mean(variable, BY_VARIABLE)))
            continue
        try:
            found.append((setting, read_value(setting, env[variable])))
        except ValueError as error:
            problems.append(Problem(SOURCE, 0, variable, str(error)))
    return found, problems


def read_value(setting: Setting, text: str) -> Any:
    """The text of a variable as YAML data. What has the wrong form is left for the tree to refuse.

    Raises:
        ValueError: a list that is neither YAML nor comma separated.
    """
    if tuple in setting.types:
        if not text.strip().startswith("["):
            return [item.strip() for item in text.split(",") if item.strip()]
        try:
            return yaml.safe_load(text)
        except yaml.YAMLError:
            raise ValueError(f"must be a YAML list or words separated by commas, not {text!r}") from None
    if bool in setting.types and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if int in setting.types and re.fullmatch(r"-?[0-9]{1,18}", text):
        return int(text)
    return text
