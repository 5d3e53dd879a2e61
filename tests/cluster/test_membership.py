"""Machines leave for good and join, after the faults: where shards and replicas are then."""

import asyncio
import time

import asyncpg

from actors.dispatch.ring import ring_of
from bench.database_state import DatabaseState
from deploy.local.processes import wait_until
from tests.cluster.acceptance import Acceptance, result_of
from tests.cluster.conftest import Report
from tests.cluster.nodes import Cluster
from tests.cluster.parts import (
    INGRESS,
    INGRESS_REPLICAS,
    SHARD,
    SHARDS,
    becomes,
    load_on,
    placement,
    wait_until_whole,
)
from tests.e2e.api import new_id
from tests.support.checker import run_checker
from wallet.ids import WalletId

MORE_SHARDS = SHARDS + 1


def test_shards_of_a_lost_node_are_spread_over_the_others(
    cluster: Cluster, acceptance: Acceptance
) -> None:
    wait_until_whole(cluster)
    lost = max(cluster.workers, key=lambda node: len(node.titles(SHARD)))
    before = placement(cluster)
    cluster.lose(lost)
    is_spread = becomes(cluster, SHARD, [2, 2]) and becomes(cluster, INGRESS, [1, 1])
    acceptance.placements.append(f"a node of {before} lost for good: {placement(cluster)}")
    assert is_spread, placement(cluster)
    assert wait_until(lambda: "ingress replica waits" in cluster.status(), timeout_s=30)


def test_a_node_that_joins_gets_the_waiting_replica_at_once(
    cluster: Cluster, acceptance: Acceptance
) -> None:
    cluster.add_worker()
    has_joined = becomes(cluster, INGRESS, [1, 1, 1])
    acceptance.placements.append(f"another one joined: {placement(cluster)}")
    assert has_joined, placement(cluster)
    assert becomes(cluster, SHARD, [0, 2, 2]), placement(cluster)
    wait_until_whole(cluster)


def test_one_command_adds_shards_and_a_node_without_a_failure(
    cluster: Cluster, http_url: str, acceptance: Acceptance, report: Report
) -> None:
    cluster.add_worker()
    with load_on(http_url, acceptance) as load:
        began = time.monotonic()
        cluster.wallet(
            "deploy",
            "api",
            f"--address={cluster.address}",
            WALLET_SHARD_COUNT=str(MORE_SHARDS),
            WALLET_SHARD_NUM_CPUS="0.5",
            WALLET_INGRESS_REPLICAS=str(INGRESS_REPLICAS),
            WALLET_HTTP_HOST="0.0.0.0",
            WALLET_ALLOW_UNAUTHENTICATED_REMOTE="true",
        )
        took_s = time.monotonic() - began
        load.wait_for_each(2, timeout_s=60)
    measured = f"took {took_s:.0f} s, {moved_share():.0%} of the wallets moved"
    what = f"{SHARDS} → {MORE_SHARDS} shards with `wallet deploy api`, on four nodes"
    report(result_of(load, "resize", what, "no failed attempt", measured))
    acceptance.placements.append(f"{MORE_SHARDS} shards on four nodes: {placement(cluster)}")

    assert load.failures == {}
    assert becomes(cluster, SHARD, [1, 1, 1, 2]), placement(cluster)
    assert becomes(cluster, INGRESS, [0, 1, 1, 1]), placement(cluster)


def moved_share() -> float:
    before, after = ring_of(SHARDS), ring_of(MORE_SHARDS)
    wallets = [WalletId(new_id()) for _ in range(2_000)]
    moved = sum(before.shard_of(one) != after.shard_of(one) for one in wallets)
    return moved / len(wallets)


async def test_nothing_is_lost_or_doubled_after_all_of_it(
    cluster: Cluster, acceptance: Acceptance
) -> None:
    await everything_has_arrived(cluster.database_url)
    found = await run_checker(cluster.database_url, cluster.nats_url, acceptance.calls)
    assert found.violations == [], found.lines
    pages = [one.status for one in acceptance.calls if one.code == "page"]
    assert pages == [], "clients got HAProxy's pages instead of problem documents"
    acceptance.audit = (
        f"The checker then read {len(acceptance.calls):,} answers of the clients, the database "
        "and the stream: 0 lost, 0 doubled, 0 violations."
    )


async def everything_has_arrived(database_url: str, *, timeout_s: float = 60.0) -> None:
    """Wait until every event is on the stream and in the projections."""
    connection = await asyncpg.connect(database_url, timeout=10)
    try:
        wallets = [row["id"] for row in await connection.fetch("SELECT id::text FROM wallets")]
        ledger, deadline = DatabaseState(connection), time.monotonic() + timeout_s
        while await ledger.unpublished(wallets) or await ledger.wallets_behind(wallets):
            assert time.monotonic() < deadline, "events do not arrive"
            await asyncio.sleep(0.2)
    finally:
        await connection.close(timeout=10)
