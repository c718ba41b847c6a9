"""A condition on the client of a connection: its SPIFFE identity, the SNI it sent (``rules`` of all policies)."""

import enum
import re
from collections.abc import Iterable

from pydantic import Field

from meshd.model.errors import Violation
from meshd.model.resource import Spec

_TRUST_DOMAIN = re.compile(r"[a-z0-9.\-_]+\Z")
_SEGMENT = re.compile(r"[a-zA-Z0-9.\-_]+\Z")
_DNS_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\Z")
MAX_DNS_NAME = 253


class SpiffeIdMatchType(enum.StrEnum):
    """How an identity is compared."""

    EXACT = "Exact"
    PREFIX = "Prefix"


class SniMatchType(enum.StrEnum):
    """How an SNI is compared."""

    EXACT = "Exact"


class SpiffeIdMatch(Spec):
    """An identity, or the text one begins with (just text: ``spiffe://m/web`` also begins ``spiffe://m/web-2``)."""

    type: SpiffeIdMatchType
    value: str


class SniMatch(Spec):
    """The server name a client sent in its ClientHello."""

    type: SniMatchType
    value: str


class ClientMatch(Spec):
    """Holds if all the conditions that are set hold; one without any holds never, as in Kuma."""

    spiffe_id: SpiffeIdMatch | None = Field(default=None, alias="spiffeID")
    sni: SniMatch | None = None

    def holds(self, uris: Iterable[str], sni: str) -> bool:
        """Whether a client whose certificate has these URI SANs and that sent this SNI ("" for none) is meant.

        The identity condition looks at every URI by itself.
        """
        if self.spiffe_id is None and self.sni is None:
            return False
        if self.sni is not None and sni != self.sni.value:
            return False
        if self.spiffe_id is None:
            return True
        wanted = self.spiffe_id.value
        if self.spiffe_id.type is SpiffeIdMatchType.EXACT:
            return any(uri == wanted for uri in uris)
        return any(uri.startswith(wanted) for uri in uris)


def violations(match: ClientMatch, path: str) -> list[Violation]:
    """Everything wrong with a condition that stands at ``path``."""
    found = []
    if match.spiffe_id is not None and (reason := spiffe_id_problem(match.spiffe_id.value)):
        found.append(Violation(f"{path}.spiffeID.value", f"must be a valid SPIFFE ID: {reason}"))
    if match.sni is not None and not match.sni.value:
        found.append(Violation(f"{path}.sni.value", "must be set"))
    elif match.sni is not None and (len(match.sni.value) > MAX_DNS_NAME or not _DNS_NAME.match(match.sni.value)):
        found.append(Violation(f"{path}.sni.value", f"'{match.sni.value}' must be a lower-case DNS name"))
    return found


def spiffe_id_problem(value: str) -> str:
    """Why a text is no SPIFFE ID, "" if it is one.

    Source: the SPIFFE ID standard, section 2, as go-spiffe checks it.
    """
    scheme = "spiffe://"
    if not value.startswith(scheme):
        return f"'{value}' does not begin with {scheme}"
    domain, slash, path = value.removeprefix(scheme).partition("/")
    if not domain:
        return f"'{value}' has no trust domain"
    if not _TRUST_DOMAIN.match(domain):
        return f"trust domain '{domain}' may have lower-case letters, digits, dots, dashes and underscores"
    if not slash:
        return ""
    for segment in path.split("/"):
        if not segment:
            return f"'{value}' has an empty path segment or ends with a slash"
        if segment in (".", ".."):
            return f"'{value}' has a path segment of dots"
        if not _SEGMENT.match(segment):
            return f"path segment '{segment}' may have letters, digits, dots, dashes and underscores"
    return ""
