"""What of a proxy's own word (its node metadata) its resources depend on, as one value."""

from dataclasses import dataclass

LOOPBACKS = ("127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Redirect:
    """Transparent proxying: the ports to which the host redirects traffic, 0 for none, and whether IPv6 too."""

    inbound_port: int
    outbound_port: int
    ipv6: bool


@dataclass(frozen=True, slots=True)
class Abilities:
    """``redirect`` None: the host redirects nothing, the proxy listens for real.

    ``bind_outbounds``: it listens on the virtual IPs themselves. ``strict_inbound_ports``: redirected traffic is let in
    at the ports of inbounds only. ``admin_socket`` or ``admin_address`` and ``admin_port``: Envoy's admin API, port 0
    and no socket for none. ``readiness_port`` is the one at which kuma-dp says whether it is ready, 0 for none.
    ``dns_port`` 0: the proxy answers no names; ``embedded_dns``: its kuma-dp does, from what it fetches. ``workdir``
    is where its sockets are. ``has_kuma_dp``: there is one beside it, which adds the metrics of the application to its
    own; ``answers_probes``: that one also answers Kubernetes' probes. ``metrics_cert`` and ``metrics_key`` are files
    of its host to show to who reads metrics, empty for none. ``system_ca`` is the file of the CAs that its host trusts,
    "" if none is known.
    """

    reuse_port: bool = False
    ipv6: bool = True
    bind_outbounds: bool = False
    strict_inbound_ports: bool = False
    embedded_dns: bool = False
    redirect: Redirect | None = None
    admin_address: str = ""
    admin_port: int = 0
    admin_socket: str = ""
    readiness_port: int = 0
    readiness_socket: bool = False
    dns_port: int = 0
    workdir: str = ""
    has_kuma_dp: bool = False
    answers_probes: bool = False
    metrics_cert: str = ""
    metrics_key: str = ""
    system_ca: str = ""

    @property
    def is_redirected(self) -> bool:
        """Whether listeners for single addresses get their connections from a redirecting one instead of a socket."""
        return self.redirect is not None and not self.bind_outbounds

    @property
    def has_admin(self) -> bool:
        """Whether Envoy's admin API can be reached."""
        return bool(self.admin_socket or self.admin_port)
