"""HAProxy, in front of the nodes and on them, leaves a machine whose packets are dropped.

Without Ray: three machines with a small server each, and clients that repeat what fails.
"""

import http.client
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from deploy.local.haproxy_configuration import ClientTimeouts, prepared
from deploy.local.haproxy_health import write_pages
from deploy.local.processes import wait_until
from tests.cluster.balancer import HAProxy, start_balancer
from tests.cluster.network import Machine, Network
from tests.cluster.probe import OK, status_of
from tests.support.front_door import FrontDoor

_LIMIT_S: Final = 3.0
_CLIENTS: Final = 8
_PORT: Final = 8089
_SERVER: Final = """
import asyncio

async def answer(reader, writer):
    try:
        while await reader.readuntil(b"\\r\\n\\r\\n"):
            await asyncio.sleep(0.02)
            writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok")
    finally:
        writer.close()

async def main():
    server = await asyncio.start_server(answer, "", 8089)
    await server.serve_forever()

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def machines(network: Network, folder: Path) -> Iterator[list[Machine]]:
    """Three machines with a server on port 8089 each."""
    made = [network.add_machine(f"server{number}", folder / f"s{number}") for number in range(3)]
    servers = [
        subprocess.Popen(
            one.inside([sys.executable, "-c", _SERVER]),
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        for one in made
    ]
    for one in made:
        assert wait_until(partial(_answers, f"http://{one.address}:{_PORT}/"), timeout_s=20)
    yield made
    for server in servers:
        os.killpg(server.pid, signal.SIGKILL)  # what nsenter started, too
        server.wait()


@pytest.fixture(params=["balancer", "node"])
def front(
    request: pytest.FixtureRequest, network: Network, folder: Path, machines: list[Machine]
) -> Iterator[int]:
    """The port of a HAProxy in front of the servers: the documented balancer's, or a node's."""
    addresses = [one.address for one in machines]
    place = folder / request.param
    place.mkdir()
    if request.param == "balancer":
        haproxy, port = start_balancer(place, "127.0.0.1", addresses), _PORT
    else:
        door = FrontDoor(place)
        haproxy, port = HAProxy(configuration_of_a_node(door, addresses)), door.port
    assert wait_until(partial(_answers, f"http://127.0.0.1:{port}/healthz"), timeout_s=20)
    yield port
    haproxy.stop()


def _answers(url: str) -> bool:
    return status_of(url) == OK


def configuration_of_a_node(door: FrontDoor, addresses: list[str]) -> Path:
    """What Serve writes for replicas on these machines, edited as on every node."""
    door.write(replica=_PORT)
    write_pages(door.folder)
    written = door.configuration.read_text()
    (line,) = re.findall(r"^    server one .*\n", written, re.MULTILINE)
    lines = [
        line.replace("server one 127.0.0.1:", f"server s{number} {address}:")
        for number, address in enumerate(addresses)
    ]
    timeouts = ClientTimeouts(header_s=10, idle_s=60)
    text = prepared(written.replace(line, "".join(lines)), timeouts, door.folder).text
    door.configuration.write_text(text)
    return door.configuration


class Clients:
    """Each sends one request after the other, and repeats one that fails."""

    def __init__(self, port: int) -> None:
        self.longest_s = 0.0
        self._port = port
        self._ends = threading.Event()
        self._done = 0
        self._threads = [threading.Thread(target=self._run) for _ in range(_CLIENTS)]
        for thread in self._threads:
            thread.start()

    def go_on(self, requests: int) -> None:
        goal = self._done + requests
        assert wait_until(lambda: self._done >= goal, timeout_s=60)

    def end(self) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        while not self._ends.is_set():
            began = time.monotonic()
            while not self._succeeds(connection):
                time.sleep(0.05)
            self.longest_s = max(self.longest_s, time.monotonic() - began)
            self._done += 1
        connection.close()

    @staticmethod
    def _succeeds(connection: http.client.HTTPConnection) -> bool:
        with suppress(http.client.HTTPException, OSError):
            connection.request("GET", "/")
            answer = connection.getresponse()
            answer.read()
            return answer.status == OK
        connection.close()
        return False


@contextmanager
def clients(port: int) -> Iterator[Clients]:
    made = Clients(port)
    try:
        made.go_on(200)
        yield made
    finally:
        made.end()


def test_a_machine_that_vanishes_is_left_within_seconds(
    front: int, network: Network, machines: list[Machine], log: list[str]
) -> None:
    with clients(front) as load:
        network.cut(machines[0])
        load.go_on(2_000)
        network.heal(machines[0])
    log.append(f"longest wait {load.longest_s:.1f} s")

    assert load.longest_s <= _LIMIT_S
