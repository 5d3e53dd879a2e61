"""Three machines: nodes drain, are cut off, come back, and the head is lost, all under load.

Each test leaves a whole cluster. What is measured is the row of a table in
specification/failure-results.md.
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

import pytest

from deploy.local.processes import wait_until
from tests.cluster.acceptance import Acceptance, result_of
from tests.cluster.conftest import Report
from tests.cluster.nodes import Cluster, Node
from tests.cluster.parts import (
    BACK_S,
    INGRESS,
    SHARD,
    SHARDS,
    load_on,
    one_with,
    wait_until_whole,
)
from tests.cluster.probe import (
    replica_port,
    watched,
)

NODE_LOST_S: Final = 4.0
HEAD_LOST_S: Final = 5.0
HEAD_BACK_S: Final = 120.0
"""Ray's head, Serve's controller and what ran on the machine start one after the other."""
READINESS_S: Final = 2.0
DRAIN_NOTICED_S: Final = 2.0


@pytest.fixture
def whole(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster, with a part of the service on each machine before and after the test."""
    wait_until_whole(cluster)
    yield cluster
    wait_until_whole(cluster)


@pytest.fixture
def spread(whole: Cluster) -> Cluster:
    """A whole cluster with a shard on a worker: shards don't move back to a node that is back."""
    if not any(worker.titles(SHARD) for worker in whole.workers):
        whole.deploy()
        wait_until_whole(whole)
    return whole


# -- the tests, in this order ----------------------------------------------------------------------


def test_a_node_that_is_stopped_drains_first_and_fails_nothing(
    spread: Cluster, http_url: str, acceptance: Acceptance, report: Report
) -> None:
    node = one_with(spread, SHARD, INGRESS)
    with load_on(http_url, acceptance) as load, watched(node) as asked:
        stopped_at = time.monotonic()
        node.supervisor.stop()
        took_s = time.monotonic() - stopped_at
        load.wait_for_each(2, timeout_s=60)
    refused_s = asked.first_s(503, stopped_at)
    measured = f"`/healthz` 503 after {refused_s or -1:.1f} s, stopped after {took_s:.0f} s"
    what = "a worker stopped with its unit: it drains first"
    report(result_of(load, "node-drained", what, "no failed attempt", measured))
    node.supervisor.enable()

    assert load.failures == {}
    assert refused_s is not None
    assert refused_s <= DRAIN_NOTICED_S


def test_a_node_that_is_cut_off_silently_costs_a_short_pause(
    spread: Cluster, http_url: str, acceptance: Acceptance, report: Report
) -> None:
    node = one_with(spread, SHARD, INGRESS)
    with load_on(http_url, acceptance) as load:
        spread.network.cut(node.machine)
        load.wait_for_each(3, timeout_s=60)
        longest_s = load.longest_wait_s
        assert wait_until(lambda: others_have_all(spread, node), timeout_s=60)
        before = node.pids("ray::")
        spread.network.heal(node.machine)
        assert wait_until(lambda: is_replaced(node, before), timeout_s=BACK_S), "it lingers"
    what = "every packet from and to a worker dropped"
    target = f"every write done within {NODE_LOST_S:g} s, no error that a retry does not hide"
    measured = f"longest while it was cut off: {longest_s:.1f} s"
    report(result_of(load, "node-cut-off", what, target, measured))

    assert longest_s <= NODE_LOST_S


def others_have_all(cluster: Cluster, lost: Node) -> bool:
    others = [one for one in cluster.nodes if one is not lost]
    return sum(len(one.titles(SHARD)) for one in others) == SHARDS


def test_a_worker_that_its_head_gave_up_comes_back_by_itself(
    whole: Cluster, http_url: str, acceptance: Acceptance, report: Report
) -> None:
    node = one_with(whole, INGRESS)
    before, starts = node.pids("ray::"), node.supervisor.starts
    with load_on(http_url, acceptance) as load, watched(node, inside=True) as asked:
        whole.network.cut(node.machine, whole.head.machine)
        time.sleep(25)
        healed_at = time.monotonic()
        whole.network.heal(node.machine)
        assert wait_until(lambda: is_replaced(node, before), timeout_s=BACK_S), "it lingers"
        ended_s = time.monotonic() - healed_at
        wait_until_whole(whole)
        back_s = time.monotonic() - healed_at
    measured = (
        f"its old processes ended after {ended_s:.1f} s, it served again after {back_s:.0f} s"
    )
    what = "a worker and the head can't reach each other for 25 s; balancer and servers can"
    target = f"back within {BACK_S:g} s by itself"
    report(result_of(load, "node-given-up", what, target, measured))

    assert node.supervisor.starts > starts
    assert asked.first_bad_s(healed_at) is not None
    assert back_s <= BACK_S


def is_replaced(node: Node, before: list[int]) -> bool:
    return set(before).isdisjoint(node.pids("ray::"))


def test_an_ingress_without_any_shard_says_so_at_once(
    whole: Cluster, http_url: str, acceptance: Acceptance, report: Report
) -> None:
    node = one_with(whole, INGRESS)
    others = [one.machine for one in whole.nodes if one is not node]
    port = replica_port(node)
    with (
        load_on(http_url, acceptance) as load,
        watched(node) as asked,
        watched(node, "/readyz?only=shards", port=port) as ready,
        hanging(node.pids(SHARD)),
    ):
        cut_at = time.monotonic()
        whole.network.cut(node.machine, *others)
        load.wait_for_each(3, timeout_s=60)
        longest_s = load.longest_wait_s
        whole.network.heal(node.machine)
    measured = (
        f"`/healthz` 503 after {asked.first_s(503, cut_at) or -1:.1f} s, "
        f"`/readyz` after {ready.first_s(503, cut_at) or -1:.1f} s, longest {longest_s:.1f} s"
    )
    what = "a worker is cut off from all others and its own shards hang; the balancer reaches it"
    target = f"`/healthz` and `/readyz` say so within {READINESS_S:g} s"
    report(result_of(load, "ingress-without-shards", what, target, measured))

    for found in (asked.first_s(503, cut_at), ready.first_s(503, cut_at)):
        assert found is not None
        assert found <= READINESS_S


@contextmanager
def hanging(pids: list[int]) -> Iterator[None]:
    """Processes that answer nothing during this context."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    yield
    for pid in pids:
        with suppress(ProcessLookupError):  # replaced meanwhile
            os.kill(pid, signal.SIGCONT)


def test_a_head_that_is_lost_costs_a_short_pause(
    spread: Cluster, http_url: str, acceptance: Acceptance, report: Report, redis_url: str
) -> None:
    if not redis_url:
        pytest.skip(
            "redis-server is missing (Debian: redis-server): the cluster ends with its head"
        )
    with load_on(http_url, acceptance) as load:
        spread.network.cut(spread.head.machine)
        spread.head.supervisor.lose_power()
        load.wait_for_each(3, timeout_s=60)
        time.sleep(5)
        longest_s = load.longest_wait_s
        spread.network.heal(spread.head.machine)
        spread.head.supervisor.enable()
        started_at = time.monotonic()
        wait_until_whole(spread, timeout_s=HEAD_BACK_S)
        whole_s = time.monotonic() - started_at
        load.wait_for_each(2, timeout_s=60)
    measured = (
        f"longest while it was gone: {longest_s:.1f} s, whole {whole_s:.0f} s after its start, "
        f"longest then: {load.longest_wait_s:.1f} s"
    )
    what = "the head's machine vanishes, and is started again 5 s after every wallet was written"
    target = f"every write done within {HEAD_LOST_S:g} s, no 500"
    report(result_of(load, "head-lost", what, target, measured))

    assert load.longest_wait_s <= HEAD_LOST_S
    assert not [one for one in load.failures if one.startswith("500")]
