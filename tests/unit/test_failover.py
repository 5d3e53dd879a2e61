"""While a shard is unreachable the next one is called; the shard again as soon as it is back."""

import asyncio

import pytest

from actors.rpc import failover
from actors.rpc.failover import FailoverTransport
from actors.rpc.transport import ShardUnreachable


class FakeChannel:
    """Answers with its shard's number until the test breaks it."""

    def __init__(self, shard: int) -> None:
        self._shard = shard
        self.closed = False
        self.stood_still = False
        self.breaks = False

    async def call(self, payload: bytes) -> bytes:
        self.closed = self.closed or self.breaks
        if self.closed:
            raise ShardUnreachable("broke", delivered=True)
        return b"%d:%s" % (self._shard, payload)

    async def writing_problem(self) -> str | None:
        return f"{self._shard} can't write"


class Cluster:
    """Shards that are reachable, unreachable, or starting without responding yet."""

    def __init__(self, shards: int) -> None:
        self.gone: set[int] = set()
        self.starting: dict[int, asyncio.Event] = {}
        self.channels: dict[int, FakeChannel] = {}
        self.connected_to: list[int] = []
        self.shards = FailoverTransport(self.connect, shard_count=shards)

    async def connect(self, shard: int) -> FakeChannel:
        self.connected_to.append(shard)
        if shard in self.starting:
            await self.starting[shard].wait()
        if shard in self.gone:
            raise ShardUnreachable("gone", delivered=False)
        channel = self.channels[shard] = FakeChannel(shard)
        return channel

    def kill(self, shard: int) -> None:
        self.gone.add(shard)
        self.channels[shard].closed = True

    async def call(self, shard: int) -> bytes:
        return (await self.shards.call(shard, b"x")).partition(b":")[0]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failover, "CONNECT_GRACE_S", 0.01)
    monkeypatch.setattr(failover, "RECONNECT_INTERVAL_S", 0.0)


async def test_each_shard_is_called_itself_while_it_is_there() -> None:
    cluster = Cluster(3)
    assert [await cluster.call(shard) for shard in (0, 1, 2, 0, 1, 2)] == [
        b"0", b"1", b"2", b"0", b"1", b"2"
    ]  # fmt: skip
    assert cluster.connected_to == [0, 1, 2]


async def test_a_failed_call_is_reported_and_the_next_goes_to_the_next_shard() -> None:
    cluster = Cluster(3)
    await cluster.call(2)
    cluster.gone.add(2)
    cluster.channels[2].breaks = True
    with pytest.raises(ShardUnreachable) as lost:
        await cluster.call(2)
    assert lost.value.delivered
    assert await cluster.call(2) == b"0"


async def test_a_shard_that_is_back_is_called_again() -> None:
    cluster = Cluster(2)
    await cluster.call(1)
    cluster.kill(1)
    assert await cluster.call(1) == b"0"
    cluster.gone.clear()
    assert await cluster.call(1) == b"1"


async def test_nobody_waits_long_for_a_shard_that_is_starting() -> None:
    cluster = Cluster(2)
    cluster.starting[1] = asyncio.Event()
    assert [await cluster.call(1) for _ in range(3)] == [b"0"] * 3
    assert cluster.connected_to.count(1) == 1
    cluster.starting[1].set()
    await asyncio.sleep(0)
    assert await cluster.call(1) == b"1"


async def test_nobody_waits_at_all_for_a_shard_that_stood_still(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(failover, "CONNECT_GRACE_S", 60.0)
    cluster = Cluster(2)
    assert [await cluster.call(shard) for shard in (0, 1)] == [b"0", b"1"]
    cluster.starting[1] = asyncio.Event()
    cluster.channels[1].closed = cluster.channels[1].stood_still = True
    async with asyncio.timeout(10):
        assert [await cluster.call(1) for _ in range(2)] == [b"0", b"0"]
    cluster.starting[1].set()
    await asyncio.sleep(0)
    assert await cluster.call(1) == b"1"


async def test_shards_are_connected_before_they_are_called() -> None:
    cluster = Cluster(3)
    cluster.gone.add(1)
    assert not cluster.shards.reaches_a_shard()
    cluster.shards.connect()
    await asyncio.sleep(0)
    assert sorted(cluster.channels) == [0, 2]
    assert cluster.shards.reaches_a_shard()
    cluster.shards.connect()
    assert cluster.connected_to.count(0) == 1


async def test_no_shard_is_reached_once_the_last_connection_broke() -> None:
    cluster = Cluster(2)
    cluster.shards.connect()
    await asyncio.sleep(0)
    cluster.kill(0)
    assert cluster.shards.reaches_a_shard()
    cluster.kill(1)
    assert not cluster.shards.reaches_a_shard()
    cluster.gone.clear()
    cluster.shards.connect()
    await asyncio.sleep(0)
    assert cluster.shards.reaches_a_shard()


async def test_a_connection_to_a_lost_shard_is_not_retried_all_the_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(failover, "RECONNECT_INTERVAL_S", 60.0)
    cluster = Cluster(2)
    cluster.gone.add(1)
    assert [await cluster.call(1) for _ in range(5)] == [b"0"] * 5
    assert cluster.connected_to.count(1) == 1


async def test_without_any_shard_a_call_is_surely_not_delivered() -> None:
    cluster = Cluster(2)
    cluster.gone |= {0, 1}
    with pytest.raises(ShardUnreachable) as lost:
        await cluster.call(1)
    assert not lost.value.delivered


async def test_what_a_shard_says_of_its_writes_is_asked_where_its_calls_would_go() -> None:
    cluster = Cluster(2)
    assert await cluster.shards.writing_problem(1) == "1 can't write"
    cluster.kill(1)
    assert await cluster.shards.writing_problem(1) == "0 can't write"
    cluster.gone.add(0)
    cluster.channels[0].closed = True
    with pytest.raises(ShardUnreachable):
        await cluster.shards.writing_problem(1)


async def test_a_new_replica_connects_to_all_shards_before_its_first_call() -> None:
    cluster = Cluster(3)
    await cluster.shards.warm_up()
    assert sorted(cluster.channels) == [0, 1, 2]
    assert [await cluster.call(shard) for shard in (2, 1, 0)] == [b"2", b"1", b"0"]
    assert len(cluster.connected_to) == 3


async def test_a_new_replica_starts_without_a_shard_that_is_gone_or_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(failover, "CONNECT_TIMEOUT_S", 0.01)
    monkeypatch.setattr(failover, "CONNECT_GRACE_S", 60.0)
    cluster = Cluster(3)
    cluster.gone.add(0)
    cluster.starting[1] = asyncio.Event()
    await cluster.shards.warm_up()
    # The first calls don't wait for the silent one a second time.
    async with asyncio.timeout(10):
        assert [await cluster.call(shard) for shard in (0, 1, 2)] == [b"2"] * 3
    cluster.starting[1].set()
    await asyncio.sleep(0)
    assert await cluster.call(1) == b"1"
