"""Where the parts of the service run, and load on it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final

from deploy.local.processes import wait_until
from tests.cluster.acceptance import Acceptance
from tests.cluster.nodes import Cluster, Node
from tests.cluster.probe import wait_until_healthy
from tests.support.steady_load import SteadyLoad

SHARD: Final = "ray::ShardActor"
INGRESS: Final = "ray::ServeReplica:api:Ingress"
PROJECTION: Final = "ray::ProjectionActor"
PARTS: Final = (SHARD, INGRESS, PROJECTION)

SHARDS: Final = 4
INGRESS_REPLICAS: Final = 3
"""Of deploy/serve.yaml."""

BACK_S: Final = 60.0
"""A machine that was cut off or restarted serves again, without a hand."""


def counts(cluster: Cluster, title: str) -> list[int]:
    """How many of these processes each machine has, in the order of the machines."""
    return [len(node.titles(title)) for node in cluster.nodes]


def spread_of(cluster: Cluster, title: str) -> list[int]:
    """The same, the fewest first."""
    return sorted(counts(cluster, title))


def becomes(cluster: Cluster, title: str, expected: list[int], *, timeout_s: float = 60) -> bool:
    """Whether it is spread so, and still is a moment later."""

    def is_so() -> bool:
        return spread_of(cluster, title) == expected

    while wait_until(is_so, timeout_s=timeout_s):
        time.sleep(1)
        if is_so():
            return True
    return False


def pids(cluster: Cluster, *titles: str) -> set[int]:
    return {pid for node in cluster.nodes for title in titles for pid in node.pids(title)}


def one_with(cluster: Cluster, *titles: str) -> Node:
    """A worker that runs all of these."""
    for node in cluster.workers:
        if all(node.titles(title) for title in titles):
            return node
    raise AssertionError(f"no worker has {titles}")


def placement(cluster: Cluster) -> str:
    """For people: shards and replicas of each machine."""
    return ", ".join(
        f"{label} {'/'.join(map(str, counts(cluster, title)))}"
        for label, title in (("shards", SHARD), ("ingress replicas", INGRESS))
    )


@contextmanager
def load_on(url: str, acceptance: Acceptance) -> Iterator[SteadyLoad]:
    """8 clients with 4 wallets each. Nothing may be lost at the end."""
    load = SteadyLoad(url, clients=8, wallets_per_client=4)
    load.start()
    try:
        load.wait_for_each(1, timeout_s=60)
        load.longest_wait_s = 0.0
        yield load
    finally:
        load.stop()
        acceptance.calls += load.calls  # also of a test that failed: the audit reads all of them
    assert load.given_up == 0
    assert load.lost_or_duplicated() == {}


def wait_until_whole(cluster: Cluster, *, timeout_s: float = BACK_S) -> None:
    """All shards run, and each machine serves with a replica of its own."""
    assert wait_until(partial(is_whole, cluster), timeout_s=timeout_s), placement(cluster)
    wait_until_healthy(*cluster.nodes, timeout_s=timeout_s)


def is_whole(cluster: Cluster) -> bool:
    return sum(counts(cluster, SHARD)) >= SHARDS and min(counts(cluster, INGRESS)) > 0
