"""The mailbox: a fair queue (`test_fair_queue`) of requests that can be awaited."""

import asyncio

import pytest

from actors.fair_queue import Overflow
from actors.rpc.messages import Applied, KeyClaimed
from actors.shard.mailbox import Countdown, Mailbox, QueuedRequest
from tests.support.domain import wallet_id
from wallet.commands import CommandItem, CommandRequest, CreateTransfer
from wallet.ids import TransferId, WalletId

A, B, C = wallet_id(1), wallet_id(2), wallet_id(3)
FIRST, SECOND = Applied(id="1", version=1, body=b"{}"), KeyClaimed(request_id="r")
ITEM = CommandItem(
    command=CreateTransfer(
        transfer_id=TransferId("t"), type="debit", status="completed", amount="1"
    )
)


def entry(
    wallet: WalletId, name: str = "", *, items: int = 1, countdown: Countdown | None = None
) -> QueuedRequest:
    request = CommandRequest(
        wallet_id=wallet, items=(ITEM,) * items, request_id=name, timeout_s=3.0
    )
    return QueuedRequest(request, countdown or Countdown(1), queued_at=100.0)


def put(mailbox: Mailbox, wallet: WalletId, *names: str, items: int = 1) -> None:
    for name in names:
        assert mailbox.put(entry(wallet, name, items=items)) is None


def drain(mailbox: Mailbox, items_max: int = 100, wallet_items_max: int = 100) -> list[str]:
    taken = mailbox.drain(items_max=items_max, wallet_items_max=wallet_items_max)
    return [one.request.request_id for one in taken]


def make_mailbox(items_max: int = 100, wallet_items_max: int = 100) -> Mailbox:
    return Mailbox(items_max=items_max, wallet_items_max=wallet_items_max)


async def test_whatever_has_queued_leaves_at_once_and_each_wallet_in_its_order() -> None:
    mailbox = make_mailbox()
    put(mailbox, A, "a1")
    put(mailbox, B, "b1")
    put(mailbox, A, "a2")
    assert drain(mailbox) == ["a1", "a2", "b1"]
    assert mailbox.items == 0
    assert drain(mailbox) == []


async def test_a_batch_takes_no_more_than_its_bound_and_the_rest_stays_in_order() -> None:
    mailbox = make_mailbox()
    put(mailbox, A, *"12345")
    assert drain(mailbox, items_max=2) == ["1", "2"]
    assert mailbox.items == 3
    assert drain(mailbox, items_max=2) == ["3", "4"]
    assert drain(mailbox, items_max=2) == ["5"]


async def test_a_wallet_alone_may_have_the_whole_batch() -> None:
    mailbox = make_mailbox()
    put(mailbox, A, *"123456")
    assert drain(mailbox, items_max=5, wallet_items_max=2) == list("12345")


async def test_bounds_count_items_and_not_requests() -> None:
    mailbox = make_mailbox(items_max=10, wallet_items_max=6)
    put(mailbox, A, "1", items=4)
    assert mailbox.put(entry(A, items=3)) is Overflow.WALLET
    put(mailbox, B, "2", items=6)
    assert mailbox.put(entry(C)) is Overflow.QUEUE
    assert mailbox.items == 10


async def test_waiting_ends_when_something_is_queued() -> None:
    mailbox = make_mailbox()
    waiting = asyncio.create_task(mailbox.wait())
    await asyncio.sleep(0)
    assert not waiting.done()
    put(mailbox, A, "1", "2")
    await asyncio.wait_for(waiting, 1)
    drain(mailbox, items_max=1)
    await asyncio.wait_for(mailbox.wait(), 1)  # one is left
    drain(mailbox)
    waiting = asyncio.create_task(mailbox.wait())
    await asyncio.sleep(0)
    assert not waiting.done()
    waiting.cancel()


async def test_a_call_is_done_when_all_of_it_is_answered_in_any_order() -> None:
    countdown = Countdown(2)
    first, second = [entry(A, name, countdown=countdown) for name in "12"]
    waiting = asyncio.create_task(countdown.wait())
    second.answer(SECOND)
    await asyncio.sleep(0)
    assert not waiting.done()
    first.answer(FIRST)
    await asyncio.wait_for(waiting, 1)
    assert (first.result, second.result) == (FIRST, SECOND)


async def test_answering_twice_is_a_bug() -> None:
    one = entry(A)
    one.answer(FIRST)
    with pytest.raises(AssertionError, match="answered once"):
        one.answer(FIRST)


async def test_an_entry_without_an_answer_has_no_result() -> None:
    with pytest.raises(AssertionError, match="once it is answered"):
        _ = entry(A).result


async def test_a_deadline_counts_from_the_arrival() -> None:
    assert entry(A).deadline == 103.0
