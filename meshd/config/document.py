"""YAML text -> plain data, with the line of every key, so that an error can say where it is."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from meshd.config.problem import Problem

MAX_NODES = 100_000
"""Aliases can make a few lines unfold into billions of nodes; no honest file comes near this."""
MAX_DEPTH = 64


@dataclass(frozen=True, slots=True)
class Document:
    """One YAML document: its data and the line of each path (``networking.inbound[0].port``)."""

    source: str
    data: Any
    lines: Mapping[str, int]

    def line_of(self, path: str) -> int:
        """The line of ``path``, or of the nearest thing around it that is in the document."""
        while path and path not in self.lines:
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return self.lines.get(path, 0)

    def problem(self, path: str, message: str) -> Problem:
        """A problem at ``path`` of this document."""
        return Problem(self.source, self.line_of(path), path, message)


def parse(text: str, source: str) -> tuple[list[Document], list[Problem]]:
    """Every non-empty document of ``text``. JSON is YAML too. Duplicate keys and runaway aliases are problems."""
    documents: list[Document] = []
    problems: list[Problem] = []
    loader = yaml.CSafeLoader(text)
    try:
        while loader.check_node():
            node = loader.get_node()
            if node is None:
                continue
            lines: dict[str, int] = {}
            found = list(_walk(node, lines))
            problems += [Problem(source, line, path, message) for path, line, message in found]
            # A document with a duplicate key is still decoded, so that the rest of its problems show at once;
            # one that unfolds without end is not.
            if not any(message is _TOO_BIG for _, _, message in found):
                documents.append(Document(source, loader.construct_document(node), lines))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        what = getattr(error, "problem", None) or str(error)
        context = getattr(error, "context", None)
        message = f"is not valid YAML: {context + ': ' if context else ''}{what}"
        problems.append(Problem(source, mark.line + 1 if mark is not None else 0, "", message))
    except (ValueError, RecursionError, TypeError) as error:  # a bad timestamp, an unhashable key, deep nesting
        problems.append(Problem(source, 0, "", f"is not valid YAML: {error}"))
    finally:
        loader.dispose()
    return [d for d in documents if d.data is not None], problems


_TOO_BIG = f"is refused: nested deeper than {MAX_DEPTH} or, with its aliases unfolded, more than {MAX_NODES} nodes"


def _walk(root: yaml.Node, lines: dict[str, int]) -> Iterator[tuple[str, int, str]]:
    """Fill ``lines`` and yield (path, line, message) for what plain data cannot hold."""
    stack: list[tuple[yaml.Node, str, int]] = [(root, "", 0)]
    lines[""] = root.start_mark.line + 1
    seen = 0
    while stack:
        node, path, depth = stack.pop()
        seen += 1
        if seen > MAX_NODES or depth > MAX_DEPTH:
            yield path[:80], node.start_mark.line + 1, _TOO_BIG
            return
        if isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                inner = f"{path}[{index}]"
                lines[inner] = item.start_mark.line + 1
                stack.append((item, inner, depth + 1))
        elif isinstance(node, yaml.MappingNode):
            keys: set[str] = set()
            for key, value in node.value:
                line = key.start_mark.line + 1
                if not isinstance(key, yaml.ScalarNode):
                    yield path, line, "has a key that is not plain text"
                    continue
                inner = f"{path}.{key.value}" if path else key.value
                if key.value in keys:
                    yield inner, line, f"is given twice (first on line {lines[inner]}); remove one"
                keys.add(key.value)
                lines[inner] = line
                stack.append((value, inner, depth + 1))
