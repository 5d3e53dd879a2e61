"""The sweep finds rows of a predecessor, and all rows after a reset."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from actors.journal.ports import EventRange, JournalUnavailable
from actors.outbox import sweep as module
from actors.outbox.sweep import OutboxSweep
from tests.support.domain import OTHER_WALLET_ID, WALLET_ID, wallet_id
from tests.support.fake_stream import StreamFault
from tests.support.relays import LIMITS, RelayFixture, ids, slots_of
from tests.support.waiting import until
from wallet.slots import slot_of


@pytest_asyncio.fixture
async def fixture() -> AsyncIterator[RelayFixture]:
    made = RelayFixture()
    yield made
    await made.close()


async def test_a_row_swept_before_its_shard_reports_it_is_published_once(
    fixture: RelayFixture,
) -> None:
    # Committed, and the sweep runs before the shard's task does.
    write = await fixture.commit(WALLET_ID, 1)
    fixture.relay.add_from_journal(await fixture.outbox.unpublished(limit=10))
    fixture.add(write)
    following = await fixture.commit_and_add(WALLET_ID, 2)
    assert fixture.relay.backlog == 3
    fixture.start()
    await fixture.until_empty()
    await asyncio.sleep(0)
    assert fixture.stream.calls == [ids(WALLET_ID, 1, 2, 3)]
    assert following.spans() == [EventRange(WALLET_ID, 3, 3)]
    assert fixture.relay.backlog == 0


async def test_a_range_added_after_the_sweep_is_dropped_by_the_stream(
    fixture: RelayFixture,
) -> None:
    write = await fixture.commit(WALLET_ID, 1)
    fixture.relay.add_from_journal(await fixture.outbox.unpublished(limit=10))
    fixture.start()
    await fixture.until_empty()
    fixture.add(write)
    await fixture.stream.until_called(2)
    await fixture.commit_and_add(WALLET_ID, 2)
    await fixture.until_empty()
    assert fixture.stream.ids == ids(WALLET_ID, 1, 2, 3)


async def test_the_sweep_finds_what_a_predecessor_left(fixture: RelayFixture) -> None:
    await fixture.commit(WALLET_ID, 1)
    await fixture.commit(OTHER_WALLET_ID)
    await fixture.commit(WALLET_ID, 2)
    fixture.start(sweeping=True)
    await fixture.until_empty()
    of_one = [one for one in fixture.stream.ids if one.startswith(WALLET_ID)]
    assert of_one == ids(WALLET_ID, 1, 2, 3)
    assert set(fixture.stream.ids) - set(of_one) == {f"{OTHER_WALLET_ID}:1"}


async def test_the_first_sweep_does_not_wait_once_the_stream_is_there() -> None:
    fixture = RelayFixture(msgspec.structs.replace(LIMITS, outbox_sweep_interval_s=60.0))
    await fixture.commit(WALLET_ID, 1)
    fixture.start(sweeping=True)
    await fixture.until_empty()
    await fixture.close()


async def test_the_sweep_leaves_other_shards_wallets_to_them() -> None:
    fixture = RelayFixture(slots=slots_of(WALLET_ID))
    await fixture.commit(WALLET_ID)
    await fixture.commit(OTHER_WALLET_ID)
    fixture.start(sweeping=True)
    await fixture.stream.until_stored(1)
    swept = fixture.outbox.sweeps
    await until(lambda: fixture.outbox.sweeps >= swept + 3)
    assert fixture.stream.ids == ids(WALLET_ID, 1)
    assert list(fixture.outbox.rows) == [(OTHER_WALLET_ID, 1)]
    await fixture.close()


async def test_rows_of_others_hide_none_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SWEEP_PAGE", 3)
    ours = wallet_id(20)
    fixture = RelayFixture(slots=slots_of(ours))
    for number in range(21):
        await fixture.commit(wallet_id(number), 1)
        await fixture.commit(wallet_id(number), 2)
    fixture.start(sweeping=True)
    await fixture.stream.until_stored(3)
    assert fixture.stream.ids == ids(ours, 1, 2, 3)
    await fixture.close()


async def test_a_sweep_waits_while_much_is_queued(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SWEEP_PAGE", 2)
    monkeypatch.setattr(module, "_SWEEP_AHEAD", 5)
    fixture = RelayFixture()
    wallets = sorted(map(wallet_id, range(40)), key=slot_of)
    for wallet in wallets:
        await fixture.commit(wallet)
    fixture.stream.gate.clear()
    fixture.start(sweeping=True)
    await fixture.stream.until_called(1)
    await until(lambda: fixture.relay.backlog == 6)
    fixture.stream.gate.set()
    await fixture.until_empty()
    assert fixture.stream.ids == [f"{wallet}:1" for wallet in wallets]
    assert fixture.outbox.sweeps <= 2, "the sweep continued where it had stopped"
    await fixture.close()


@pytest.mark.parametrize(
    ("took_s", "fails", "pause_s"),
    [
        (0.0, False, LIMITS.outbox_sweep_interval_s),
        (0.4, False, 20.0),
        # An outage, or a lock: nothing that the next sweep would meet, too.
        (5.0, False, module._PAUSE_S_MAX),
        (5.0, True, 5.0),
        (300.0, True, module._PAUSE_S_MAX),
    ],
)
async def test_the_slower_a_sweep_the_longer_the_pause_after_it(
    fixture: RelayFixture,
    monkeypatch: pytest.MonkeyPatch,
    took_s: float,
    pause_s: float,
    fails: bool,
) -> None:
    pauses: list[float] = []
    pause, unpublished = OutboxSweep._pause, fixture.outbox.unpublished
    asked = False

    async def noted(sweep: OutboxSweep, seconds: float) -> None:
        if asked:  # Before, the stream is not ready.
            pauses.append(seconds)
            await asyncio.Event().wait()
        await pause(sweep, seconds)

    async def slow(**arguments: Any) -> Sequence[EventRange]:
        nonlocal asked
        asked = True
        await asyncio.sleep(took_s)
        if fails:
            raise JournalUnavailable("injected: unavailable")
        return await unpublished(**arguments)

    monkeypatch.setattr(OutboxSweep, "_pause", noted)
    monkeypatch.setattr(fixture.outbox, "unpublished", slow)
    fixture.start(sweeping=True)
    await until(lambda: bool(pauses), timeout_s=400)
    assert pauses == [pytest.approx(pause_s, rel=1e-4)]


async def test_the_first_sweep_takes_rows_of_any_age_and_later_sweeps_old_ones() -> None:
    fixture = RelayFixture(msgspec.structs.replace(LIMITS, outbox_retention_s=60.0))
    await fixture.commit(WALLET_ID)
    fixture.start(sweeping=True)
    await fixture.stream.until_stored(1)
    await fixture.commit(OTHER_WALLET_ID)
    sweeps = fixture.outbox.sweeps
    await until(lambda: fixture.outbox.sweeps >= sweeps + 3)
    assert fixture.stream.ids == ids(WALLET_ID, 1)
    await fixture.close()


async def test_an_outbox_that_can_not_be_swept_is_swept_later(
    fixture: RelayFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fixture.commit(WALLET_ID)
    failures = 2
    unpublished = fixture.outbox.unpublished

    async def failing(**arguments: Any) -> Sequence[EventRange]:
        nonlocal failures
        if failures:
            failures -= 1
            raise JournalUnavailable("injected: unavailable")
        return await unpublished(**arguments)

    monkeypatch.setattr(fixture.outbox, "unpublished", failing)
    fixture.start(sweeping=True)
    await fixture.until_empty()
    assert fixture.stream.ids == ids(WALLET_ID, 1)


# -- reset ----------------------------------------------------------------------------------------


async def test_after_a_reset_everything_is_found_again_in_the_table(fixture: RelayFixture) -> None:
    fixture.stream.unreachable = True
    fixture.start(sweeping=True)
    await fixture.commit_and_add(WALLET_ID, 1)
    await fixture.commit_and_add(OTHER_WALLET_ID)
    await until(lambda: fixture.relay.publish_failures >= 1)
    fixture.relay.reset()
    assert fixture.relay.backlog == 0
    fixture.stream.unreachable = False
    await fixture.until_empty()
    assert sorted(fixture.stream.ids) == ids(WALLET_ID, 1, 2) + ids(OTHER_WALLET_ID, 1)


async def test_after_a_reset_nothing_is_published_that_the_table_does_not_have(
    fixture: RelayFixture,
) -> None:
    fixture.stream.faults.append(StreamFault.NOT_STORED)
    fixture.stream.gate.clear()
    fixture.start(sweeping=True)
    await fixture.commit_and_add(WALLET_ID, 1)
    await fixture.stream.until_called(1)
    lost = fixture.outbox.database.outbox.pop(WALLET_ID)  # another server, which never had it
    assert lost
    fixture.relay.reset()
    fixture.stream.gate.set()
    await fixture.commit_and_add(OTHER_WALLET_ID)
    await fixture.until_empty()
    assert fixture.stream.ids == ids(OTHER_WALLET_ID, 1)
