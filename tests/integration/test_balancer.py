"""The balancers: who gets requests, and what clients see without nodes."""

import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from deploy.local.ports import free_port
from deploy.local.processes import wait_until
from tests.support.balancer import (
    CONFIGURATION,
    HANG_UP,
    OF_MACHINES,
    Balancer,
    FakeNode,
    balancer,
)


def in_a_pod(folder: Path, own: int, *others: int) -> Path:
    """The file with these ports, and with addresses instead of a name in DNS."""
    text, changed = re.subn(
        r"server own \S+", f"server own 127.0.0.1:{own}", CONFIGURATION.read_text("utf-8")
    )
    template = re.search(r"    server-template other \S+ \S+ (.*) resolvers cluster .*", text)
    assert changed == 1
    assert template is not None
    lines = [f"    server other{port} 127.0.0.1:{port} {template[1]}" for port in others]
    file = folder / "balancer.cfg"
    file.write_text(text.replace(template[0], "\n".join(lines)), encoding="utf-8")
    return file


@pytest.fixture
def nodes() -> Iterator[tuple[FakeNode, FakeNode]]:
    with FakeNode("first") as first, FakeNode("second") as second:
        yield first, second


def names(found: Balancer, count: int = 20) -> set[str]:
    """Who responds to ``count`` requests, each on a connection of its own."""
    return {httpx.get(f"{found.url}/v1", timeout=5).text for _ in range(count)}


def test_a_node_that_drains_gets_no_new_request_and_fails_none(
    nodes: tuple[FakeNode, FakeNode], tmp_path: Path
) -> None:
    own, other = nodes
    with (
        balancer(in_a_pod(tmp_path, own.port, other.port)) as found,
        httpx.Client(base_url=found.url, timeout=5) as client,
    ):
        assert found.becomes(ready=True)
        own.health = 503

        def only_the_other() -> bool:
            return {client.get("/v1").raise_for_status().text for _ in range(10)} == {"second"}

        assert wait_until(only_the_other, timeout_s=10)
        assert found.is_ready()


def test_a_node_that_is_gone_fails_no_request(
    nodes: tuple[FakeNode, FakeNode], tmp_path: Path
) -> None:
    own, other = nodes
    with balancer(in_a_pod(tmp_path, own.port, other.port)) as found:
        assert found.becomes(ready=True)
        assert wait_until(lambda: names(found) == {"first"}, timeout_s=10)
        own.stop()

        assert names(found) == {"second"}


def in_front_of_machines(folder: Path, own: int, other: int) -> Path:
    """The example for machines, with these ports, and another port than 8089 for clients."""
    text = OF_MACHINES.read_text("utf-8").replace("bind :8089", 'bind "${WALLET_BALANCER_BIND}"')
    text = re.sub(r"    server node3 .*\n", "", text)
    for name, port in (("node1", own), ("node2", other)):
        text, changed = re.subn(rf"(server {name}) \S+", rf"\1 127.0.0.1:{port}", text)
        assert changed == 2, "the backends of requests and of streams"
    file = folder / "machines.cfg"
    file.write_text(text, encoding="utf-8")
    return file


def is_a_problem(answer: httpx.Response, status: int, applied: str) -> bool:
    """Whether ``answer`` is a problem document of the service's kind, not a page of HAProxy's."""
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["retry-after"] == "1"
    problem = answer.json()
    assert problem["status"] == status
    assert len(problem["request_id"]) == 36
    return bool((problem["code"], problem["applied"]) == ("unavailable", applied))


def becomes(found: Balancer, status: int) -> bool:
    """Wait until it answers with ``status``."""

    def is_so() -> bool:
        try:
            return httpx.get(f"{found.url}/v1", timeout=5).status_code == status
        except httpx.TransportError:
            return False

    return wait_until(is_so, timeout_s=10)


KINDS = pytest.mark.parametrize("made", [in_a_pod, in_front_of_machines], ids=["pod", "machines"])


@KINDS
def test_without_a_node_clients_get_a_problem_that_says_not_applied(
    tmp_path: Path, made: Callable[[Path, int, int], Path]
) -> None:
    with balancer(made(tmp_path, free_port(), free_port())) as found:
        assert becomes(found, 503)
        assert made is in_front_of_machines or not found.is_ready()
        assert is_a_problem(httpx.get(f"{found.url}/v1", timeout=5), 503, "no")


@KINDS
def test_a_node_that_hangs_up_may_have_applied_the_request(
    nodes: tuple[FakeNode, FakeNode], tmp_path: Path, made: Callable[[Path, int, int], Path]
) -> None:
    with balancer(made(tmp_path, nodes[0].port, nodes[1].port)) as found:
        assert becomes(found, 200)
        assert is_a_problem(httpx.get(f"{found.url}{HANG_UP}", timeout=5), 502, "unknown")


def test_a_pod_prefers_its_own_node(nodes: tuple[FakeNode, FakeNode], tmp_path: Path) -> None:
    own, other = nodes
    with balancer(in_a_pod(tmp_path, own.port, other.port)) as found:
        assert found.becomes(ready=True)
        assert wait_until(lambda: names(found) == {"first"}, timeout_s=10)


def test_a_pod_without_a_replica_is_ready_and_forwards(tmp_path: Path) -> None:
    with (
        FakeNode("other") as other,
        balancer(in_a_pod(tmp_path, free_port(), other.port)) as found,
    ):
        assert found.becomes(ready=True)
        assert wait_until(lambda: names(found) == {"other"}, timeout_s=10)

        other.health = 503
        assert found.becomes(ready=False)


def test_the_file_is_valid_as_it_is() -> None:
    with balancer(CONFIGURATION, WALLET_BALANCER_NODES="no-such-name:8089") as found:
        assert found.answers()
        assert not found.is_ready()
        metrics = httpx.get(f"{found.probe_url}/metrics", timeout=5)
        assert "haproxy_backend_active_servers" in metrics.text


def test_a_balancer_that_stops_finishes_the_requests_of_its_clients(
    nodes: tuple[FakeNode, FakeNode], tmp_path: Path
) -> None:
    first, second = nodes
    with (
        balancer(in_a_pod(tmp_path, first.port, second.port)) as found,
        httpx.Client(base_url=found.url, timeout=5) as client,
    ):
        assert found.becomes(ready=True)
        client.get("/v1").raise_for_status()
        found.process.send_signal(signal.SIGUSR1)

        last = client.get("/v1").raise_for_status()

        assert last.headers["connection"] == "close"
        assert found.process.wait(timeout=10) == 0
