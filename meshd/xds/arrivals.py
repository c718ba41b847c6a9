"""How often a proxy may connect. Each time it does, all that it is to have is made and sent. Pure."""

from meshd.model.resource import ResourceKey

AT_ONCE = 5
"""So many connections in a row are served at once: a proxy is started, its network changes, its control plane moves."""
EVERY_S = 1.0
"""Beyond, one in so many seconds is."""
WAIT_S = 5.0
"""Nobody waits longer: less than a proxy itself waits after some attempts."""


class Arrivals:
    """Remembers proxies for some seconds after they connected."""

    def __init__(self) -> None:
        self._whole_at: dict[ResourceKey, float] = {}
        """When a proxy may connect ``AT_ONCE`` times again."""
        self._tidy_at = 64

    def wait_s(self, proxy: ResourceKey, now: float) -> float:
        """How many seconds the proxy that connects at ``now`` (of any clock) has to wait."""
        whole_at = max(self._whole_at.get(proxy, now), now)
        wait = max(whole_at - now - (AT_ONCE - 1) * EVERY_S, 0.0)
        self._whole_at[proxy] = min(whole_at + EVERY_S, now + (AT_ONCE - 1) * EVERY_S + WAIT_S)
        if len(self._whole_at) > self._tidy_at:
            self._whole_at = {key: at for key, at in self._whole_at.items() if at > now}
            self._tidy_at = max(2 * len(self._whole_at), 64)
        return wait
