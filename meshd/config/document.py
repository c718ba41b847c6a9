"""YAML text -> plain data with the line of every key, and its mistakes as ``Problem`` values."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from meshd.config.problem import Problem
from meshd.model.documents import load_documents
from meshd.model.errors import InvalidError

_LINE = re.compile(r"line (\d+)")


@dataclass(frozen=True, slots=True)
class Document:
    """One YAML document of ``source``: its data, the line it starts on, and the line of each path."""

    source: str
    data: Any
    line: int
    lines: Mapping[str, int]

    def line_of(self, path: str) -> int:
        """The line of ``path``, or of the nearest thing around it that is in the document."""
        while path and path not in self.lines:
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return self.lines.get(path, self.line)

    def problem(self, path: str, message: str) -> Problem:
        """A problem at ``path`` of this document."""
        return Problem(self.source, self.line_of(path), path, message)


def parse(text: str, source: str) -> tuple[list[Document], list[Problem]]:
    """Every non-empty document of ``text``, or why it is not YAML."""
    try:
        documents = load_documents(text, source)
    except InvalidError as error:
        problems = []
        for violation in error.violations:
            line = _LINE.fullmatch(violation.field)
            problems.append(Problem(source, int(line[1]) if line else 0, "", f"cannot be read: {violation.message}"))
        return [], problems
    return [Document(source, d.data, d.line, d.lines) for d in documents], []
