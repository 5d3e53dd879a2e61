"""A client on another machine, simulated by a network namespace.

Run as a module inside of it, this probes ports from there:

    python -m tests.support.remote_client HOST PATH PORT…
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_CHECKOUT: Final = Path(__file__).parents[2]
_TIMEOUT_S: Final = 5.0

HOST: Final = "198.18.77.1"
"""This machine's address as seen by the remote client, from the benchmark range (RFC 2544)."""

_REMOTE_CLIENT: Final = "198.18.77.2"
_GRPC_METHOD: Final = "/ray.serve.ASGIService/HandleRequest"


def unavailable_reason() -> str | None:
    """Why no remote client can be simulated on this machine; None if one can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "network namespaces need root on Linux"
    if shutil.which("ip") is None:
        return "network namespaces need iproute2 (Debian: apt install iproute2)"
    name = f"wallet-try-{os.getpid()}"
    if _ip("netns", "add", name, check=False).returncode:
        return "no permission to create a network namespace"
    _ip("netns", "del", name)
    return None


@contextmanager
def remote_client() -> Iterator[str]:
    """A network namespace with one veth pair to this machine; yields its name."""
    name = f"wallet-{os.getpid()}"
    ours, theirs = f"wo{os.getpid()}", f"wt{os.getpid()}"
    _ip("netns", "add", name)
    try:
        _ip("link", "add", ours, "type", "veth", "peer", "name", theirs, "netns", name)
        _ip("addr", "add", f"{HOST}/30", "dev", ours)
        _ip("link", "set", ours, "up")
        _ip("-n", name, "addr", "add", f"{_REMOTE_CLIENT}/30", "dev", theirs)
        _ip("-n", name, "link", "set", theirs, "up")
        yield name
    finally:
        _ip("link", "del", ours, check=False)
        _ip("netns", "del", name, check=False)


def try_ports(namespace: str, path: str, ports: list[int]) -> dict[int, str]:
    """The response of each port to the remote client: ``closed``, an HTTP status or a gRPC code."""
    command = [
        "ip",
        "netns",
        "exec",
        namespace,
        sys.executable,
        "-m",
        "tests.support.remote_client",
    ]
    done = subprocess.run(
        [*command, HOST, path, *map(str, ports)],
        cwd=_CHECKOUT,
        capture_output=True,
        text=True,
        timeout=len(ports) * 3 * _TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {int(port): found for port, found in json.loads(done.stdout).items()}


def _ip(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["ip", *arguments], check=check, capture_output=True)


def _try(host: str, path: str, port: int) -> str:
    try:
        with socket.create_connection((host, port), timeout=_TIMEOUT_S) as connection:
            answer = _http(connection, host, path)
    except OSError:
        return "closed"
    return answer or _grpc(host, port)


def _http(connection: socket.socket, host: str, path: str) -> str:
    """The status of a request without an API key; empty if the port does not speak HTTP/1.1."""
    request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    with contextlib.suppress(OSError):
        connection.sendall(request.encode())
        first = connection.makefile("rb").readline(1_000).decode("latin-1").split()
        if len(first) > 1 and first[0].startswith("HTTP/1"):
            return first[1]
    return ""


def _grpc(host: str, port: int) -> str:
    """The gRPC code of a call without a token, or why there was none."""
    import grpc

    with grpc.insecure_channel(f"{host}:{port}") as channel:
        call = channel.unary_unary(_GRPC_METHOD)
        try:
            call(b"", timeout=_TIMEOUT_S)
        except grpc.RpcError as refused:
            return str(refused.code().name)
    return "OK"


if __name__ == "__main__":
    _, our_host, our_path, *our_ports = sys.argv
    print(json.dumps({port: _try(our_host, our_path, int(port)) for port in our_ports}))
