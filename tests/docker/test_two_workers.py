"""The service in containers with two workers, through the faults of a cluster.

The tests run on one set of containers in this order.
"""

import time

import pytest

from deploy.local.processes import wait_until
from deploy.local.readiness_client import fetch_readiness
from tests.docker.stack import Containers
from tests.support.steady_load import SteadyLoad, assert_nothing_lost, steady_load

pytestmark = pytest.mark.timeout(900)

SHARD = "ray::ShardActor"
INGRESS = "ray::ServeReplica:api:Ingress"
NODES = 3

AGAIN_S = 30.0
"""A lost container is noticed after about 5 s; its actors start elsewhere soon after."""
CUT_OFF_S = 4.0
"""The longest time of a request, on the worker that is cut off too: a second to notice, a retry."""
BACK_S = 60.0
"""Until a worker that was cut off has joined again."""
HEAD_BACK_S = 90.0
"""Without Redis the loss of the head starts the cluster anew."""


def counts(containers: Containers, title: str) -> list[int]:
    """The number of these processes on each worker."""
    return [
        containers.processes(container, title) for container in containers.containers("ray-worker")
    ]


def with_work(containers: Containers) -> str:
    """A worker that runs a shard or a replica."""
    for container in containers.containers("ray-worker"):
        if containers.processes(container, SHARD) + containers.processes(container, INGRESS):
            return container
    raise AssertionError("no worker has a shard or a replica")


def reported(load: SteadyLoad, what: str) -> str:
    failures = dict(load.failures) or "none"
    return f"{what}: longest wait {load.longest_wait_s:.1f} s, failed attempts: {failures}"


def all_nodes_are_alive(containers: Containers) -> bool:
    return wait_until(lambda: containers.alive_nodes() == NODES, timeout_s=BACK_S)


def test_the_work_is_on_head_and_workers(two_workers: Containers) -> None:
    assert len(two_workers.containers("ray-worker")) == NODES - 1
    assert two_workers.alive_nodes() == NODES
    assert sum(counts(two_workers, SHARD)) + sum(counts(two_workers, INGRESS)) > 0


def test_a_worker_that_is_cut_off_costs_a_pause_and_no_write(
    two_workers: Containers, log: list[str]
) -> None:
    worker = with_work(two_workers)
    with steady_load(two_workers.url) as load:
        two_workers.cut_off(worker)
        cut_at = time.monotonic()
        load.wait_for_each(2, timeout_s=60)
        again_s = time.monotonic() - cut_at
        time.sleep(max(0.0, cut_at + 25 - time.monotonic()))  # long enough to count as dead
    log.append(reported(load, f"worker cut off, every wallet written again after {again_s:.1f} s"))

    assert_nothing_lost(load)
    assert load.longest_wait_s < CUT_OFF_S


def test_it_comes_back_by_itself(two_workers: Containers, log: list[str]) -> None:
    connected = {
        one for one in two_workers.containers("ray-worker") if is_connected(two_workers, one)
    }
    began = time.monotonic()
    for worker in set(two_workers.containers("ray-worker")) - connected:
        two_workers.connect_again(worker)

    assert all_nodes_are_alive(two_workers)
    log.append(f"worker back {time.monotonic() - began:.0f} s after it was connected again")


def is_connected(containers: Containers, container: str) -> bool:
    return bool(containers.inspect(container)["NetworkSettings"]["Networks"])


def test_a_killed_worker_costs_a_pause_and_no_write(
    two_workers: Containers, log: list[str]
) -> None:
    # Onto the worker that came back, too.
    more = ["--env", "WALLET_SHARD_COUNT=3", "--env", "WALLET_INGRESS_REPLICAS=3"]
    two_workers.compose("exec", "--no-TTY", *more, "ray-head", "wallet", "deploy", "api")
    worker = with_work(two_workers)
    with steady_load(two_workers.url) as load:
        two_workers.kill(worker)
        killed_at = time.monotonic()
        load.wait_for_each(2, timeout_s=60)
        again_s = time.monotonic() - killed_at
    log.append(reported(load, f"worker killed, every wallet written again after {again_s:.1f} s"))

    assert_nothing_lost(load)
    assert load.longest_wait_s < AGAIN_S
    two_workers.up("--no-recreate")
    assert all_nodes_are_alive(two_workers)


def test_a_worker_that_is_stopped_fails_no_request(two_workers: Containers, log: list[str]) -> None:
    with steady_load(two_workers.url) as load:
        began = time.monotonic()
        two_workers.up("--no-recreate", "--scale", "ray-worker=1")
        took_s = time.monotonic() - began
        load.wait_for_each(2, timeout_s=60)
    log.append(reported(load, f"worker stopped in {took_s:.0f} s"))

    assert_nothing_lost(load)
    assert load.failures == {}


def test_a_lost_head_starts_the_cluster_anew_and_loses_no_write(
    two_workers: Containers, log: list[str]
) -> None:
    with steady_load(two_workers.url) as load:
        lost_at = time.monotonic()
        (head,) = two_workers.containers("ray-head")
        two_workers.kill(head)
        written = load.acknowledged
    two_workers.up("--no-recreate")
    assert wait_until(lambda: fetch_readiness(two_workers.url).is_ready, timeout_s=HEAD_BACK_S)
    log.append(f"head lost: ready again {time.monotonic() - lost_at:.0f} s after it was killed")

    # Clients gave up meanwhile; what was acknowledged is there, and once.
    assert load.acknowledged >= written
    assert_no_acknowledged_write_is_lost(load)


def assert_no_acknowledged_write_is_lost(load: SteadyLoad) -> None:
    """A write that was given up may have been applied, once. Nothing else may differ."""
    wrong = load.lost_or_duplicated()
    assert len(wrong) <= load.given_up, wrong
