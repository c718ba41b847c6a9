"""Config: one piece of a control plane's own state, such as ``kuma-cluster-id`` or the VIPs of a mesh."""

from meshd.model.resource import Spec


class Config(Spec):
    """``config`` is text; what it means depends on the name."""

    config: str = ""
