"""The upstream end of a connection to a cluster: which endpoint, by which way, as whom."""

import ssl
from collections.abc import Awaitable, Callable

from meshd.ca.identity import Credentials, Identity, TrustBundle
from meshd.l4.choose import Balancer, Pick
from meshd.l4.client import Dialer, first_that_works
from meshd.l4.metrics import Metrics, Series
from meshd.l4.relay import Leg, PlainLeg
from meshd.l4.table import Cluster, IdentityKey, Path
from meshd.l4.tls import Contexts, check_server
from meshd.model.errors import UnavailableError
from meshd.topology.view import Endpoint, Reach


class Upstreams:
    """Opens upstream ends for the connections of one proxy.

    ``credentials`` gives what is in force for an identity now.
    """

    def __init__(
        self,
        proxy: str,
        credentials: Callable[[IdentityKey], Credentials],
        balancer: Balancer,
        dialer: Dialer,
        metrics: Metrics,
        series: Series,
    ) -> None:
        self._proxy = proxy
        self._credentials = credentials
        self._balancer = balancer
        self._dialer = dialer
        self._metrics = metrics
        self._series = series
        self._contexts = Contexts()

    async def open(self, listener: str, cluster: Cluster) -> tuple[Leg, Pick]:
        """An end at an endpoint of ``cluster``, verified as far as it can be; no application byte is sent.

        Raises:
            UnavailableError: no endpoint works.
        """

        async def attempt(endpoint: Endpoint, connect_s: float, answer_s: float) -> Leg:
            return await self._reach(cluster, endpoint, connect_s, answer_s)

        return await self._dial(listener, cluster, attempt)

    async def pass_on(self, listener: str, cluster: Cluster, hello: bytes) -> tuple[Leg, Pick]:
        """An end that got the client's own ClientHello and has begun to answer it.

        Raises:
            UnavailableError: no endpoint works.
        """

        async def attempt(endpoint: Endpoint, connect_s: float, answer_s: float) -> Leg:
            upstream = await self._dialer.tcp(endpoint.address, endpoint.port, connect_s)
            return await self._dialer.hello(upstream, hello, answer_s)

        return await self._dial(listener, cluster, attempt)

    async def _dial(
        self, listener: str, cluster: Cluster, attempt: Callable[[Endpoint, float, float], Awaitable[Leg]]
    ) -> tuple[Leg, Pick]:
        def tell(pick: Pick, outcome: str) -> None:
            self._series.child(self._metrics.attempts, *self.labels(cluster, pick.path), outcome).inc()

        return await first_that_works(cluster, listener, self._balancer, attempt, tell)

    async def _reach(self, cluster: Cluster, endpoint: Endpoint, connect_s: float, answer_s: float) -> Leg:
        expected = cluster.tls
        if endpoint.reach is not Reach.EXTERNAL and expected is not None:
            context = self.context(expected.identity, server_side=False)
            sock = await self._dialer.tcp(endpoint.address, endpoint.port, connect_s)
            return await self._dialer.tls(
                sock, context, expected.sni, lambda tls: check_server(tls.peer_uris(), expected.expected_uri), answer_s
            )
        if endpoint.reach is Reach.EXTERNAL and (origination := cluster.origination) is not None:
            context = self._contexts.origination(origination)
            name = (origination.server_name or endpoint.address).encode()
            sock = await self._dialer.tcp(endpoint.address, endpoint.port, connect_s)
            return await self._dialer.tls(sock, context, name, lambda _: None, answer_s, lenient=True)
        return PlainLeg(await self._dialer.tcp(endpoint.address, endpoint.port, connect_s))

    def context(self, key: IdentityKey, *, server_side: bool) -> ssl.SSLContext:
        """The TLS context that shows the certificate in force for an identity.

        Raises:
            UnavailableError: there is none yet.
        """
        held = self._credentials(key)
        identity: Identity | None = held.identity
        trust: TrustBundle = held.trust
        if identity is None:
            raise UnavailableError(f"mesh '{key.mesh}': no certificate yet for {key.owner}")
        return self._contexts.mesh(identity, trust, server_side=server_side)

    def labels(self, cluster: Cluster, path: Path) -> tuple[str, ...]:
        """Those of the series of an upstream, see ``metrics.UPSTREAM``."""
        return (self._proxy, cluster.mesh, cluster.name, f"{path.address}:{path.port}", path.zone)
