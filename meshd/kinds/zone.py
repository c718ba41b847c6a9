"""Zone: a zone that may join, on the global."""

from meshd.model.resource import Spec


class Zone(Spec):
    """``enabled`` absent means yes; a disabled zone's ingresses are not forwarded to other zones."""

    enabled: bool | None = None

    @property
    def is_enabled(self) -> bool:
        """Whether other zones may see it."""
        return self.enabled is not False
