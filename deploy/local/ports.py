"""Finds free loopback ports, and checks whether a port is in use."""

import random
import socket

LOOPBACK = "127.0.0.1"

# Below the ephemeral port ranges of Linux (32768) and macOS (49152), so that no outgoing connection
# takes an assigned port before the next start; above the ports that people usually assign by hand;
# below Serve's replica ports (30000 and up).
_FIRST_PORT = 20_000
_LAST_PORT = 29_999
_ATTEMPTS_MAX = 200


def is_free(port: int, host: str = LOOPBACK) -> bool:
    """Whether a server could listen on `host`:`port` now.

    Also false while another process is bound to the port on all interfaces.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: a connection in TIME_WAIT doesn't make a port busy.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def answers(port: int, host: str = LOOPBACK, timeout_s: float = 0.5) -> bool:
    """Whether something accepts connections on `host`:`port`."""
    try:
        with socket.create_connection((host, port), timeout=timeout_s):
            return True
    except OSError:
        return False


def free_port(taken: frozenset[int] = frozenset()) -> int:
    """A free loopback port outside `taken`. Another process may still take it first."""
    for _ in range(_ATTEMPTS_MAX):
        port = random.randint(_FIRST_PORT, _LAST_PORT)  # noqa: S311  # not a secret
        if port not in taken and is_free(port):
            return port
    raise OSError(f"no free port between {_FIRST_PORT} and {_LAST_PORT}")
