"""What the tests of policies share."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from meshd import policies
from meshd.kinds import KINDS
from meshd.model.codec import decode_document
from meshd.model.errors import InvalidError
from meshd.model.registry import Registry
from meshd.model.resource import Resource

POLICIES = policies.discover()
REGISTRY = Registry((*KINDS, *(p.type for p in POLICIES)))
ROOT = Path(policies.__file__).parent
FOLDERS = sorted(path.parent for path in ROOT.glob("*/README.md"))


def examples(folder: Path) -> list[dict[str, Any]]:
    """The documents of a README."""
    texts = re.findall(r"```yaml\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    return [document for text in texts for document in yaml.safe_load_all(text)]


def policy(kind: str, name: str, spec: Mapping[str, Any], labels: Mapping[str, str] | None = None) -> Resource:
    """A valid policy of mesh "default", from its document."""
    document = {"type": kind, "mesh": "default", "name": name, "spec": spec, "labels": dict(labels or {})}
    return decode_document(document, REGISTRY)


def wrong(kind: str, spec: Mapping[str, Any], labels: Mapping[str, str] | None = None) -> list[str]:
    """Every violation of a policy; none if it is valid."""
    try:
        policy(kind, "p", spec, labels)
    except InvalidError as error:
        return [str(violation) for violation in error.violations]
    return []
