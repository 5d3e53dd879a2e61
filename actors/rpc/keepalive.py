"""Detects that the other end of a connection is gone or hangs.

A node that is gone acknowledges no packets: the kernel detects it, on both ends
(`enable_keepalive`). A process that is stopped or hangs still has a kernel that acknowledges. Only
its own response shows that its event loop runs (`Heartbeat`).
"""

import socket
from typing import Final

import msgspec

_KEEPALIVE: Final = {"TCP_KEEPIDLE": 2, "TCP_KEEPINTVL": 1, "TCP_KEEPCNT": 3}
_TCP_USER_TIMEOUT_MS: Final = 5_000
"""Connections to a node that is gone are closed after about five seconds."""


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True):
    """When a client drops a shard's connection; see the settings of these names for the reasons."""

    shard_ping_s: float
    shard_pings_missed_max: int


def enable_keepalive(connection: socket.socket) -> None:
    """Let the kernel close ``connection`` once the other end's kernel does not respond."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        if hasattr(socket, name):  # macOS lacks some of these.
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _TCP_USER_TIMEOUT_MS)
