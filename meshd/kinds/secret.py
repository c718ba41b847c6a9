"""Secret and GlobalSecret: keys, certificates and tokens."""

from meshd.model.fields import Bytes
from meshd.model.resource import Spec


class Secret(Spec):
    """``data`` is raw bytes (base64 in JSON). Never print or log it."""

    data: Bytes = b""

    def __repr__(self) -> str:
        return f"Secret(<{len(self.data)} bytes>)"

    __str__ = __repr__
