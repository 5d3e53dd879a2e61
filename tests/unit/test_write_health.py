"""Write health of a shard, from its commits and, without them, from probes."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager

import pytest

from actors.journal.ports import (
    CommitRequest,
    IdempotencyKeyRef,
    JournalBusy,
    JournalConflict,
    JournalError,
    JournalUnavailable,
    LoadedState,
    OutcomeUnknown,
    ReadSet,
    StoredAnswer,
    TransferKey,
)
from actors.journal.probe_ports import ProbeFailed
from actors.shard.write_health import MonitoredJournal, WriteHealth, WriteHealthLimits
from tests.support.domain import NOW, TRANSFER_ID, WALLET_ID, changed, make_transfer, make_wallet
from tests.support.waiting import stop, until
from wallet.events import RecordedEvent
from wallet.ids import IdempotencyKey, WalletId

LIMITS = WriteHealthLimits(write_probe_s=0.001, write_ready_s=2.0)

WALLET = make_wallet()


def batch(
    *,
    recorded: Sequence[RecordedEvent] = (),
    keys: Mapping[IdempotencyKeyRef, StoredAnswer] = {},
    refused: Mapping[TransferKey, bytes] = {},
    confirm: bool = False,
) -> CommitRequest:
    return CommitRequest(
        now=NOW,
        expected_versions={WALLET_ID: WALLET.version},
        expected_hashes={WALLET_ID: WALLET.hash},
        wallets={WALLET_ID: WALLET},
        created_wallets=[],
        events=list(recorded),
        stored_answers=dict(keys),
        refused=dict(refused),
        confirm=confirm,
    )


RECORDED = changed(make_transfer(), WALLET)
KEYS = {
    (WALLET_ID, IdempotencyKey("k")): StoredAnswer(
        fingerprint=b"f", request_id="r", refused=True, answer=b"{}", version=1
    )
}
REFUSED = {(WALLET_ID, TRANSFER_ID): b"{}"}
BATCH = batch(recorded=[RECORDED])
UNKEYED_REFUSALS = batch()


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Probe:
    """Fails with ``failure`` if there is one; waits while it is not ``free``."""

    def __init__(self) -> None:
        self.failure: str | None = None
        self.free = asyncio.Event()
        self.free.set()
        self.asked: list[bool] = []

    async def write(self, *, allocating: bool) -> None:
        self.asked.append(allocating)
        await self.free.wait()
        if self.failure is not None:
            raise ProbeFailed(self.failure)


class FakeJournal:
    """Raises ``failure`` if there is one; a commit waits while it is not ``free``."""

    def __init__(self) -> None:
        self.failure: Exception | None = None
        self.free = asyncio.Event()
        self.free.set()

    async def connect(self) -> int:
        return 1

    async def locked(self, wallet_ids: Collection[WalletId]) -> frozenset[WalletId]:
        return frozenset()

    async def load(self, missing: ReadSet, *, session: int | None = None) -> LoadedState:
        if self.failure is not None:
            raise self.failure
        return LoadedState()

    async def commit(self, batch: CommitRequest, *, session: int | None = None) -> None:
        await self.free.wait()
        if self.failure is not None:
            raise self.failure


class World:
    def __init__(self) -> None:
        self.clock, self.probe, self.inner = Clock(), Probe(), FakeJournal()
        self.health = WriteHealth(self.probe, LIMITS, self.clock)
        self.journal = MonitoredJournal(self.inner, self.health, self.clock)

    @asynccontextmanager
    async def probing(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.health.run())
        try:
            yield
        finally:
            await stop(task)


async def test_before_anything_was_written_it_is_not_ready() -> None:
    world = World()
    assert world.health.problem() == "nothing has been written yet"
    await world.journal.commit(BATCH)
    assert world.health.problem() is None


async def test_an_idle_shard_is_ready_by_its_probe_and_not_ready_without() -> None:
    world = World()
    async with world.probing():
        await until(lambda: world.health.problem() is None)
        world.clock.now += 60
        world.probe.failure = "25006 read-only"
        await until(lambda: world.health.problem() == "25006 read-only")
        world.probe.failure = None
        await until(lambda: world.health.problem() is None)


async def test_commits_that_are_confirmed_need_no_probe() -> None:
    world = World()
    await world.journal.commit(BATCH)
    async with world.probing():
        for _ in range(5):
            await asyncio.sleep(2 * LIMITS.write_probe_s)
    assert world.probe.asked == []


@pytest.mark.parametrize(
    "writes",
    [batch(recorded=[RECORDED]), batch(keys=KEYS), batch(refused=REFUSED)],
    ids=["events", "a key's answer", "a refused delivery"],
)
async def test_a_commit_that_wrote_proves_that_writes_go_through(writes: CommitRequest) -> None:
    world = World()
    await world.journal.commit(writes)
    assert world.health.problem() is None


@pytest.mark.parametrize(
    "writes_nothing", [UNKEYED_REFUSALS, batch(confirm=True)], ids=["refusals", "replays"]
)
async def test_a_commit_that_wrote_no_row_proves_nothing(writes_nothing: CommitRequest) -> None:
    world = World()
    world.health.failed("53100 could not extend file")
    world.clock.now += 1
    await world.journal.commit(writes_nothing)
    assert world.health.problem() == "53100 could not extend file"


async def test_refusals_that_keep_coming_in_do_not_keep_the_probe_from_running() -> None:
    world = World()
    await world.journal.commit(BATCH)
    world.probe.failure = "25006 read-only"
    async with world.probing():
        for _ in range(5):
            world.clock.now += LIMITS.write_probe_s
            await world.journal.commit(UNKEYED_REFUSALS)
        await until(lambda: world.health.problem() == "25006 read-only")


async def test_a_probe_that_waits_too_long_means_not_ready_until_confirmed() -> None:
    world = World()
    await world.journal.commit(BATCH)
    world.clock.now += 10
    world.probe.free.clear()
    async with world.probing():
        await until(lambda: len(world.probe.asked) == 1)
        world.clock.now += LIMITS.write_ready_s
        assert world.health.problem() is None
        world.clock.now += 0.1
        assert "a probe has waited 2.1 s" in (world.health.problem() or "")
        world.probe.free.set()
        await until(lambda: world.health.problem() is None)


async def test_a_commit_that_waits_too_long_means_not_ready_until_confirmed() -> None:
    world = World()
    await world.journal.commit(BATCH)
    world.clock.now += 1
    world.inner.free.clear()
    commit = asyncio.create_task(world.journal.commit(BATCH))
    await asyncio.sleep(0)
    world.clock.now += 2.1
    assert "a commit has waited 2.1 s" in (world.health.problem() or "")
    world.inner.free.set()
    await commit
    assert world.health.problem() is None


async def test_what_waits_since_before_the_last_confirmed_write_says_nothing() -> None:
    world = World()
    world.probe.free.clear()
    async with world.probing():
        await until(lambda: len(world.probe.asked) == 1)
        world.clock.now += 60
        await world.journal.commit(BATCH)
        assert world.health.problem() is None


@pytest.mark.parametrize(
    "failure",
    [
        JournalUnavailable("no connection"),
        OutcomeUnknown("57P01 shutting down"),
        JournalError("53100 could not extend file: No space left on device"),
        JournalError("25006 cannot execute INSERT in a read-only transaction"),
        JournalError("55000 not in the state it needs"),
    ],
    ids=str,
)
async def test_a_commit_that_failed_makes_it_not_ready_until_one_succeeds(
    failure: Exception,
) -> None:
    world = World()
    await world.journal.commit(BATCH)
    world.clock.now += 1
    world.inner.failure = failure
    with pytest.raises(type(failure)):
        await world.journal.commit(BATCH)
    assert world.health.problem() == str(failure)
    world.clock.now += 1
    world.inner.failure = None
    await world.journal.commit(BATCH)
    assert world.health.problem() is None


@pytest.mark.parametrize(
    "failure",
    [
        JournalConflict("WV001 version"),
        JournalError("22P02 invalid input"),
        JournalBusy("55P03 canceling statement due to lock timeout"),
        JournalBusy("57014 canceling statement due to statement timeout"),
    ],
    ids=str,
)
async def test_a_commit_that_is_to_blame_itself_says_nothing_about_the_next(
    failure: Exception,
) -> None:
    world = World()
    await world.journal.commit(BATCH)
    world.inner.failure = failure
    with pytest.raises(type(failure)):
        await world.journal.commit(BATCH)
    assert world.health.problem() is None


async def test_a_journal_that_cannot_be_read_makes_it_not_ready() -> None:
    world = World()
    await world.journal.commit(BATCH)
    world.inner.failure = JournalUnavailable("Postgres did not answer lately")
    with pytest.raises(JournalUnavailable):
        await world.journal.load(ReadSet())
    assert world.health.problem() == "Postgres did not answer lately"


async def test_a_read_that_met_a_lock_says_nothing_about_the_next_write() -> None:
    world = World()
    await world.journal.commit(BATCH)
    world.inner.failure = JournalBusy("55P03 canceling statement due to lock timeout")
    with pytest.raises(JournalBusy):
        await world.journal.load(ReadSet())
    assert world.health.problem() is None


async def test_after_a_full_disk_a_probe_proves_nothing_until_it_gets_space() -> None:
    world = World()
    await world.journal.commit(BATCH)
    world.inner.failure = JournalError("53100 could not extend file")
    with pytest.raises(JournalError):
        await world.journal.commit(BATCH)
    world.clock.now += 1
    async with world.probing():
        await until(lambda: world.health.problem() is None)
    assert world.probe.asked[0] is True


async def test_a_probe_that_began_before_a_failure_does_not_outweigh_it() -> None:
    world = World()
    world.probe.free.clear()
    async with world.probing():
        await until(lambda: len(world.probe.asked) == 1)
        world.clock.now += 1
        world.inner.failure = OutcomeUnknown("no answer")
        with pytest.raises(OutcomeUnknown):
            await world.journal.commit(BATCH)
        world.probe.failure = "still no answer"
        world.probe.free.set()
        await until(lambda: world.health.problem() == "still no answer")
        world.probe.failure = None
        await until(lambda: world.health.problem() is None)
