"""Which versions of Kuma's parts go together."""

import re

KUMA = "2.14.3"
"""The version of Kuma whose protocols are spoken here; peers that ask how old we are get this."""
_VERSION = re.compile(r"v?(\d+)\.(\d+)\.\d+")


def compatible(ours: str, theirs: str) -> bool:
    """Whether two versions are of one major and at most two minors apart; what is no version counts as compatible.

    Source: Kuma ``pkg/version/compatibility.go`` (behaviour).
    """
    a, b = _VERSION.match(ours), _VERSION.match(theirs)
    if a is None or b is None:
        return True
    return a[1] == b[1] and abs(int(a[2]) - int(b[2])) <= 2
