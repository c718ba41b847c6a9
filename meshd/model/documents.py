"""YAML (and so JSON) text to plain data, many documents a text, without YAML's traps.

Refused with the line: duplicate keys, keys that are not text, anchors that blow up, nesting and sizes beyond limits.
Dates stay text. Duplicate keys matter because YAML would silently take the last.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from meshd.model.errors import InvalidError, Violation
from meshd.model.shape import join_path
from meshd.model.yaml_advice import explain

MAX_BYTES = 8 * 2**20
MAX_DEPTH = 64
MAX_NODES = 500_000
"""Values in one document with every alias written out."""


@dataclass(frozen=True, slots=True)
class Document:
    """One parsed document: JSON-like ``data``, the ``line`` it starts on, and the line of every field by its path.

    Paths are those of ``Violation.field``; lines count from 1.
    """

    data: Any
    line: int
    lines: Mapping[str, int]

    def line_of(self, field: str) -> int:
        """The line of a field, or of the nearest thing around it that is written down."""
        while field and field not in self.lines:
            field = field[: max(field.rfind("."), field.rfind("["), 0)]
        return self.lines.get(field, self.line)


def load_documents(text: str, source: str = "document") -> list[Document]:
    """Every document of ``text`` that is not empty; ``source`` names the text in errors (a file's path).

    Raises:
        InvalidError: the text is not YAML or breaks a limit; ``field`` of its violation is "line N".
    """
    if len(text) > MAX_BYTES:
        raise InvalidError(source, [Violation("", f"has {len(text)} characters, at most {MAX_BYTES} are read")])
    try:
        _check_depth(text)
        nodes = list(yaml.compose_all(text, Loader=_Loader))
        built = [_build(node) for node in nodes if node is not None]
    except yaml.MarkedYAMLError as error:
        line, message = explain(error, text)
        raise InvalidError(source, [Violation(f"line {line}", message)]) from None
    except (yaml.YAMLError, ValueError) as error:
        raise InvalidError(source, [Violation("", f"is not YAML: {error}")]) from None
    return [document for document in built if document.data is not None]


class _Loader(yaml.CSafeLoader):
    """Safe, fast, and leaves dates as text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}


def _check_depth(text: str) -> None:
    """Refuse deep nesting while it is still a flat run of events: composing recurses in C."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise _problem(event, f"is nested deeper than {MAX_DEPTH}")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _build(root: yaml.Node) -> Document:
    budget = _Budget()
    lines: dict[str, int] = {}
    data = _value(root, (), lines, budget)
    return Document(data, root.start_mark.line + 1, lines)


class _Budget:
    """How many more values a document may have; aliases count every time they are used."""

    def __init__(self) -> None:
        self._left = MAX_NODES

    def spend(self, node: yaml.Node, depth: int) -> None:
        self._left -= 1
        if self._left < 0:
            raise _problem(node, f"has more than {MAX_NODES} values with its anchors written out")
        if depth > MAX_DEPTH:
            raise _problem(node, f"is nested deeper than {MAX_DEPTH}, or an anchor contains itself")


_SCALARS = yaml.constructor.SafeConstructor()


def _value(node: yaml.Node, path: tuple[str | int, ...], lines: dict[str, int], budget: _Budget) -> Any:
    budget.spend(node, len(path))
    lines.setdefault(join_path(path), node.start_mark.line + 1)
    if isinstance(node, yaml.ScalarNode):
        try:
            return _SCALARS.construct_object(node)
        except ValueError as error:
            raise _problem(node, f"{node.value!r} cannot be read: {error}") from None
        except yaml.constructor.ConstructorError as error:
            raise _problem(node, error.problem or str(error)) from None
    if node.tag not in ("tag:yaml.org,2002:seq", "tag:yaml.org,2002:map"):
        raise _problem(node, f"tag {node.tag} is not allowed")
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, (*path, index), lines, budget) for index, item in enumerate(node.value)]
    result: dict[str, Any] = {}
    for key, value_node in _entries(node, budget, len(path)):
        lines[join_path((*path, key.value))] = key.start_mark.line + 1
        result[key.value] = _value(value_node, (*path, key.value), lines, budget)
    return result


def _entries(node: yaml.Node, budget: _Budget, depth: int) -> Iterator[tuple[yaml.Node, yaml.Node]]:
    """The entries of a mapping with "<<" merged in; own keys win, and none may come twice."""
    own: dict[str, tuple[yaml.Node, yaml.Node]] = {}
    merged: dict[str, tuple[yaml.Node, yaml.Node]] = {}
    for key, value in node.value:
        if key.tag == "tag:yaml.org,2002:merge":
            for source in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                budget.spend(source, depth + 1)
                if not isinstance(source, yaml.MappingNode):
                    raise _problem(source, "only an object can be merged with <<")
                for entry in _entries(source, budget, depth + 1):
                    budget.spend(entry[1], depth + 1)
                    merged.setdefault(entry[0].value, entry)
            continue
        if key.tag != "tag:yaml.org,2002:str":
            shown = key.value if isinstance(key, yaml.ScalarNode) else "a list or object"
            raise _problem(key, f"field names must be text; put {shown} in quotes")
        if key.value in own:
            first = own[key.value][0].start_mark.line + 1
            raise _problem(key, f'field "{key.value}" is there twice, first on line {first}')
        own[key.value] = (key, value)
    yield from (merged | own).values()


def _problem(where: Any, text: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=text, problem_mark=where.start_mark)
