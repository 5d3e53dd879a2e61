"""One cluster for all tests of a run, which change it one after another."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import pytest

from deploy.local.processes import wait_until
from tests.cluster.acceptance import Acceptance, FaultResult
from tests.cluster.balancer import start_balancer, start_forwarder
from tests.cluster.network import INSIDE, Network, unavailable_reason
from tests.cluster.nodes import HTTP_PORT, REDIS_PASSWORD, Cluster
from tests.cluster.probe import OK, status_of
from tests.cluster.redis import redis_server
from tests.cluster.results import write_results
from tests.support import databases

_HERE: Final = Path(__file__).parent
_RUN: Final = "WALLET_CLUSTER_TEST"
"""``1``: run the tests. ``write``: also write their results into the specification."""
_WORKERS: Final = 2
_TIMEOUT_S: Final = 300

Report = Callable[[FaultResult], None]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skipped by default (minutes, three nodes) and where there are no namespaces."""
    reason = "several Ray nodes: run `make cluster-test`"
    if os.environ.get(_RUN) and not os.environ.get(INSIDE):
        reason = unavailable_reason() or "in a network of its own: run `make cluster-test`"
    for item in items:
        if not item.path.is_relative_to(_HERE):
            continue
        if "network" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.timeout(_TIMEOUT_S))
            if not os.environ.get(INSIDE):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def memory() -> Iterator[Path]:
    """A file system in memory: it ends with this run's namespaces, however that ends."""
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/mnt"], check=True, timeout=10)
    folder = Path("/mnt/cluster")
    folder.mkdir()
    yield folder
    if kept := os.environ.get("WALLET_CLUSTER_KEEP"):
        subprocess.run(["cp", "-r", str(folder), kept], check=False, timeout=60)


@pytest.fixture(scope="session")
def folder(memory: Path) -> Path:
    folder = memory / "machines"
    folder.mkdir()
    return folder


@pytest.fixture(scope="session")
def network() -> Iterator[Network]:
    network = Network()
    yield network
    network.close()


@pytest.fixture(scope="session")
def redis_url(network: Network, folder: Path) -> Iterator[str]:
    """HOST:PORT of a Redis for the head's state; empty where there is no redis-server."""
    with redis_server(network.address, folder, REDIS_PASSWORD) as url:
        yield url


@pytest.fixture(scope="session")
def cluster(
    network: Network, folder: Path, redis_url: str, _template: str, nats_server: str
) -> Iterator[Cluster]:
    """A head and two workers, with deploy/serve.yaml deployed on them."""
    with databases.copied_database(_template) as database_url:
        ports = [urlsplit(url).port or 0 for url in (database_url, nats_server)]
        forwarder = start_forwarder(folder, network.address, ports)
        cluster = Cluster(network, folder, database_url, nats_server, redis_url)
        try:
            cluster.start(_WORKERS)
            cluster.deploy()
            yield cluster
        finally:
            cluster.stop()
            forwarder.stop()


@pytest.fixture(scope="session")
def http_url(cluster: Cluster, folder: Path) -> Iterator[str]:
    """The address of the service for clients: the balancer of deploy/balancer/haproxy.cfg."""
    address = cluster.network.address
    balancer = start_balancer(folder, address, [one.machine.address for one in cluster.nodes])
    url = f"http://{address}:{HTTP_PORT}"
    assert wait_until(lambda: status_of(f"{url}/healthz") == OK, timeout_s=60)
    yield url
    balancer.stop()


@pytest.fixture(scope="session")
def acceptance(request: pytest.FixtureRequest) -> Iterator[Acceptance]:
    """What this run saw; written at its end, if every test has run and passed."""
    began, acceptance = time.monotonic(), Acceptance()
    yield acceptance
    is_complete = acceptance.audit and not request.session.testsfailed
    if os.environ.get(_RUN) == "write" and is_complete:
        write_results(acceptance, time.monotonic() - began)


@pytest.fixture(scope="session", autouse=True)
def _begin(acceptance: Acceptance) -> None:
    """The time of a run begins with its first test."""


@pytest.fixture
def report(acceptance: Acceptance, capsys: pytest.CaptureFixture[str]) -> Report:
    """Takes a result and prints it."""

    def take(result: FaultResult) -> None:
        acceptance.results.append(result)
        with capsys.disabled():
            print(f"\n  {result}")

    return take
