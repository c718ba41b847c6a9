"""DNS cookies (RFC 7873): a client that shows ours again has its address, and is spared the rate limit.

Laid out as RFC 9018 has it, ``version, reserved, time, hash``, with a hash of our own and so a version from its range
for private use: SipHash-2-4, which version 1 means, is in no library that we have, and in Python costs more than all
the rest of an answer. It follows that our cookies are not those of other servers behind the same address.
"""

import hashlib
import hmac
import struct
from typing import Final

from meshd.dns import wire

SECRET_BYTES: Final = 32
PRIVATE_VERSION: Final = b"\xf0\0\0\0"
"""Version 240 and the reserved bytes."""
SERVER_COOKIE_BYTES: Final = 16
LIFETIME_S: Final = 3600
"""RFC 9018 4.3: accept for an hour ..."""
FUTURE_S: Final = 300
"""... and this far ahead, where another process made it."""
PERIOD_S: Final = 60
"""All cookies of so long have one time: a client's is made once, not at each of its queries."""
MAX_KEPT: Final = 4096
"""Records kept in a period; when there are more, we begin anew."""
OPTION_HEAD: Final = struct.pack("!HH", wire.COOKIE, wire.CLIENT_COOKIE_BYTES + SERVER_COOKIE_BYTES)


class Cookies:
    """Makes and knows the cookies of one secret. ``tick`` says what time it is; addresses are packed."""

    def __init__(self, secret: bytes, now_s: float = 0.0) -> None:
        self._secret = secret
        self.records: dict[bytes, bytes] = {}
        """What ``keep`` was told, until the time changes or there is too much."""
        self._time = b"\0\0\0\0"
        self._until_s = 0.0
        self.tick(now_s)

    def tick(self, now_s: float) -> None:
        """Set the time, in seconds since 1970."""
        if not 0 <= self._until_s - now_s < PERIOD_S:
            period = int(now_s) // PERIOD_S * PERIOD_S
            self._time = struct.pack("!I", period & 0xFFFFFFFF)
            self._until_s = period + PERIOD_S
            self.records = {}

    def option(self, cookie: bytes, address: bytes) -> bytes:
        """The option for the answer to a client that sent this cookie from this address."""
        client = cookie[: wire.CLIENT_COOKIE_BYTES]
        return OPTION_HEAD + client + self._server_cookie(client, self._time, address)

    def keep(self, key: bytes, record: bytes) -> None:
        """Keep a record with a cookie in it, which is good until the time changes."""
        if len(self.records) >= MAX_KEPT:
            self.records = {}
        self.records[key] = record

    def is_ours(self, cookie: bytes, address: bytes) -> bool:
        """Whether a cookie has a server's half that we made for this client and address lately."""
        client, server = cookie[: wire.CLIENT_COOKIE_BYTES], cookie[wire.CLIENT_COOKIE_BYTES :]
        if len(server) != SERVER_COOKIE_BYTES or server[:4] != PRIVATE_VERSION:
            return False
        age_s = self._until_s - PERIOD_S - int.from_bytes(server[4:8])
        return -FUTURE_S <= age_s <= LIFETIME_S and hmac.compare_digest(
            server, self._server_cookie(client, server[4:8], address)
        )

    def _server_cookie(self, client: bytes, time: bytes, address: bytes) -> bytes:
        head = PRIVATE_VERSION + time
        return head + hashlib.blake2s(client + head + address, digest_size=8, key=self._secret).digest()
