"""A head that is lost, with the cluster's state in Redis: the service goes on, another takes over.

As on Kubernetes (deploy/kuberay/rayservice.yaml), the head has no processors to offer: shards,
replicas and projections are on the workers.
"""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from serve_app.local.ports import answers, free_port
from serve_app.local.processes import family, kill, spawn, wait_until
from serve_app.local.readiness import ask
from tests.cluster.load import steady_load
from tests.cluster.nodes import Cluster
from tests.support import databases

pytestmark = pytest.mark.timeout(600)

SHARD = "ray::ShardActor"
WRITES_WITHOUT_A_HEAD = 10
"""By each client, while there is no head."""

PAUSE_S = 20.0


@contextmanager
def redis_server(program: str, folder: Path) -> Iterator[str]:
    """Address of a Redis that keeps nothing on the disk."""
    port = free_port()
    process = spawn(
        "redis",
        [program, "--port", str(port), "--bind", "127.0.0.1", "--save", ""],
        log_file=folder / "redis.log",
        environment={},
        directory=folder,
    )
    try:
        assert wait_until(lambda: answers(port, "127.0.0.1"), timeout_s=10)
        yield f"127.0.0.1:{port}"
    finally:
        kill(family(process))


@pytest.fixture
def cluster(_template: str, nats_server: str, tmp_path: Path) -> Iterator[Cluster]:
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed")
    with (
        redis_server(program, tmp_path) as redis_address,
        databases.copied_database(_template) as database_url,
    ):
        cluster = Cluster(database_url, nats_server, redis_address=redis_address)
        try:
            cluster.start_head(cpus=0)
            cluster.start_workers(2)
            cluster.serve_deploy(revision="first")
            yield cluster
        finally:
            cluster.stop()


def test_a_lost_head_costs_a_pause_and_no_write_and_its_successor_takes_over(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    workers = cluster.nodes[1:]
    shards = {pid for node in workers for pid in node.pids(SHARD)}

    assert wait_until(lambda: ask(workers[0].http_url).is_ready, timeout_s=30)
    with steady_load(workers[0].http_url) as load:
        lost_at = time.monotonic()
        cluster.lose(cluster.head)
        load.wait_for_each(WRITES_WITHOUT_A_HEAD, timeout_s=60)
        cluster.start_head(cpus=0)
        back_at = time.monotonic()
        load.wait_for_each(WRITES_WITHOUT_A_HEAD, timeout_s=60)
        ready_at = time.monotonic()
        kept = {pid for node in workers for pid in node.pids(SHARD)}
        cluster.serve_deploy(revision="second")
        deployed_s = time.monotonic() - back_at
        load.wait_for_each(2, timeout_s=60)
    with capsys.disabled():
        print(
            f"\n  head lost and back: {load.acknowledged} writes, longest "
            f"{load.longest_wait_s:.2f} s, failed attempts: {dict(load.failures) or 'none'}; "
            f"the new head had deployed again after {deployed_s:.0f} s; head back after "
            f"{back_at - lost_at:.1f} s; failed after "
            f"{min(load.failed_at, default=lost_at) - lost_at:.1f} to "
            f"{max(load.failed_at, default=lost_at) - lost_at:.1f} s; "
            f"deployed from {ready_at - lost_at:.1f} s",
            end="",
        )

    assert load.given_up == 0
    assert load.lost_or_doubled() == {}
    assert load.longest_wait_s < PAUSE_S
    assert kept == shards
    assert shards.isdisjoint(pid for node in workers for pid in node.pids(SHARD))
