"""/readyz: whether this replica can serve requests now, and which component can't."""

import asyncio
from typing import cast

import msgspec
import pytest

from actors.rpc.transport import ShardUnreachable
from actors.shard.statistics import ShardStatistics
from projections.queries import Queries
from runtime.settings import Settings
from serve_app.readiness import ReadinessChecks

SETTINGS = Settings(_env_file=None, shard_count=3, ready_timeout_s=0.1)


def statistics(shard: int, *, refilling: bool = False) -> ShardStatistics:
    names = {field.name: field.type for field in msgspec.structs.fields(ShardStatistics)}
    empty: dict[object, object] = {int: 0, float: 0.0, bool: True}
    values = {
        name: empty.get(kind, [] if name == "hot_wallets" else {}) for name, kind in names.items()
    }
    return msgspec.convert(
        values | {"shard": shard, "mailbox_items": 2, "stream_refilling": refilling},
        ShardStatistics,
    )


class FakeShards:
    """Three shards; a command for an unreachable shard goes to the next one."""

    def __init__(self) -> None:
        self.away: set[int] = set()
        self.hanging: set[int] = set()
        self.refilling: set[int] = set()
        self.problems: dict[int, str] = {}

    async def statistics(self, shard: int) -> ShardStatistics:
        if shard in self.hanging:
            await asyncio.Event().wait()
        if shard in self.away:
            raise ShardUnreachable("no actor of this name yet", delivered=False)
        return statistics(shard, refilling=shard in self.refilling)

    def reaches_a_shard(self) -> bool:
        return len(self.away | self.hanging) < 3

    async def writing_problem(self, shard: int) -> str | None:
        reached = [n % 3 for n in range(shard, shard + 3) if n % 3 not in self.away | self.hanging]
        if not reached:
            raise ShardUnreachable("gone", delivered=False)
        return self.problems.get(reached[0])


@pytest.fixture
def shards() -> FakeShards:
    return FakeShards()


@pytest.fixture
def probes(shards: FakeShards) -> ReadinessChecks:
    return ReadinessChecks(SETTINGS, cast("Queries", None), shards)


async def test_shards_that_write_are_ready(probes: ReadinessChecks) -> None:
    found = await probes.shards()
    assert (found.ready, found.detail) == (True, "3 of 3, 6 commands queued")


@pytest.mark.parametrize("kind", ["away", "hanging"])
async def test_a_replica_is_ready_without_a_shard_if_the_next_one_writes(
    probes: ReadinessChecks, shards: FakeShards, kind: str
) -> None:
    getattr(shards, kind).add(1)
    found = await probes.shards()
    assert found.ready
    assert found.detail == "2 of 3, 4 commands queued; shards [1] are failed over to the next"


async def test_a_replica_that_reaches_no_shard_says_so_without_asking(
    probes: ReadinessChecks, shards: FakeShards
) -> None:
    shards.hanging |= {0, 1, 2}  # would be waited for
    found = await probes.shards()
    assert (found.ready, found.detail) == (False, "no shard can be reached")


async def test_a_shard_whose_writes_fail_makes_the_replica_not_ready(
    probes: ReadinessChecks, shards: FakeShards
) -> None:
    shards.problems[2] = "53100 disk full"
    found = await probes.shards()
    assert not found.ready
    assert "53100 disk full" in found.detail
    assert found.detail.startswith("3 of 3")


async def test_a_replica_is_not_ready_if_the_failover_shard_cannot_write(
    probes: ReadinessChecks, shards: FakeShards
) -> None:
    shards.away |= {0}
    shards.problems[1] = "a commit has waited 3 s"
    assert not (await probes.shards()).ready


async def test_without_any_shard_the_replica_is_not_ready(
    probes: ReadinessChecks, shards: FakeShards
) -> None:
    shards.away |= {0, 1, 2}
    found = await probes.shards()
    assert not found.ready
    assert "no shard can be reached" in found.detail


async def test_the_stream_is_checked_through_the_shards_that_answer(
    probes: ReadinessChecks, shards: FakeShards
) -> None:
    shards.hanging.add(0)
    assert (await probes.nats()).ready


async def test_a_stream_that_is_being_filled_again_is_not_ready(
    probes: ReadinessChecks, shards: FakeShards
) -> None:
    shards.refilling.add(1)
    found = await probes.nats()
    assert not found.ready
    assert "stream behind: refilling" in found.detail
