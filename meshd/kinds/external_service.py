"""ExternalService: something outside the mesh that has a name inside it."""

from pydantic import Field

from meshd.model import labels as label
from meshd.model.fields import NO_TAGS, Bytes, Tags
from meshd.model.resource import Spec


class DataSource(Spec):
    """Bytes, by exactly one of four ways.

    ``secret`` names a Secret of the mesh, ``file`` a file of the control plane.
    """

    secret: str | None = None
    file: str | None = None
    inline: Bytes | None = None
    inline_string: str | None = None

    def __repr__(self) -> str:
        ways = [name for name in type(self).model_fields if getattr(self, name) is not None]
        return f"DataSource({', '.join(ways)})"

    __str__ = __repr__


class Tls(Spec):
    """TLS that the proxy originates towards the external service."""

    enabled: bool = False
    ca_cert: DataSource | None = None
    client_cert: DataSource | None = None
    client_key: DataSource | None = None
    allow_renegotiation: bool | None = None
    server_name: str | None = None
    skip_hostname_verification: bool | None = None


class Networking(Spec):
    """``address`` is host:port."""

    address: str = ""
    tls: Tls = Tls()
    disable_host_dns_entry: bool = Field(default=False, alias="disableHostDNSEntry")


class ExternalService(Spec):
    """See the module."""

    networking: Networking = Networking()
    tags: Tags = NO_TAGS

    @property
    def service(self) -> str:
        """The ``kuma.io/service`` tag, empty if there is none."""
        return self.tags.get(label.SERVICE, "")

    @property
    def host(self) -> str:
        """The host part of the address, without the brackets of an IPv6 one."""
        return self.networking.address.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """The port part of the address, 0 if there is none."""
        text = self.networking.address.rpartition(":")[2]
        return int(text) if text.isascii() and text.isdigit() else 0
