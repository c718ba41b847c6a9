"""What all services of one role share."""

import os
import random
import secrets
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from meshd.app.envoys import is_kept
from meshd.ca.keeper import CaKeeper
from meshd.ca.service import read_file
from meshd.config import Config
from meshd.insight.keeper import InsightKeeper
from meshd.kds.keeper import ControlPlane
from meshd.kinds.external_service import DataSource
from meshd.kinds.secret import Secret
from meshd.l4.table import PermitFor
from meshd.model.registry import Registry
from meshd.model.resource import Resource, ResourceKey
from meshd.model.versions import KUMA
from meshd.policies import Policy
from meshd.policies.initial import initial_policies
from meshd.rest.api import Api, ConfigOf, ExplainName, Inspect, no_config
from meshd.rest.server import HttpMetrics, HttpServer, api_server, diagnostics_server
from meshd.rpc import RpcMetrics
from meshd.runtime.supervisor import Service
from meshd.store.store import Store
from meshd.xds.matched import Shapers

Tiers = Sequence[Sequence[Service]]
"""Services in the order in which they start; those of one tier need only those of the tiers before."""


def utc_now() -> datetime:
    """The clock of every service."""
    return datetime.now(UTC)


def never() -> bool:
    """Says no."""
    return False


@dataclass(slots=True)
class Role:
    """What every service of one role shares. ``started`` turns true when the last tier is ready.

    ``is_stopping`` says that the process is to end, ``is_by_hand`` that it was asked for at a terminal.
    """

    config: Config
    store: Store
    registry: Registry
    policies: Sequence[Policy]
    is_stopping: Callable[[], bool] = never
    is_by_hand: Callable[[], bool] = never
    metrics: CollectorRegistry = field(default_factory=CollectorRegistry)
    rng: random.Random = field(default_factory=random.SystemRandom)
    hostname: str = field(default_factory=socket.gethostname)
    started: bool = False
    instance_id: str = field(init=False)
    http_metrics: HttpMetrics = field(init=False)
    rpc_metrics: RpcMetrics = field(init=False)

    def __post_init__(self) -> None:
        self.instance_id = f"{self.hostname}-{secrets.token_hex(2)}"
        self.http_metrics = HttpMetrics(self.metrics)
        self.rpc_metrics = RpcMetrics(self.metrics)

    @property
    def shapers(self) -> Shapers:
        """What the policies do to the resources of an Envoy, in order."""
        return tuple((p.type.kind, p.shaper) for p in self.policies if p.shaper is not None)

    def keeps_envoy(self, adopted: bool) -> bool:
        """Whether an Envoy goes on when this process ends now."""
        stopped, by_hand = self.is_stopping(), self.is_by_hand()
        on_stop = self.config.envoy.on_stop
        return is_kept(on_stop, stopped=stopped, by_hand=by_hand, started=self.started, adopted=adopted)

    def api(
        self,
        kds_status: Callable[[], Mapping[str, Any]],
        zone_sync: Callable[[str], Mapping[str, Any] | None],
        inspect: Inspect,
        config_of: ConfigOf = no_config,
        explain_name: ExplainName | None = None,
        dns_status: Callable[[], Mapping[str, Any]] | None = None,
    ) -> HttpServer:
        """The REST API; see ``Api`` for what it shows of KDS and DNS, asks Envoys, and says what they are sent."""
        api = Api(
            self.store,
            self.registry,
            self.config,
            utc_now,
            self.instance_id,
            self.hostname,
            kds_status=kds_status,
            zone_sync=zone_sync,
            initial=self.initial,
            explain_name=explain_name,
            dns_status=dns_status,
            inspect=inspect,
            config_of=config_of,
            policies=[(policy.type, policy.sections) for policy in self.policies],
        )
        return api_server(api, self.metrics, self.http_metrics)

    def initial(self, mesh: Resource) -> Sequence[Resource]:
        """The policies that a new Mesh begins with here."""
        return initial_policies(self.policies, mesh, self.config.zone_name)

    @property
    def permit_for(self) -> PermitFor:
        """Who may connect, says the one policy that decides it."""
        return next(p.permit_for for p in self.policies if p.permit_for is not None)

    def control_plane(self) -> ControlPlane:
        """What KDS needs of this role."""
        return ControlPlane(self.store, self.registry, utc_now, self.metrics, self.instance_id, KUMA)

    def read_source(self, mesh: str, source: DataSource) -> bytes:
        """The bytes that a data source of a mesh names; see ``read_data_source``."""
        return read_data_source(self.store, self.config.general.data_source_dir, mesh, source)

    def ca_keeper(self) -> CaKeeper:
        """The keeper of keys and certificate authorities."""
        return CaKeeper(
            self.store,
            federated=self.config.is_federated,
            has_proxies=not self.config.is_global,
            now=utc_now,
            rng=self.rng,
            registry=self.metrics,
        )

    def insight_keeper(self) -> InsightKeeper:
        """The keeper of MeshInsight and ServiceInsight."""
        dns = self.config.dns_server
        return InsightKeeper(self.store, self.registry, dns.domain, dns.service_vip_port, self.metrics, self.rng)

    def diagnostics(self, missing: Callable[[], str]) -> HttpServer:
        """Health, readiness and metrics; up before everything else."""

        def ready() -> str:
            return missing() if self.started else "starting"

        return diagnostics_server(self.config, self.metrics, ready, self.http_metrics)


def read_data_source(store: Store, directory: Path | None, mesh: str, source: DataSource) -> bytes:
    """The bytes that a data source of a mesh names: in itself, in a Secret of the mesh, or in a file of this host.

    Who may write an ExternalService, maybe at the global, must not read this host's files by it: they are those below
    ``directory``, None for none. A relative name is relative to it.

    Raises:
        ValueError: it is not there.
    """
    if source.secret:
        resource = store.get(ResourceKey("Secret", mesh, source.secret))
        if resource is None or not isinstance(resource.spec, Secret):
            raise ValueError(f"mesh '{mesh}' has no Secret '{source.secret}'")
        return resource.spec.data
    if source.file:
        if directory is None:
            raise ValueError(
                f"file {source.file} is not read: ExternalServices may name files of this host only below "
                "general.dataSourceDir, which is not set; set it, or use a secret"
            )
        allowed = os.path.realpath(directory)
        path = os.path.realpath(Path(allowed, source.file))
        if os.path.commonpath([allowed, path]) != allowed:
            raise ValueError(f"file {source.file} is not read: it is not below general.dataSourceDir, {directory}")
        content = read_file(path)
        if isinstance(content, str):
            raise ValueError(f"cannot read {source.file}: {content}")
        return content
    if source.inline is not None:
        return source.inline
    return (source.inline_string or "").encode()
