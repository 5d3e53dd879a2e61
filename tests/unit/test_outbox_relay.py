"""The relay: every committed event reaches the stream once and in order, whatever fails."""

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence

import msgspec
import pytest
import pytest_asyncio

from actors import outbox as module
from actors.outbox import OutboxRelay, RelayLimits
from actors.ports import JournalUnavailable, Span
from tests.support.domain import OTHER_WALLET_ID, WALLET_ID, wallet_id
from tests.support.fake_stream import StreamFault
from tests.support.relays import LIMITS, RelayDesk, ids
from tests.support.waiting import until
from wallet.event_codec import decode_envelope
from wallet.representation import encode_recorded


@pytest_asyncio.fixture
async def desk() -> AsyncIterator[RelayDesk]:
    made = RelayDesk()
    yield made
    await made.close()


async def test_a_committed_event_is_published_and_then_forgotten(desk: RelayDesk) -> None:
    desk.start()
    write = await desk.commit_and_add(WALLET_ID)
    assert desk.relay.backlog == 1
    await desk.until_empty()
    await asyncio.sleep(0)
    (message,) = desk.stream.stored
    (recorded,) = write.recorded
    assert message.id == recorded.id == f"{WALLET_ID}:1"
    assert message.subject.startswith("wallet.events.")
    assert message.subject.endswith(f".{WALLET_ID}.wallet.created")
    assert bytes(decode_envelope(message.payload).data) == encode_recorded(recorded)
    assert (desk.relay.backlog, desk.relay.published) == (0, 1)


async def test_commits_are_published_in_their_order_and_together(desk: RelayDesk) -> None:
    await desk.commit_and_add(WALLET_ID, 1)
    await desk.commit_and_add(OTHER_WALLET_ID)
    await desk.commit_and_add(WALLET_ID, 2, 3)
    desk.start()
    await desk.until_empty()
    assert desk.stream.calls == [
        [*ids(WALLET_ID, 1, 2), *ids(OTHER_WALLET_ID, 1), *ids(WALLET_ID, 3, 4)]
    ]


async def test_a_publish_is_no_larger_than_allowed(desk: RelayDesk) -> None:
    await desk.commit_and_add(WALLET_ID, *range(5))
    await desk.commit_and_add(WALLET_ID, *range(5, 10))
    await desk.commit_and_add(WALLET_ID, *range(10, 35))
    desk.start()
    await desk.until_empty()
    assert [len(call) for call in desk.stream.calls] == [6, 5, 10, 10, 5]
    assert desk.stream.ids == ids(WALLET_ID, *range(1, 37))


async def test_what_comes_while_publishing_waits_for_its_turn(desk: RelayDesk) -> None:
    desk.stream.gate.clear()
    desk.start()
    await desk.commit_and_add(WALLET_ID)
    await desk.stream.until_called(1)
    await desk.commit_and_add(WALLET_ID, 1)
    await desk.commit_and_add(WALLET_ID, 2)
    assert desk.relay.backlog == 3
    desk.stream.gate.set()
    await desk.until_empty()
    assert desk.stream.calls == [ids(WALLET_ID, 1), ids(WALLET_ID, 2, 3)]


@pytest.mark.parametrize("fault", StreamFault)
async def test_a_failed_publish_is_repeated_before_anything_newer(
    desk: RelayDesk, fault: StreamFault
) -> None:
    desk.stream.faults.extend([fault, fault])
    await desk.commit_and_add(WALLET_ID, 1)
    desk.start()
    await desk.stream.until_called(1)
    await desk.commit_and_add(WALLET_ID, 2)
    await desk.until_empty()
    assert desk.stream.calls[:3] == [ids(WALLET_ID, 1, 2)] * 3
    assert desk.stream.ids == ids(WALLET_ID, 1, 2, 3)
    assert desk.relay.publish_failures == 2
    assert desk.relay.stream_ready


async def test_nothing_is_forgotten_before_it_is_acknowledged(desk: RelayDesk) -> None:
    desk.stream.gate.clear()
    desk.start()
    await desk.commit_and_add(WALLET_ID)
    await desk.stream.until_called(1)
    assert desk.outbox.rows
    assert desk.relay.backlog == 1
    desk.stream.gate.set()
    await desk.until_empty()


async def test_a_stream_that_is_away_is_waited_for(desk: RelayDesk) -> None:
    desk.stream.unreachable = True
    desk.start()
    await desk.commit_and_add(WALLET_ID, 1)
    await until(lambda: desk.relay.publish_failures >= 2)
    assert not desk.relay.stream_ready
    assert (desk.relay.backlog, desk.stream.stored) == (2, [])
    desk.stream.unreachable = False
    await desk.until_empty()
    assert desk.stream.ids == ids(WALLET_ID, 1, 2)
    assert desk.relay.stream_ready


# -- memory --------------------------------------------------------------------------------------


async def test_warm_events_are_never_read_back(desk: RelayDesk) -> None:
    desk.start()
    await desk.commit_and_add(WALLET_ID, 1, 2)
    await desk.until_empty()
    assert desk.outbox.spans_read == []


async def test_events_beyond_the_memory_s_bound_are_read_from_the_journal() -> None:
    desk = RelayDesk(
        RelayLimits(publish_batch_max=4, outbox_memory_max=4, outbox_sweep_s=1, partitions=4)
    )
    await desk.commit_and_add(WALLET_ID, 1, 2)  # 3 events: in memory
    await desk.commit_and_add(WALLET_ID, 3, 4)  # 2 more would be too many
    await desk.commit_and_add(WALLET_ID, 5)  # 1 fits
    desk.start()
    await desk.until_empty()
    await asyncio.sleep(0)
    assert desk.outbox.spans_read == [Span(WALLET_ID, 4, 5)]
    assert desk.stream.ids == ids(WALLET_ID, 1, 2, 3, 4, 5, 6)

    await desk.commit_and_add(WALLET_ID, 6, 7, 8, 9)  # All 4 places are free again.
    await desk.until_empty()
    assert desk.outbox.spans_read == [Span(WALLET_ID, 4, 5)]
    await desk.close()


async def test_a_span_read_back_is_published_as_it_would_have_been_from_memory(
    desk: RelayDesk,
) -> None:
    write = await desk.commit(WALLET_ID, 1)
    desk.relay.add_unread([Span(WALLET_ID, 1, 2)])
    desk.start()
    await desk.until_empty()
    data = [bytes(decode_envelope(message.payload).data) for message in desk.stream.stored]
    assert data == [encode_recorded(recorded) for recorded in write.recorded]


async def test_what_one_publish_needs_is_read_in_one_query(desk: RelayDesk) -> None:
    wallets = [wallet_id(number) for number in range(30)]
    for wallet in wallets:
        await desk.commit(wallet)
    desk.relay.add_unread([Span(wallet, 1, 1) for wallet in wallets])
    desk.start()
    await desk.until_empty()
    assert [len(call) for call in desk.stream.calls] == [10, 10, 10]
    assert desk.outbox.reads == 3
    assert desk.stream.ids == [f"{wallet}:1" for wallet in wallets]


async def test_the_next_publish_is_read_while_this_one_is_under_way(desk: RelayDesk) -> None:
    wallets = [wallet_id(number) for number in range(30)]
    for wallet in wallets:
        await desk.commit(wallet)
    desk.relay.add_unread([Span(wallet, 1, 1) for wallet in wallets])
    desk.stream.gate.clear()
    desk.start()
    await desk.stream.until_called(1)
    await until(lambda: desk.outbox.reads == 2)
    assert len(desk.stream.calls) == 1
    desk.stream.gate.set()
    await desk.until_empty()


async def test_what_could_not_be_read_ahead_is_read_in_its_turn(desk: RelayDesk) -> None:
    wallets = [wallet_id(number) for number in range(20)]
    for wallet in wallets:
        await desk.commit(wallet)
    desk.relay.add_unread([Span(wallet, 1, 1) for wallet in wallets])
    desk.stream.gate.clear()
    desk.start()
    await desk.stream.until_called(1)
    desk.outbox.reads_unavailable = 1
    await until(lambda: desk.outbox.reads_unavailable == 0 or desk.outbox.reads == 2)
    desk.stream.gate.set()
    await desk.until_empty()
    assert desk.stream.ids == [f"{wallet}:1" for wallet in wallets]


async def test_a_journal_that_is_away_is_waited_for(desk: RelayDesk) -> None:
    await desk.commit(WALLET_ID, 1)
    desk.outbox.reads_unavailable = 2
    desk.relay.add_unread([Span(WALLET_ID, 1, 2)])
    desk.start()
    await desk.until_empty()
    assert desk.stream.calls == [ids(WALLET_ID, 1, 2)]


# -- what predecessors left ------------------------------------------------------------------------


async def test_what_loading_a_wallet_found_goes_before_anything_new(desk: RelayDesk) -> None:
    await desk.commit(WALLET_ID, 1)
    desk.relay.add_unread([Span(WALLET_ID, 1, 2)])
    await desk.commit_and_add(WALLET_ID, 2)
    desk.start()
    await desk.until_empty()
    assert desk.stream.ids == ids(WALLET_ID, 1, 2, 3)


async def test_a_span_that_is_queued_is_not_queued_again(desk: RelayDesk) -> None:
    write = await desk.commit_and_add(WALLET_ID, 1)
    desk.relay.add_unread(write.spans() * 2)
    assert desk.relay.backlog == 2
    desk.start()
    await desk.until_empty()
    assert desk.stream.calls == [ids(WALLET_ID, 1, 2)]


async def test_a_row_swept_before_its_shard_reports_it_is_published_once(
    desk: RelayDesk,
) -> None:
    # Committed, and the sweep runs before the shard's task does.
    write = await desk.commit(WALLET_ID, 1)
    desk.relay.add_unread(await desk.outbox.unpublished(limit=10))
    desk.add(write)
    following = await desk.commit_and_add(WALLET_ID, 2)
    assert desk.relay.backlog == 3
    desk.start()
    await desk.until_empty()
    await asyncio.sleep(0)
    assert desk.stream.calls == [ids(WALLET_ID, 1, 2, 3)]
    assert following.spans() == [Span(WALLET_ID, 3, 3)]
    assert desk.relay.backlog == 0


async def test_a_span_reported_after_its_relay_is_dropped_by_the_stream(
    desk: RelayDesk,
) -> None:
    write = await desk.commit(WALLET_ID, 1)
    desk.relay.add_unread(await desk.outbox.unpublished(limit=10))
    desk.start()
    await desk.until_empty()
    desk.add(write)
    await desk.stream.until_called(2)
    await desk.commit_and_add(WALLET_ID, 2)
    await desk.until_empty()
    assert desk.stream.ids == ids(WALLET_ID, 1, 2, 3)


async def test_the_sweep_finds_what_a_predecessor_left(desk: RelayDesk) -> None:
    await desk.commit(WALLET_ID, 1)
    await desk.commit(OTHER_WALLET_ID)
    await desk.commit(WALLET_ID, 2)
    desk.start(sweeping=True)
    await desk.until_empty()
    of_one = [one for one in desk.stream.ids if one.startswith(WALLET_ID)]
    assert of_one == ids(WALLET_ID, 1, 2, 3)
    assert set(desk.stream.ids) - set(of_one) == {f"{OTHER_WALLET_ID}:1"}


async def test_consecutive_rows_of_a_wallet_are_read_and_deleted_as_one(
    desk: RelayDesk,
) -> None:
    other = wallet_id(7)
    for number in range(1, 13):
        await desk.commit(WALLET_ID, number)
    await desk.commit(other)
    rows = await desk.outbox.unpublished(limit=100)
    assert len(rows) == 13
    desk.relay.add_unread(rows)
    desk.relay.add_unread(rows)  # All known by now, wherever they begin.
    desk.start()
    await desk.until_empty()
    assert desk.outbox.spans_read == sorted(
        [Span(WALLET_ID, 1, 10), Span(WALLET_ID, 11, 13), Span(other, 1, 1)]
    )
    assert desk.stream.ids == [
        one for span in desk.outbox.spans_read for one in ids(span[0], *range(span[1], span[2] + 1))
    ]
    desk.relay.add_unread(rows)  # Rows that come back, after a crash of Postgres, are not known.
    assert desk.relay.backlog == 14


async def test_the_first_sweep_does_not_wait_once_the_stream_is_there() -> None:
    desk = RelayDesk(msgspec.structs.replace(LIMITS, outbox_sweep_s=60.0))
    await desk.commit(WALLET_ID, 1)
    desk.start(sweeping=True)
    await desk.until_empty()
    await desk.close()


async def test_the_sweep_leaves_other_shards_wallets_to_them() -> None:
    desk = RelayDesk(owns=lambda wallet: wallet == WALLET_ID)
    await desk.commit(WALLET_ID)
    await desk.commit(OTHER_WALLET_ID)
    desk.start(sweeping=True)
    await desk.stream.until_stored(1)
    swept = desk.outbox.sweeps
    await until(lambda: desk.outbox.sweeps >= swept + 3)
    assert desk.stream.ids == ids(WALLET_ID, 1)
    assert list(desk.outbox.rows) == [(OTHER_WALLET_ID, 1)]
    await desk.close()


async def test_rows_of_others_hide_none_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SWEEP_PAGE", 3)
    ours = wallet_id(20)
    desk = RelayDesk(owns=lambda wallet: wallet == ours)
    for number in range(21):
        await desk.commit(wallet_id(number), 1)
        await desk.commit(wallet_id(number), 2)
    desk.start(sweeping=True)
    await desk.stream.until_stored(3)
    assert desk.stream.ids == ids(ours, 1, 2, 3)
    await desk.close()


async def test_a_sweep_waits_while_much_is_queued(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SWEEP_PAGE", 2)
    monkeypatch.setattr(module, "_SWEEP_AHEAD", 5)
    desk = RelayDesk()
    wallets = [wallet_id(number) for number in range(40)]
    for wallet in wallets:
        await desk.commit(wallet)
    desk.stream.gate.clear()
    desk.start(sweeping=True)
    await desk.stream.until_called(1)
    await until(lambda: desk.relay.backlog == 6)
    desk.stream.gate.set()
    await desk.until_empty()
    assert desk.stream.ids == [f"{wallet}:1" for wallet in wallets]
    assert desk.outbox.sweeps <= 2, "the sweep went on where it had stopped"
    await desk.close()


async def test_the_slower_a_sweep_the_longer_the_pause_after_it(
    desk: RelayDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    rest = desk.relay._rest

    async def noted(seconds: float) -> None:
        pauses.append(seconds)
        await rest(seconds)

    took_s = iter((0.0, 0.0, 0.4))

    async def sweep_once() -> float:
        return next(took_s, 0.0)

    monkeypatch.setattr(desk.relay, "_rest", noted)
    monkeypatch.setattr(desk.relay, "_sweep_once", sweep_once)
    desk.relay.stream_ready = True
    desk.start(sweeping=True)
    await until(lambda: len(pauses) > 2)
    assert pauses[:3] == [LIMITS.outbox_sweep_s, LIMITS.outbox_sweep_s, pytest.approx(20.0)]


# -- forgetting everything ---------------------------------------------------------------------


async def test_after_a_reset_everything_is_found_again_in_the_table(desk: RelayDesk) -> None:
    desk.stream.unreachable = True
    desk.start(sweeping=True)
    await desk.commit_and_add(WALLET_ID, 1)
    await desk.commit_and_add(OTHER_WALLET_ID)
    await until(lambda: desk.relay.publish_failures >= 1)
    desk.relay.reset()
    assert desk.relay.backlog == 0
    desk.stream.unreachable = False
    await desk.until_empty()
    assert sorted(desk.stream.ids) == ids(WALLET_ID, 1, 2) + ids(OTHER_WALLET_ID, 1)


async def test_after_a_reset_nothing_is_published_that_the_table_does_not_have(
    desk: RelayDesk,
) -> None:
    desk.stream.faults.append(StreamFault.NOT_STORED)
    desk.stream.gate.clear()
    desk.start(sweeping=True)
    await desk.commit_and_add(WALLET_ID, 1)
    await desk.stream.until_called(1)
    lost = desk.outbox.database.outbox.pop(WALLET_ID)  # another server, which never had it
    assert lost
    desk.relay.reset()
    desk.stream.gate.set()
    await desk.commit_and_add(OTHER_WALLET_ID)
    await desk.until_empty()
    assert desk.stream.ids == ids(OTHER_WALLET_ID, 1)


async def test_a_reset_while_rows_are_kept_forgets_that_they_were_published() -> None:
    desk = RelayDesk(msgspec.structs.replace(LIMITS, outbox_keep_s=60.0))
    desk.start(sweeping=True)
    await desk.commit_and_add(WALLET_ID, 1)
    await desk.stream.until_stored(2)
    desk.relay.reset()
    await desk.stream.until_called(2)
    await until(lambda: desk.relay.backlog == 0)
    assert desk.stream.ids == ids(WALLET_ID, 1, 2), "the stream drops what it has"
    await desk.close()


# -- chores -------------------------------------------------------------------------------------


async def test_rows_are_deleted_in_pieces_of_bounded_size(
    desk: RelayDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_FORGET_MAX", 15)
    sizes: list[int] = []
    delete = desk.outbox.delete

    async def noted(spans: Collection[Span]) -> None:
        sizes.append(len(spans))
        await delete(spans)

    monkeypatch.setattr(desk.outbox, "delete", noted)
    for number in range(40):
        await desk.commit_and_add(wallet_id(number))
    desk.start()
    await desk.until_empty()
    assert sum(sizes) == 40
    assert max(sizes) <= 15


async def test_chores_that_fail_are_counted(desk: RelayDesk) -> None:
    desk.outbox.deletes_unavailable = 2
    desk.start()
    await desk.commit_and_add(WALLET_ID)
    await desk.until_empty()
    assert desk.relay.failures == {"forget": 2}


async def test_rows_whose_deletion_failed_are_deleted_later_and_not_republished(
    desk: RelayDesk,
) -> None:
    desk.outbox.deletes_unavailable = 1
    desk.start(sweeping=True)
    await desk.commit_and_add(WALLET_ID, 1)
    await desk.until_empty()
    assert desk.stream.ids == ids(WALLET_ID, 1, 2)
    assert len(desk.stream.calls) == 1


# -- a server that loses its power -------------------------------------------------------------


@pytest_asyncio.fixture
async def keeping() -> AsyncIterator[RelayDesk]:
    """A desk whose relay keeps rows for longer than the test takes."""
    made = RelayDesk(msgspec.structs.replace(LIMITS, outbox_keep_s=60.0))
    yield made
    await made.close()


async def test_rows_of_acknowledged_events_are_kept_and_are_no_backlog(keeping: RelayDesk) -> None:
    keeping.start(sweeping=True)
    await keeping.commit_and_add(WALLET_ID, 1)
    await keeping.stream.until_stored(2)
    sweeps = keeping.outbox.sweeps
    await until(lambda: keeping.outbox.sweeps >= sweeps + 3)
    assert list(keeping.outbox.rows) == [(WALLET_ID, 1)]
    assert keeping.relay.backlog == 0
    assert len(keeping.stream.calls) == 1


async def test_what_the_server_lost_in_a_power_failure_is_published_again_first(
    keeping: RelayDesk,
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
    desk = RelayDesk(msgspec.structs.replace(LIMITS, outbox_keep_s=0.01))
    desk.start()
    desk.outbox.deletes_unavailable = 1_000  # The row is still there when the power goes.
    await desk.commit_and_add(WALLET_ID, 1)
    await desk.stream.until_stored(2)
    desk.stream.lose_power(keeps=0)
    desk.outbox.deletes_unavailable = 0
    await desk.until_empty()
    assert desk.stream.ids == ids(WALLET_ID, 1, 2)
    await desk.close()


async def test_no_row_is_forgotten_on_the_word_of_a_server_that_says_nothing() -> None:
    desk = RelayDesk(msgspec.structs.replace(LIMITS, outbox_keep_s=0.01))
    desk.start()
    await desk.commit_and_add(WALLET_ID, 1)
    await desk.stream.until_stored(2)
    desk.stream.unreachable = True
    await until(lambda: desk.relay.publish_failures >= 1)
    assert list(desk.outbox.rows) == [(WALLET_ID, 1)]
    desk.stream.unreachable = False
    await desk.until_empty()
    await desk.close()


async def test_the_first_sweep_takes_rows_of_any_age_and_later_sweeps_old_ones() -> None:
    desk = RelayDesk(msgspec.structs.replace(LIMITS, outbox_keep_s=60.0))
    await desk.commit(WALLET_ID)
    desk.start(sweeping=True)
    await desk.stream.until_stored(1)
    await desk.commit(OTHER_WALLET_ID)
    sweeps = desk.outbox.sweeps
    await until(lambda: desk.outbox.sweeps >= sweeps + 3)
    assert desk.stream.ids == ids(WALLET_ID, 1)
    await desk.close()


async def test_an_outbox_that_can_not_be_swept_is_swept_later(
    desk: RelayDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    await desk.commit(WALLET_ID)
    failures = 2
    unpublished = desk.outbox.unpublished

    async def failing(
        *, limit: int, after: Span | None = None, older_than_s: float = 0.0
    ) -> Sequence[Span]:
        nonlocal failures
        if failures:
            failures -= 1
            raise JournalUnavailable("told to be away")
        return await unpublished(limit=limit, after=after, older_than_s=older_than_s)

    monkeypatch.setattr(desk.outbox, "unpublished", failing)
    desk.start(sweeping=True)
    await desk.until_empty()
    assert desk.stream.ids == ids(WALLET_ID, 1)


async def test_many_wallets_of_several_relays_keep_their_version_order() -> None:
    one, other = RelayDesk(), RelayDesk()
    other.outbox, other.stream = one.outbox, one.stream
    other.relay = OutboxRelay(
        outbox=one.outbox, stream=one.stream, limits=LIMITS, owns=lambda _: True
    )
    one.start(sweeping=True)
    other.start(sweeping=True)
    wallets = [wallet_id(number) for number in range(5)]
    for round_number in range(6):
        for wallet in wallets:
            owner = (one, other)[(round_number + wallets.index(wallet)) % 2]
            # As a shard does when another has written: what is unpublished goes first.
            owner.relay.add_unread(
                [span for span in await one.outbox.unpublished(limit=100) if span[0] == wallet]
            )
            await owner.commit_and_add(wallet, round_number)
    await one.until_empty()
    await one.close()
    await other.close()
    for wallet in wallets:
        versions = len(one.outbox.events[wallet])
        of_wallet = [message for message in one.stream.ids if message.startswith(wallet)]
        assert of_wallet == ids(wallet, *range(1, versions + 1))
