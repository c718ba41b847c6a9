"""The secrets of a proxy: one pair for each mesh it speaks in."""

from collections.abc import Iterator, Mapping

from meshd.ca.identity import Credentials
from meshd.xds import tls
from meshd.xds.resources import SECRET, XdsResource, resource


def secrets(credentials: Mapping[str, Credentials]) -> Iterator[XdsResource]:
    """What is there to be shown and trusted, by mesh; what is not there yet, a proxy waits for."""
    for mesh in sorted(credentials):
        for document in tls.secrets(mesh, credentials[mesh]):
            yield resource(SECRET, document)
