"""The documentation names files that exist, and every ADR is numbered once."""

import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PATH = re.compile(r"(?:meshd|docs|tests|conf|proto)/[\w./@-]+\w")


@pytest.mark.parametrize("page", ["docs/tour.md", "README.md"])
def test_every_path_of_a_page_exists(page):
    text = (ROOT / page).read_text()
    named = {m for m in PATH.findall(text) if "<" not in m}
    missing = sorted(p for p in named if not (ROOT / p).exists() and not (ROOT / p.rsplit(".", 1)[0]).exists())
    assert named
    assert not missing


def test_the_tour_says_what_the_layers_say():
    """Every package of the layers appears in the tour: a newcomer has met each once."""
    tour = (ROOT / "docs/tour.md").read_text()
    packages = {p.name for p in (ROOT / "meshd").iterdir() if (p / "__init__.py").exists()} - {
        "proto",
        "config",
        "insight",
    }
    assert not sorted(p for p in packages if f"meshd/{p}/" not in tour)


def test_decisions_are_numbered_once():
    numbers = Counter(p.name[:3] for p in (ROOT / "docs/adr").glob("*.md"))
    assert all(n.isdigit() for n in numbers)
    assert not [n for n, count in numbers.items() if count > 1]
