"""The kinds that are no policies: a file each with the spec, and ``KINDS``, which declares them once.

``declare.py`` builds ``KINDS``; ``*_rules.py`` hold what a schema cannot say; ``defaults.py`` completes a resource
that a user wrote. Specs mirror Kuma 2.14's Universal form field for field, in snake_case; in YAML and JSON they have
Kuma's spelling. The wire forms are messages of ``meshd.proto``; ``meshd.model.codec`` maps between the two.
"""

from meshd.kinds.declare import KINDS

__all__ = ["KINDS"]
