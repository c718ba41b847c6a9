"""What to do about text that is not YAML: the parser only says what it stumbled over. Pure."""

import re

import yaml

INDENTATION = "check the indentation of this line"
_ADVICE = {
    "did not find expected key": INDENTATION,
    "did not find expected '-' indicator": INDENTATION,
    "block sequence entries are not allowed": INDENTATION,
    "could not find expected ':'": "write 'key: value', with a space after the colon",
    "unexpected end of stream": "close the quote that begins on this line",
    "found undefined alias": "put the value that begins with '*' in quotes",
    "cannot start any token": "put the value that begins with {first!r} in quotes",
    "expected ',' or": "close the bracket that is open since line {begun}",
}
"""Part of the parser's words -> what to do."""
_COLON = re.compile(r":(?=\s|$)")


def explain(error: yaml.MarkedYAMLError, text: str) -> tuple[int, str]:
    """The line (from 1) to look at and a message that says what to do, for an error in ``text``."""
    problem = error.problem or str(error)
    mark, begun = error.problem_mark, error.context_mark
    line = mark.line + 1 if mark else 1
    if begun is not None and ("expected ':'" in problem or "unexpected end of stream" in problem):
        line = begun.line + 1  # the parser went on to the next line, or to the end of the text
    written = _line(text, line)
    advice = _advice(problem, written, mark.column if mark else 0, begun.line + 1 if begun else line)
    return line, f"{problem}; {advice}" if advice else problem


def _advice(problem: str, written: str, column: int, begun: int) -> str:
    if "\t" in written[: len(written) - len(written.lstrip())]:
        return "use spaces, not tabs, to indent this line"
    if "mapping values are not allowed" in problem:
        several = len(_COLON.findall(written)) > 1
        return "put the value in quotes, for it has a ':' in it" if several else INDENTATION
    advice = next((advice for part, advice in _ADVICE.items() if part in problem), "")
    return advice.format(first=written[column : column + 1], begun=begun)


def _line(text: str, number: int) -> str:
    """Line ``number`` of a text, empty if there is none."""
    lines = re.split(r"\r\n|[\n\r\u0085\u2028\u2029]", text)  # what ends a line in YAML
    return lines[number - 1] if number <= len(lines) else ""
