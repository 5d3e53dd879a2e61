"""A stream that was lost is filled from the journal, once, before anything new goes to it."""

from collections.abc import Sequence

import msgspec
import pytest

from actors import outbox as module
from actors.ports import Span
from tests.support.domain import OTHER_WALLET_ID, WALLET_ID, wallet_id
from tests.support.fake_stream import StreamFault
from tests.support.relays import LIMITS, RelayDesk, ids
from tests.support.waiting import until
from wallet.ids import WalletId


class FakeRefill:
    """Implements `Refill` for relays of one process."""

    def __init__(self, *spans: Span, filled: str | None = None) -> None:
        self.spans = sorted(spans)
        self.is_filled = filled
        self.held = False
        self.begun = 0

    async def filled(self) -> str | None:
        return self.is_filled

    async def begin(self) -> bool:
        self.begun += 1
        if self.held:
            return False
        self.held = True
        return True

    async def end(self, incarnation: str | None) -> None:
        self.held = False
        self.is_filled = incarnation or self.is_filled

    async def written(self, *, after: WalletId | None, limit: int) -> Sequence[Span]:
        return [span for span in self.spans if after is None or span.wallet_id > after][:limit]


async def a_desk(refill: FakeRefill) -> RelayDesk:
    """A relay on a stream that is new, with a journal of two wallets behind it."""
    desk = RelayDesk(refill=refill)
    desk.stream.incarnation = "new"
    await desk.commit(WALLET_ID, 1, 2)
    await desk.commit(OTHER_WALLET_ID, 3)
    desk.outbox.clear_rows()  # All of it was on the stream that was lost.
    return desk


HISTORY = (Span(WALLET_ID, 1, 3), Span(OTHER_WALLET_ID, 1, 2))
FILLED = [*ids(WALLET_ID, 1, 2, 3), *ids(OTHER_WALLET_ID, 1, 2)]


async def test_a_new_stream_gets_the_journal_before_anything_new() -> None:
    refill = FakeRefill(*HISTORY, filled="old")
    desk = await a_desk(refill)
    await desk.commit_and_add(WALLET_ID, 4)
    desk.start()
    await desk.until_empty()
    assert desk.stream.ids == [*FILLED, *ids(WALLET_ID, 4)]
    assert (refill.is_filled, refill.held) == ("new", False)
    await desk.close()


async def test_a_stream_is_known_to_be_full_once_its_disk_must_have_the_journal() -> None:
    refill = FakeRefill(*HISTORY, filled="old")
    desk = RelayDesk(msgspec.structs.replace(LIMITS, outbox_keep_s=60.0), refill=refill)
    desk.stream.incarnation = "new"
    await desk.commit(WALLET_ID, 1, 2)
    await desk.commit(OTHER_WALLET_ID, 3)
    desk.start()
    await desk.stream.until_stored(len(FILLED))
    assert desk.stream.ids == FILLED
    assert (refill.is_filled, refill.held) == ("old", True), "a loss of power now is a loss of all"
    await desk.close()


async def test_a_stream_that_has_the_journal_is_left_alone() -> None:
    desk = await a_desk(FakeRefill(*HISTORY, filled="new"))
    await desk.commit_and_add(WALLET_ID, 4)
    desk.start()
    await desk.until_empty()
    assert desk.stream.ids == ids(WALLET_ID, 4)
    await desk.close()


async def test_while_another_relay_fills_the_stream_this_one_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_REFILL_POLL_S", 0.001)
    refill = FakeRefill(*HISTORY)
    refill.held = True
    desk = await a_desk(refill)
    await desk.commit_and_add(WALLET_ID, 4)
    desk.start()
    await until(lambda: refill.begun >= 3)
    assert desk.stream.calls == []
    await refill.end("new")
    await desk.until_empty()
    assert desk.stream.ids == ids(WALLET_ID, 4)
    await desk.close()


async def test_filling_that_fails_is_not_taken_for_done() -> None:
    refill = FakeRefill(*HISTORY)
    desk = await a_desk(refill)
    desk.stream.faults.append(StreamFault.NOT_STORED)
    desk.start()
    await desk.stream.until_called(1)
    assert refill.is_filled is None
    await until(lambda: refill.is_filled == "new")
    assert desk.stream.ids == FILLED
    assert not refill.held
    await desk.close()


async def test_a_stream_that_is_lost_while_the_relay_runs_is_filled_again() -> None:
    refill = FakeRefill(filled="new")
    desk = await a_desk(refill)
    desk.start()
    await desk.commit_and_add(WALLET_ID, 4)
    await desk.until_empty()

    desk.stream.stored.clear()
    desk.stream.incarnation = "newer"
    desk.stream.faults.append(StreamFault.NOT_STORED)
    refill.spans = sorted([Span(WALLET_ID, 1, 4), HISTORY[1]])
    await desk.commit_and_add(WALLET_ID, 5)
    await desk.until_empty()
    assert desk.stream.ids == [
        *ids(WALLET_ID, 1, 2, 3, 4),
        *ids(OTHER_WALLET_ID, 1, 2),
        *ids(WALLET_ID, 5),
    ]
    assert refill.is_filled == "newer"
    await desk.close()


async def test_a_long_history_goes_in_pieces_that_fit_a_publish() -> None:
    refill = FakeRefill(Span(WALLET_ID, 1, 26))
    desk = RelayDesk(refill=refill)
    desk.stream.incarnation = "new"
    await desk.commit(WALLET_ID, *range(25))
    desk.outbox.clear_rows()
    desk.start()
    await until(lambda: refill.is_filled == "new")
    assert [len(call) for call in desk.stream.calls] == [10, 10, 6]
    assert desk.stream.ids == ids(WALLET_ID, *range(1, 27))
    await desk.close()


async def test_many_wallets_are_read_and_published_together() -> None:
    wallets = [wallet_id(number) for number in range(25)]
    refill = FakeRefill(*(Span(wallet, 1, 1) for wallet in wallets))
    desk = RelayDesk(refill=refill)
    desk.stream.incarnation = "new"
    for wallet in wallets:
        await desk.commit(wallet)
    desk.outbox.rows.clear()
    desk.start()
    await until(lambda: refill.is_filled == "new")
    assert [len(call) for call in desk.stream.calls] == [10, 10, 5]
    assert desk.outbox.reads == 3
    assert desk.stream.ids == [f"{wallet}:1" for wallet in sorted(wallets)]
    await desk.close()


async def test_who_has_not_noticed_the_loss_gets_nothing_in_before_the_journal() -> None:
    refill = FakeRefill(*HISTORY, filled="old")
    desk = await a_desk(refill)
    desk.stream.incarnation = "old"
    desk.start()
    await until(lambda: desk.relay.stream_ready)

    desk.stream.incarnation = "new"  # another relay made it
    await desk.commit_and_add(WALLET_ID, 4)
    await desk.until_empty()
    assert desk.stream.ids == [*FILLED, *ids(WALLET_ID, 4)]
    await desk.close()


async def test_a_stream_lost_during_its_backfill_gets_the_whole_journal() -> None:
    refill = FakeRefill(*HISTORY)
    desk = await a_desk(refill)
    desk.stream.gate.clear()
    desk.start()
    await desk.stream.until_called(1)
    desk.stream.incarnation = "newer"  # deleted, and made by another relay
    desk.stream.gate.set()
    await until(lambda: refill.is_filled is not None)
    assert refill.is_filled == "newer"
    assert desk.stream.ids == FILLED
    await desk.close()
