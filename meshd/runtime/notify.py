"""Telling systemd how we are (sd_notify): ``READY=1`` when the last tier serves, ``STOPPING=1`` when draining begins.

Source: sd_notify(3): one datagram to the unix socket in $NOTIFY_SOCKET; a leading ``@`` means the abstract namespace.
"""

import logging
import socket
from collections.abc import Mapping

log = logging.getLogger(__name__)

READY = "READY=1"
STOPPING = "STOPPING=1"


def notify(env: Mapping[str, str], state: str) -> bool:
    """Send ``state`` (``READY``, ``STOPPING``, or ``STATUS=...``); False where nobody listens.

    Never blocks and never fails: a supervisor that is gone is no reason to stop.
    """
    path = env.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return False
    address = "\0" + path[1:] if path.startswith("@") else path
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.setblocking(False)
            sender.sendto(state.encode(), address)
    except OSError as error:
        log.warning("cannot tell systemd %s at %s: %s", state, path, error.strerror)
        return False
    return True
