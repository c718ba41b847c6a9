"""The part of the configuration tree about names: what a zone answers, whom it asks, and what it keeps and shows."""

from datetime import timedelta
from ipaddress import IPv4Network

from pydantic import Field

from meshd.config.fields import (
    Amount,
    AtATime,
    Bytes,
    Day,
    Domain,
    Duration,
    FilePath,
    FixedPort,
    Flag,
    Listed,
    Listen,
    Network,
    Network4,
    OneIn,
    Processes,
    Rate,
    Text,
    Upstream,
    Week,
)
from meshd.config.section import Section


class DnsCache(Section):
    """What is kept of the upstreams' answers (meshd). With workers, each keeps its own."""

    max_entries: Amount = Field(default=10_000, description="Answers that are kept at most; 0: none.")
    max_bytes: Bytes = Field(default=16 << 20, description="Bytes that they take at most, about.")
    max_ttl: Day = Field(default=timedelta(days=1), description="An answer is kept no longer, whatever its TTL.")
    max_negative_ttl: Day = Field(
        default=timedelta(minutes=15), description="The same for 'no such name' and 'no such record'; 0s: not kept."
    )
    max_stale: Week = Field(
        default=timedelta(days=1), description="So long after its time it is told while no upstream answers; 0s: never."
    )
    prefetch: Flag = Field(default=True, description="Fetch what is often asked for again before its time is over.")


class DnsTcp(Section):
    """Clients that ask by TCP (meshd). With workers, for each."""

    max_connections: AtATime = Field(
        default=256, description="Open connections; for one more, one of the address with the most makes room."
    )
    idle_timeout: Duration = Field(
        default=timedelta(seconds=10), description="So long without a whole query, and a connection is closed."
    )


class QueryLog(Section):
    """A line for each answered query (meshd)."""

    enabled: Flag = Field(default=False, description="Write it.")
    file: FilePath = Field(default=None, description="Where to; made again if it is renamed. Default: standard error.")
    one_in: OneIn = Field(default=1, description="Of so many queries one is written, picked at random.")


class DnsServer(Section):
    """Names and virtual IPs of a zone."""

    domain: Domain = Field(default="mesh", description="The domain of the mesh's names.")
    cidr: Network4 = Field(default=IPv4Network("240.0.0.0/4"), alias="CIDR", description="The pool of virtual IPs.")
    service_vip_port: FixedPort = Field(default=80, description="The port to use with SERVICE.DOMAIN.")
    listen: Listen = Field(default="127.0.0.1:5653", description="UDP and TCP address; empty: no DNS (meshd).")
    upstreams: tuple[Upstream, ...] = Field(default=(), description="Servers for all other names (meshd).")
    allow: tuple[Network, ...] = Field(
        default=(), description="Networks that may ask, besides this host itself (meshd)."
    )
    rate_limit: Rate = Field(
        default=5000, description="Answers a second to one network of such clients by UDP; 0: no limit (meshd)."
    )
    workers: Processes = Field(default=0, description="Processes that answer; 0: a thread of this one does (meshd).")
    resolv_conf: FilePath = Field(
        default=None, description="Instead: the servers that this resolv.conf names, read again on change (meshd)."
    )
    max_outstanding: AtATime = Field(
        default=512, description="Questions that the upstreams are asked at a time; with workers: each (meshd)."
    )
    cache: DnsCache = DnsCache()
    tcp: DnsTcp = DnsTcp()
    query_log: QueryLog = QueryLog()
    top_names: Listed = Field(
        default=0,
        description="So many of the names asked for most in the last minute are told: to administrators by GET /_dns,"
        " the mesh's own of them by metrics (meshd).",
    )
    mesh: Text = Field(default="default", description="The mesh whose names and virtual IPs this host has (meshd).")

    @property
    def is_on_loopback(self) -> bool:
        """Whether the virtual IPs are addresses that every host has, so that several zones can share one."""
        return self.cidr.subnet_of(IPv4Network("127.0.0.0/8"))
