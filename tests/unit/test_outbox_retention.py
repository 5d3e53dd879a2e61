"""Rows of acknowledged events: retained until NATS has synced them, then deleted."""

from collections.abc import AsyncIterator, Collection

import msgspec
import pytest
import pytest_asyncio

from actors.journal.ports import EventRange, StreamMark
from actors.outbox import retention as module
from tests.support.domain import OTHER_WALLET_ID, WALLET_ID, wallet_id
from tests.support.relays import LIMITS, RelayFixture, ids
from tests.support.waiting import until


@pytest_asyncio.fixture
async def fixture() -> AsyncIterator[RelayFixture]:
    made = RelayFixture()
    yield made
    await made.close()


async def test_rows_are_deleted_in_pieces_of_bounded_size(
    fixture: RelayFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PRUNE_ROWS_MAX", 15)
    sizes: list[int] = []
    delete = fixture.outbox.delete

    async def noted(
        event_ranges: Collection[EventRange], *, mark: StreamMark | None = None
    ) -> None:
        sizes.append(len(event_ranges))
        await delete(event_ranges, mark=mark)

    monkeypatch.setattr(fixture.outbox, "delete", noted)
    for number in range(40):
        await fixture.commit_and_add(wallet_id(number))
    fixture.start()
    await fixture.until_empty()
    assert sum(sizes) == 40
    assert max(sizes) <= 15


async def test_failed_background_tasks_are_counted(fixture: RelayFixture) -> None:
    fixture.outbox.deletes_unavailable = 2
    fixture.start()
    await fixture.commit_and_add(WALLET_ID)
    await fixture.until_empty()
    assert fixture.relay.failures == {"forget": 2}


async def test_rows_whose_deletion_failed_are_deleted_later_and_not_republished(
    fixture: RelayFixture,
) -> None:
    fixture.outbox.deletes_unavailable = 1
    fixture.start(sweeping=True)
    await fixture.commit_and_add(WALLET_ID, 1)
    await fixture.until_empty()
    assert fixture.stream.ids == ids(WALLET_ID, 1, 2)
    assert len(fixture.stream.calls) == 1


# -- a server that loses its power ----------------------------------------------------------------


@pytest_asyncio.fixture
async def keeping() -> AsyncIterator[RelayFixture]:
    """A fixture whose relay retains rows for longer than the test runs."""
    made = RelayFixture(msgspec.structs.replace(LIMITS, outbox_retention_s=60.0))
    yield made
    await made.close()


async def test_rows_of_acknowledged_events_are_kept_and_are_no_backlog(
    keeping: RelayFixture,
) -> None:
    keeping.start(sweeping=True)
    await keeping.commit_and_add(WALLET_ID, 1)
    await keeping.stream.until_stored(2)
    sweeps = keeping.outbox.sweeps
    await until(lambda: keeping.outbox.sweeps >= sweeps + 3)
    assert list(keeping.outbox.rows) == [(WALLET_ID, 1)]
    assert keeping.relay.backlog == 0
    assert len(keeping.stream.calls) == 1


async def test_what_the_server_lost_in_a_power_failure_is_published_again_first(
    keeping: RelayFixture,
) -> None:
    keeping.start()
    await keeping.commit_and_add(WALLET_ID, 1)
    await keeping.commit_and_add(OTHER_WALLET_ID)
    await keeping.commit_and_add(WALLET_ID, 2)
    await keeping.stream.until_stored(4)
    keeping.stream.lose_power(keeps=1)
    await keeping.commit_and_add(WALLET_ID, 3)
    await keeping.stream.until_stored(5)
    assert [one for one in keeping.stream.ids if one.startswith(WALLET_ID)] == ids(
        WALLET_ID, 1, 2, 3, 4
    )
    assert set(ids(OTHER_WALLET_ID, 1)) < set(keeping.stream.ids)


async def test_a_power_loss_is_noticed_when_nothing_is_published() -> None:
    fixture = RelayFixture(msgspec.structs.replace(LIMITS, outbox_retention_s=0.01))
    fixture.start()
    fixture.outbox.deletes_unavailable = 1_000  # The row still exists at the power failure.
    await fixture.commit_and_add(WALLET_ID, 1)
    await fixture.stream.until_stored(2)
    fixture.stream.lose_power(keeps=0)
    fixture.outbox.deletes_unavailable = 0
    await fixture.until_empty()
    assert fixture.stream.ids == ids(WALLET_ID, 1, 2)
    await fixture.close()


async def test_no_row_is_forgotten_on_the_word_of_a_server_that_says_nothing() -> None:
    fixture = RelayFixture(msgspec.structs.replace(LIMITS, outbox_retention_s=0.01))
    fixture.start()
    await fixture.commit_and_add(WALLET_ID, 1)
    await fixture.stream.until_stored(2)
    fixture.stream.unreachable = True
    await until(lambda: fixture.relay.publish_failures >= 1)
    assert list(fixture.outbox.rows) == [(WALLET_ID, 1)]
    fixture.stream.unreachable = False
    await fixture.until_empty()
    await fixture.close()


async def test_a_reset_while_rows_are_kept_forgets_that_they_were_published() -> None:
    fixture = RelayFixture(msgspec.structs.replace(LIMITS, outbox_retention_s=60.0))
    fixture.start(sweeping=True)
    await fixture.commit_and_add(WALLET_ID, 1)
    await fixture.stream.until_stored(2)
    fixture.relay.reset()
    await fixture.stream.until_called(2)
    await until(lambda: fixture.relay.backlog == 0)
    assert fixture.stream.ids == ids(WALLET_ID, 1, 2), "the stream drops duplicates"
    await fixture.close()
