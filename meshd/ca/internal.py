"""How an Envoy that this process started proves to its own dp-server which proxy it is.

A dataplane token would do for a Dataplane, but a federated zone has only the public keys of zone tokens, so it cannot
make one for an ingress or an egress. Both kinds show a secret of their own instead, which never leaves this host.
"""

import hmac

from meshd.model.resource import ResourceKey

PREFIX = "meshd-internal-"
"""No JSON Web Token begins so: whoever reads an ``authorization`` can tell the two apart."""


class InternalCredentials:
    """The secrets of the proxies that this process runs as Envoys now; one writer, whoever starts them.

    What was admitted for one proxy proves nothing about another, and nothing at all once it is forgotten.
    """

    def __init__(self) -> None:
        self._secrets: dict[ResourceKey, bytes] = {}

    def admit(self, proxy: ResourceKey, secret: str) -> None:
        """Take ``secret``, the whole text that the proxy will show, as the proof of ``proxy`` from now on.

        Raises:
            ValueError: it is no text that ``credential`` makes.
        """
        if not is_internal(secret):
            raise ValueError(f"{proxy}: an internal credential begins with {PREFIX}")
        self._secrets[proxy] = secret.encode()

    def forget(self, proxy: ResourceKey) -> None:
        """Take nothing more as the proof of a proxy; one that was never admitted is none."""
        self._secrets.pop(proxy, None)

    def proves(self, proxy: ResourceKey, shown: str) -> bool:
        """Whether ``shown`` is the credential of that proxy. Takes the same time however much of it is right."""
        secret = self._secrets.get(proxy)
        return secret is not None and hmac.compare_digest(secret, shown.encode(errors="surrogatepass"))


def credential(secret: bytes) -> str:
    """The text to show for ``secret``, which is random and at least 32 bytes long.

    Raises:
        ValueError: it is shorter.
    """
    if len(secret) < 32:
        raise ValueError(f"an internal credential needs 32 bytes, not {len(secret)}")
    return PREFIX + secret.hex()


def is_internal(shown: str) -> bool:
    """Whether a text claims to be such a credential, rather than a token; it may still be a wrong one."""
    return shown.startswith(PREFIX)
