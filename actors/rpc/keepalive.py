"""Noticing that the other end of a connection is gone, or stands still.

Two kinds of silence. A node that vanished acknowledges nothing: the kernel notices, on both ends
(`enable_keepalive`). A process that is stopped, or hangs, still has a kernel that acknowledges.
Only an answer of its own shows that its event loop runs (`Heartbeat`).
"""

import socket
from typing import Final

import msgspec

_KEEPALIVE: Final = {"TCP_KEEPIDLE": 2, "TCP_KEEPINTVL": 1, "TCP_KEEPCNT": 3}
_TCP_USER_TIMEOUT_MS: Final = 5_000
"""A node that vanished says nothing: after about five seconds its connections count as broken."""


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True):
    """When a caller gives a shard up; see the settings of these names for their reasons."""

    shard_ping_s: float
    shard_pings_missed_max: int


def enable_keepalive(connection: socket.socket) -> None:
    """Have the kernel break ``connection`` once the other end's kernel is silent."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        if hasattr(socket, name):  # Not everywhere: macOS lacks some.
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _TCP_USER_TIMEOUT_MS)
