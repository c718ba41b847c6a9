"""TLS over memory buffers, with half-close, and the contexts for both sides of mesh mTLS. No I/O here.

Python's ``SSLSocket`` and ``trio.SSLStream`` end both directions at once. Here each direction ends by itself:
``close_write`` sends close_notify and reading goes on, as TLS 1.3 means it (RFC 8446 6.1) and Envoy does it.
"""

import contextlib
import ssl
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import cast

from meshd.ca.identity import KUMA_ALPN, Identity, TrustBundle
from meshd.ca.origination import Origination, load_material, pem_path
from meshd.model.errors import PeerError

CHUNK_BYTES = 16 * 1024
"""The most that one TLS record carries."""

CACHED_CONTEXTS = 256
"""More than the certificates that one process holds at a time, old and new; a context costs about 0.5 ms to build."""


class TlsError(PeerError):
    """The peer broke TLS, or is not who it should be."""


class TruncatedError(TlsError):
    """The peer's bytes ended without close_notify: what came may not be all."""


class Tls:
    """One TLS connection. Feed it what arrives, send what ``take`` gives after every call.

    ``read_into`` returns how many bytes of plaintext it wrote, 0 at the clean end of the peer's direction, and None
    when it needs more input.
    """

    __slots__ = ("_ended", "_incoming", "_outgoing", "_stash", "_tls")

    def __init__(self, context: ssl.SSLContext, *, server_side: bool, server_name: bytes | None = None) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        # As bytes: a str goes through IDNA, which refuses labels over 63 characters.
        try:
            self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side, server_name)
        except ValueError as error:
            raise TlsError(f"server name {server_name!r}: {error}") from error
        self._stash = bytearray()
        self._ended = False

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Take bytes that the peer sent."""
        self._incoming.write(data)

    def feed_eof(self) -> None:
        """The peer's TCP direction has ended."""
        self._incoming.write_eof()

    def take(self) -> bytes:
        """The bytes to send now, maybe none."""
        return self._outgoing.read() if self._outgoing.pending else b""

    def has_output(self) -> bool:
        """Whether ``take`` would give anything."""
        return self._outgoing.pending > 0

    def handshake(self) -> bool:
        """Go on with the handshake; True when it is done (what ``take`` gives still has to be sent).

        Raises:
            TlsError: it failed; ``take`` may hold an alert for the peer.
        """
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except (ssl.SSLError, ValueError) as error:
            raise TlsError(f"TLS handshake failed: {reason_of(error)}") from error
        return True

    def read_into(self, view: memoryview) -> int | None:
        """Decrypt as much as there is and fits into ``view``, which must not be empty."""
        if self._stash:
            count = min(len(self._stash), len(view))
            view[:count] = self._stash[:count]
            del self._stash[:count]
            return count
        return self._decrypt(view)

    def _decrypt(self, view: memoryview) -> int | None:
        total, size = 0, len(view)
        while total < size:
            try:
                # With a buffer, read returns how much it wrote; typeshed declares the bufferless form only.
                count = cast("int", self._tls.read(min(size - total, CHUNK_BYTES), view[total:]))
            except ssl.SSLWantReadError:
                return total or None
            except ssl.SSLZeroReturnError:
                count = 0
            except ssl.SSLError as error:
                if total:  # what came before counts; the error shows again at the next call
                    return total
                if isinstance(error, ssl.SSLEOFError) or error.reason == "UNEXPECTED_EOF_WHILE_READING":
                    raise TruncatedError("the peer's TLS stream ended without close_notify") from error
                raise TlsError(f"TLS read failed: {reason_of(error)}") from error
            if not count:
                if total:
                    return total
                self._ended = True
                return 0
            total += count
        return total

    def write(self, data: bytes | memoryview) -> None:
        """Encrypt all of ``data``.

        Raises:
            TlsError: the connection has failed.
        """
        try:
            # Into memory, so it is never partial: OpenSSL writes every record before it returns.
            self._tls.write(data)
        except ssl.SSLError as error:
            raise TlsError(f"TLS write failed: {reason_of(error)}") from error

    def close_write(self) -> None:
        """End our direction with close_notify; reading goes on.

        ``unwrap`` also looks for the peer's close_notify and fails on application data in front of it, so what has
        arrived is decrypted first.
        """
        if not self._ended:
            chunk = memoryview(bytearray(CHUNK_BYTES))
            with contextlib.suppress(TlsError):  # a broken read direction shows at the next read
                while count := self._decrypt(chunk):
                    self._stash += chunk[:count]
        # Want-read: our close_notify is out and the peer's is not in yet, which is what half-close is.
        with contextlib.suppress(ssl.SSLError):
            self._tls.unwrap()

    def peer_uris(self) -> tuple[str, ...]:
        """All URI SANs of the peer's verified certificate.

        Raises:
            TlsError: the certificate cannot be read.
        """
        try:
            certificate = self._tls.getpeercert() or {}
        except (ValueError, ssl.SSLError) as error:
            raise TlsError(f"unreadable peer certificate: {error}") from error
        names = cast("tuple[tuple[str, str], ...]", certificate.get("subjectAltName", ()))
        return tuple(value for kind, value in names if kind == "URI")

    def alpn(self) -> str | None:
        """The protocol agreed on."""
        return self._tls.selected_alpn_protocol()


def reason_of(error: Exception) -> str:
    """What went wrong, short, without OpenSSL's source position."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate refused: {error.verify_message}"
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.lower().replace("_", " ")
    return str(error)


def check_server(uris: tuple[str, ...], expected: str) -> None:
    """Raise TlsError unless a server that shows ``uris`` is exactly ``expected``."""
    if expected not in uris:
        raise TlsError(f"peer is {', '.join(uris) or 'nobody'}, not {expected}")


def check_client(uris: tuple[str, ...], mesh: str) -> None:
    """Raise TlsError unless a client that shows ``uris`` is of ``mesh``."""
    prefix = f"spiffe://{mesh}/"
    if not any(uri.startswith(prefix) for uri in uris):
        raise TlsError(f"client is {', '.join(uris) or 'nobody'}, not of mesh '{mesh}'")


def mesh_context(identity: Identity, trust: TrustBundle, *, server_side: bool) -> ssl.SSLContext:
    """A context that shows ``identity`` and demands a peer whose chain ends in ``trust``.

    Names are checked by the caller (SPIFFE URIs are no host names). No session tickets: every connection proves itself,
    so a certificate that is no longer trusted cannot come back by resumption.

    Raises:
        ValueError: the PEM does not load.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server_side else ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_TICKET
    # Some builds of Python take an end without close_notify for a clean one.
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
    # As Envoy: an intermediate in the bundle is trusted as it stands.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if server_side:
        context.num_tickets = 0
    context.set_alpn_protocols([KUMA_ALPN])
    try:
        context.load_verify_locations(cadata=trust.pem.decode("ascii"))
        with pem_path(identity.chain_pem + identity.key_pem) as path:
            context.load_cert_chain(path)
    except ssl.SSLError as error:
        raise ValueError(f"mesh '{identity.mesh}': certificate or trust does not load: {error}") from error
    return context


def origination_context(origination: Origination) -> ssl.SSLContext:
    """A context for TLS towards an external service.

    Raises:
        ValueError: the PEM does not load.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = origination.verify_hostname
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if origination.ca_pem:
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    else:
        context.load_default_certs()
    try:
        load_material(context, origination.ca_pem, origination.certificate_pem, origination.key_pem)
    except ValueError as error:
        raise ValueError(f"external service '{origination.server_name}': {error}") from error
    return context


class Contexts:
    """Contexts by what they were made of, the least recently used ones dropped; equal certificates share one."""

    __slots__ = ("_cache",)

    def __init__(self) -> None:
        self._cache: OrderedDict[Hashable, ssl.SSLContext] = OrderedDict()

    def mesh(self, identity: Identity, trust: TrustBundle, *, server_side: bool) -> ssl.SSLContext:
        """See ``mesh_context``."""
        return self._get((identity, trust, server_side), lambda: mesh_context(identity, trust, server_side=server_side))

    def origination(self, origination: Origination) -> ssl.SSLContext:
        """See ``origination_context``."""
        return self._get(origination, lambda: origination_context(origination))

    def _get(self, key: Hashable, build: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
        context = self._cache.get(key)
        if context is None:
            context = self._cache[key] = build()
            if len(self._cache) > CACHED_CONTEXTS:
                self._cache.popitem(last=False)
        self._cache.move_to_end(key)
        return context
