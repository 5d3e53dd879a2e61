"""Three Ray nodes: shards and ingress replicas are spread, also after nodes come and go."""

import os
from collections import Counter
from functools import partial

import pytest

from deploy.local.processes import wait_until
from tests.cluster.nodes import Cluster

pytestmark = pytest.mark.timeout(600)

SHARD = "ray::ShardActor"
INGRESS = "ray::ServeReplica:api:Ingress"
PROJECTION = "ray::ProjectionActor"
DEPLOYMENTS = int(os.environ.get("WALLET_CLUSTER_DEPLOYMENTS", "3"))
"""How often the same service is deployed anew. Each must be as even as the first."""


def counts(cluster: Cluster, title: str) -> list[int]:
    return sorted(len(node.titles(title)) for node in cluster.nodes)


def becomes(cluster: Cluster, title: str, expected: list[int], *, timeout_s: float = 60) -> bool:
    return wait_until(lambda: counts(cluster, title) == expected, timeout_s=timeout_s)


def test_the_first_deployment_is_spread(cluster: Cluster) -> None:
    assert counts(cluster, SHARD) == [1, 1, 2]
    assert counts(cluster, INGRESS) == [1, 1, 1]
    assert counts(cluster, PROJECTION) == [0, 1, 1]


def test_every_deployment_is_spread(cluster: Cluster, log: list[str]) -> None:
    seen: Counter[str] = Counter()
    for number in range(DEPLOYMENTS):
        cluster.serve_deploy(revision=f"again-{number}")
        assert becomes(cluster, SHARD, [1, 1, 2]), counts(cluster, SHARD)
        assert becomes(cluster, INGRESS, [1, 1, 1]), counts(cluster, INGRESS)
        seen[f"{counts(cluster, SHARD)} {counts(cluster, INGRESS)}"] += 1
    log.append(f"deployed again: {dict(seen)}")


def test_shards_of_a_lost_node_are_spread_over_the_others(cluster: Cluster) -> None:
    busiest = max(cluster.nodes[1:], key=lambda node: len(node.titles(SHARD)))
    cluster.lose(busiest)
    assert becomes(cluster, SHARD, [2, 2]), counts(cluster, SHARD)
    assert becomes(cluster, INGRESS, [1, 1]), counts(cluster, INGRESS)


def test_a_node_that_joins_gets_the_waiting_replica_at_once(cluster: Cluster) -> None:
    cluster.start_workers(1)
    assert becomes(cluster, INGRESS, [1, 1, 1]), counts(cluster, INGRESS)
    assert counts(cluster, SHARD) == [0, 2, 2]


def test_the_next_deployment_gives_it_its_share_of_the_shards(cluster: Cluster) -> None:
    cluster.serve_deploy(revision="after-the-join")
    assert becomes(cluster, SHARD, [1, 1, 2]), counts(cluster, SHARD)
    assert becomes(cluster, INGRESS, [1, 1, 1]), counts(cluster, INGRESS)


def test_a_fourth_node_gets_its_share_with_the_next_deployment(cluster: Cluster) -> None:
    cluster.start_workers(1)
    cluster.serve_deploy(revision="four-nodes")
    spread = partial(becomes, cluster)
    assert spread(SHARD, [1, 1, 1, 1]), counts(cluster, SHARD)
    assert spread(INGRESS, [0, 1, 1, 1]), counts(cluster, INGRESS)
