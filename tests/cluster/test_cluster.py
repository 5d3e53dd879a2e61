"""Three Ray nodes: work is distributed, and nodes, code and shards change under load.

The tests run on one cluster in this order.
"""

import asyncio
import time
from functools import partial

import asyncpg
import httpx
import pytest

from actors.dispatch.ring import ring_of
from bench.database_state import DatabaseState
from bench.stream_state import connected
from deploy.local.processes import wait_until
from deploy.local.readiness_client import fetch_readiness
from tests.cluster.nodes import Cluster, Node
from tests.e2e.api import Api, new_id
from tests.support.steady_load import SteadyLoad, assert_nothing_lost, steady_load
from wallet.ids import WalletId

pytestmark = pytest.mark.timeout(600)

SHARD = "ray::ShardActor"
INGRESS = "ray::ServeReplica:api:Ingress"
SHARDS, MORE_SHARDS = 4, 5
"""In deploy/serve.yaml, and after the test that adds one."""
INGRESS_REPLICAS = 3

AGAIN_S = 20.0
"""A lost node is detected after about 5 s; its actors restart elsewhere a few seconds later."""


def counts(cluster: Cluster, title: str) -> list[int]:
    return [len(node.titles(title)) for node in cluster.nodes]


def one_with(cluster: Cluster, *titles: str) -> Node:
    """A worker that runs all of these."""
    for node in cluster.nodes[1:]:
        if all(node.titles(title) for title in titles):
            return node
    raise AssertionError(f"no worker has {titles}")


def reported(load: SteadyLoad, what: str) -> str:
    failures = dict(load.failures) or "none"
    return (
        f"{what}: {load.acknowledged} writes, longest {load.longest_wait_s:.2f} s, "
        f"failed attempts: {failures}"
    )


def test_every_node_has_a_part_of_the_service(cluster: Cluster) -> None:
    assert sum(counts(cluster, SHARD)) == SHARDS
    assert min(counts(cluster, SHARD)) > 0
    assert counts(cluster, INGRESS) == [1] * INGRESS_REPLICAS


def _is_ready(node: Node) -> bool:
    return fetch_readiness(node.http_url).is_ready


def test_every_node_answers_for_the_whole(cluster: Cluster) -> None:
    # As a load balancer would: a HAProxy that has just started says 404 to everything.
    for node in cluster.nodes:
        assert wait_until(partial(_is_ready, node), timeout_s=30), node.name
    for node in cluster.nodes:
        with Api(node.http_url) as api:
            wallet = api.new_wallet("7.00")
            for other in cluster.nodes:
                with Api(other.http_url) as elsewhere:
                    assert elsewhere.state(wallet)["balance"] == "7.00"


def test_a_lost_node_costs_a_pause_and_no_write(cluster: Cluster, log: list[str]) -> None:
    with steady_load(cluster.http_url) as load:
        cluster.lose(one_with(cluster, SHARD, INGRESS))
        lost_at = time.monotonic()
        load.wait_for_each(2, timeout_s=60)
        again_s = time.monotonic() - lost_at
        assert wait_until(lambda: sum(counts(cluster, SHARD)) == SHARDS, timeout_s=30)
        assert wait_until(lambda: sum(counts(cluster, INGRESS)) == INGRESS_REPLICAS, timeout_s=30)
    log.append(reported(load, f"node lost, every wallet written again after {again_s:.1f} s"))

    assert_nothing_lost(load)
    assert load.longest_wait_s < AGAIN_S
    # Only requests in flight on the lost replica were aborted.
    assert load.failures.total() <= load.clients


def test_a_node_that_comes_and_an_upgrade_fail_no_request(cluster: Cluster, log: list[str]) -> None:
    cluster.start_workers(1)
    before = {pid for node in cluster.nodes for pid in node.pids(SHARD)}

    with steady_load(cluster.http_url) as load:
        began = time.monotonic()
        cluster.serve_deploy(revision="second")
        took_s = time.monotonic() - began
        load.wait_for_each(2, timeout_s=60)
    log.append(reported(load, f"upgraded with `serve deploy` in {took_s:.0f} s"))

    assert_nothing_lost(load)
    assert load.failures == {}
    assert before.isdisjoint(pid for node in cluster.nodes for pid in node.pids(SHARD))
    assert min(counts(cluster, SHARD)) > 0
    assert min(counts(cluster, INGRESS)) > 0


def test_the_shard_count_changes_with_one_command_and_fails_no_request(
    cluster: Cluster, log: list[str]
) -> None:
    with steady_load(cluster.http_url) as load:
        time.sleep(2)
        usual_s, load.longest_wait_s = load.longest_wait_s, 0.0
        began, written = time.monotonic(), load.acknowledged
        cluster.wallet(
            "deploy",
            "api",
            f"--address={cluster.address}",
            WALLET_SHARD_COUNT=str(MORE_SHARDS),
            WALLET_SHARD_NUM_CPUS="0.5",
            WALLET_INGRESS_REPLICAS=str(INGRESS_REPLICAS),
        )
        took_s, written = time.monotonic() - began, load.acknowledged - written
        load.wait_for_each(2, timeout_s=60)
    log.append(reported(load, f"{SHARDS} → {MORE_SHARDS} shards in {took_s:.0f} s"))
    log.append(
        f"meanwhile {written / took_s:.0f} writes/s; longest wait {load.longest_wait_s:.2f} s "
        f"instead of {usual_s:.2f} s; {moved_share():.0%} of the wallets moved"
    )

    assert_nothing_lost(load)
    assert load.failures == {}
    assert sum(counts(cluster, SHARD)) == MORE_SHARDS
    answer = httpx.get(f"{cluster.http_url}/readyz", timeout=10).json()
    assert answer["components"]["shards"]["detail"].startswith(f"{MORE_SHARDS} of {MORE_SHARDS}")


def moved_share() -> float:
    before, after = ring_of(SHARDS), ring_of(MORE_SHARDS)
    wallets = [WalletId(new_id()) for _ in range(2_000)]
    moved = sum(before.shard_of(one) != after.shard_of(one) for one in wallets)
    return moved / len(wallets)


async def test_ledger_and_stream_are_consistent_after_all_changes(cluster: Cluster) -> None:
    connection = await asyncpg.connect(cluster.database_url, timeout=10)
    try:
        rows = await connection.fetch("SELECT id::text FROM wallets")
        wallets = [row["id"] for row in rows]
        ledger = DatabaseState(connection)
        deadline = time.monotonic() + 60
        while await ledger.unpublished(wallets) or await ledger.wallets_behind(wallets):
            assert time.monotonic() < deadline, "no events arrive"
            await asyncio.sleep(0.2)

        assert await ledger.violations(wallets) == []
        versions = await ledger.versions(wallets)
        async with connected(cluster.nats_url, "WALLET_EVENTS") as stream:
            assert await stream.violations(dict.fromkeys(wallets, 0), versions, since=0) == []
    finally:
        await connection.close(timeout=10)
