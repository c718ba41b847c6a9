"""The part of the tree that is about proxies: the server they connect to, and what they are told first.

Source of the keys: Kuma ``pkg/config/dp-server/config.go``, ``pkg/config/xds/bootstrap/config.go``.
"""

import enum
from datetime import timedelta
from typing import Any

from pydantic import Field, field_validator

from meshd.config.fields import Duration, FilePath, FixedPort, Flag, Interface, Port, Positive, Text
from meshd.config.section import Section


class TlsVersion(enum.StrEnum):
    """A version of TLS."""

    TLS_1_2 = "TLSv1_2"
    TLS_1_3 = "TLSv1_3"


class DpAuthn(enum.StrEnum):
    """How a Dataplane proves who it is."""

    TOKEN = "dpToken"  # noqa: S105 - a type of token
    NONE = "none"


class ZoneAuthn(enum.StrEnum):
    """How a ZoneIngress or ZoneEgress proves who it is."""

    TOKEN = "zoneToken"  # noqa: S105 - a type of token
    NONE = "none"


def _authn_type(value: Any, default: str) -> Any:
    """Kuma's empty default chooses by the environment; one of its choices is for Kubernetes alone."""
    if value == "serviceAccountToken":
        raise ValueError(
            f"serviceAccountToken is Kubernetes's, which this version of meshd does not have; use {default}"
        )
    return default if value == "" else value


class DpProxyAuthn(Section):
    """Who may be a Dataplane."""

    type: DpAuthn = Field(default=DpAuthn.TOKEN, description="dpToken, or none: anyone may be any Dataplane.")

    @field_validator("type", mode="before")
    @classmethod
    def _type(cls, value: Any) -> Any:
        return _authn_type(value, DpAuthn.TOKEN)


class ZoneProxyAuthn(Section):
    """Who may be a ZoneIngress or ZoneEgress."""

    type: ZoneAuthn = Field(default=ZoneAuthn.TOKEN, description="zoneToken, or none: anyone may be any zone proxy.")

    @field_validator("type", mode="before")
    @classmethod
    def _type(cls, value: Any) -> Any:
        return _authn_type(value, ZoneAuthn.TOKEN)


class DpServerAuthn(Section):
    """How proxies prove who they are."""

    dp_proxy: DpProxyAuthn = DpProxyAuthn()
    zone_proxy: ZoneProxyAuthn = ZoneProxyAuthn()
    enable_reloadable_tokens: Flag = Field(
        default=False, description="Let Envoy read the token's file again and again, by its Google gRPC client."
    )


class HdsCheck(Section):
    """How a proxy probes its application, where the Dataplane's serviceProbe does not say."""

    timeout: Duration = Field(default=timedelta(seconds=2), description="A probe takes at most so long.")
    interval: Duration = Field(default=timedelta(seconds=1), description="Between two probes.")
    no_traffic_interval: Duration = Field(
        default=timedelta(seconds=1), description="Between two probes of what never had traffic."
    )
    healthy_threshold: Positive = Field(default=1, description="So many good probes make it healthy.")
    unhealthy_threshold: Positive = Field(default=1, description="So many bad probes make it unhealthy.")


class Hds(Section):
    """Service probes: proxies check the applications behind them and report."""

    enabled: Flag = Field(default=True, description="Let proxies probe applications that have a serviceProbe.")
    interval: Duration = Field(default=timedelta(seconds=5), description="Between two reports of a proxy.")
    check_defaults: HdsCheck = HdsCheck()


class DpServer(Section):
    """The server of a zone that its proxies connect to: bootstrap, ADS and HDS on one TLS port."""

    enabled: Flag = Field(default=True, description="Accept kuma-dp and Envoy (meshd).")
    port: Port = Field(default=5678, description="TCP port for proxies.")
    interface: Interface = Field(default="0.0.0.0", description="Address to bind (meshd).")  # noqa: S104
    tls_cert_file: FilePath = Field(
        default=None, description="PEM chain. Default: general.tlsCertFile, else one that meshd makes."
    )
    tls_key_file: FilePath = Field(default=None, description="PEM key. Default: general.tlsKeyFile, see tlsCertFile.")
    tls_min_version: TlsVersion = Field(default=TlsVersion.TLS_1_2, description="TLSv1_2 or TLSv1_3.")
    read_header_timeout: Duration = Field(
        default=timedelta(seconds=5), description="How long the head of a plain HTTP request may take."
    )
    authn: DpServerAuthn = DpServerAuthn()
    hds: Hds = Hds()

    @field_validator("tls_min_version", mode="before")
    @classmethod
    def _version(cls, value: Any) -> Any:
        if value in ("TLSv1_0", "TLSv1_1"):
            raise ValueError(f"{value} is not secure and not spoken here; use TLSv1_2 or TLSv1_3")
        return TlsVersion.TLS_1_2 if value == "" else value


class BootstrapParams(Section):
    """What goes into every bootstrap document."""

    admin_address: Interface = Field(default="127.0.0.1", description="Envoy's admin API, where it is on TCP.")
    admin_port: FixedPort = Field(default=9901, description="Envoy's admin API, unless its resource says another.")
    envoy_admin_unix_socket: Flag = Field(
        default=True, description="Envoy's admin API on a Unix socket in the proxy's work directory instead."
    )
    admin_access_log_path: Text = Field(default="/dev/null", description="Log of Envoy's admin API, on its host.")
    xds_host: Text = Field(default="", description="Where proxies find this server. Default: as they called it.")
    xds_port: Port = Field(default=0, description="The port of xdsHost. Default: dpServer.port.")
    xds_connect_timeout: Duration = Field(default=timedelta(seconds=1), description="For a proxy's connection here.")
    xds_grpc_max_receive_message_bytes: Positive = Field(
        default=4 * 1024 * 1024, description="What Envoy's Google gRPC client receives at most, in one message."
    )
    corefile_template_path: FilePath = Field(
        default=None, description="A Corefile template that kuma-dp is to use instead of its own."
    )

    @field_validator("admin_access_log_path")
    @classmethod
    def _log_path(cls, value: str) -> str:
        if not value:
            raise ValueError("must be a path on the proxy's host, such as /dev/null")
        return value

    @field_validator("xds_host")
    @classmethod
    def _host(cls, value: str) -> str:
        if value and (any(c in value for c in "/@?#[] ") or value.count(":") == 1):
            raise ValueError(f"must be a host name or an IP address, without a port, not {value!r}")
        return value


class BootstrapServer(Section):
    """How proxies are told how to start."""

    params: BootstrapParams = BootstrapParams()


class XdsServer(Section):
    """How proxies are kept."""

    dataplane_deregistration_delay: Duration = Field(
        default=timedelta(seconds=10), description="A proxy that brought its resource has so long to come back."
    )


class Universal(Section):
    """What is forgotten in time."""

    dataplane_cleanup_age: Duration = Field(
        default=timedelta(hours=72), description="A Dataplane whose proxy is gone for so long is deleted."
    )
    zone_resource_cleanup_age: Duration = Field(
        default=timedelta(hours=72), description="A zone proxy that is gone for so long is deleted."
    )


class Runtime(Section):
    """What depends on where Kuma runs."""

    universal: Universal = Universal()
