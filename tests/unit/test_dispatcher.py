"""The dispatcher: commands share calls, and every command is answered even if shards die."""

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise

import pytest
import pytest_asyncio

from actors.dispatch import dispatcher as module
from actors.dispatch.ring import ring_of
from actors.rpc.messages import Failure, FailureCode
from tests.support.dispatcher_fixture import (
    DispatcherFixture,
    make_command_request,
)
from tests.support.domain import wallet_id
from tests.support.scripted_shards import reply_to


@pytest_asyncio.fixture
async def fixture(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[DispatcherFixture]:
    """One shard, one call at a time, and no delay before a retry."""
    monkeypatch.setattr(module, "_backoff_s", lambda _failures: 0.0)
    made = DispatcherFixture()
    yield made
    await made.close()


async def test_a_request_is_answered_with_its_shard_s_reply(fixture: DispatcherFixture) -> None:
    (asking,) = await fixture.request("r1")
    call = await fixture.shards.next_call()
    assert call.requests[0].attempt == 1
    call.reply()
    assert await asking == reply_to("r1")


async def test_requests_of_one_loop_iteration_share_a_call(
    fixture: DispatcherFixture,
) -> None:
    tasks = await fixture.request("r1", "r2", "r3")
    call = await fixture.shards.next_call()
    assert call.names == ["r1", "r2", "r3"]
    call.reply()
    await asyncio.gather(*tasks)


async def test_what_queues_while_a_call_is_under_way_travels_together(
    fixture: DispatcherFixture,
) -> None:
    tasks = [
        *await fixture.request("r1"),
        *await fixture.request("r2"),
        *await fixture.request("r3", "r4"),
    ]
    first = await fixture.shards.next_call()
    assert first.names == ["r1"]
    assert fixture.dispatcher.queued == [3]
    first.reply()
    second = await fixture.shards.next_call()
    assert second.names == ["r2", "r3", "r4"]
    assert fixture.dispatcher.queued == [0]
    second.reply()
    assert await asyncio.gather(*tasks) == [reply_to(name) for name in ("r1", "r2", "r3", "r4")]


async def test_no_more_calls_are_open_than_allowed() -> None:
    fixture = DispatcherFixture(shard_calls_in_flight_max=3)
    tasks = []
    for number in range(10):
        tasks += await fixture.request(f"r{number}", wallet_id=wallet_id(number))
    calls = [await fixture.shards.next_call() for _ in range(3)]
    assert fixture.shards.no_calls()
    for call in calls:
        call.reply()
    (await fixture.shards.next_call()).reply()
    await asyncio.gather(*tasks)
    assert fixture.shards.most_open == 3


async def test_a_call_carries_no_more_commands_than_allowed() -> None:
    fixture = DispatcherFixture(call_commands_max=5)
    await fixture.request("first")
    await fixture.request("r1", "r2", items=2)
    await fixture.request("huge", items=9)
    await fixture.request("last")
    carried = []
    for _ in range(4):
        call = await fixture.shards.next_call()
        carried.append(call.names)
        call.reply()
    assert carried == [["first"], ["r1", "r2"], ["huge"], ["last"]]
    await fixture.close()


async def test_each_wallet_goes_to_the_shard_of_the_ring() -> None:
    fixture = DispatcherFixture(shard_count=4)
    wallets = [wallet_id(number) for number in range(12)]
    for wallet in wallets:
        await fixture.request(wallet, wallet_id=wallet)
    carried: dict[str, int] = {}
    while len(carried) < len(wallets):
        call = await fixture.shards.next_call()
        carried |= dict.fromkeys(call.names, call.shard)
        call.reply()
    assert carried == {wallet: ring_of(4).shard_of(wallet) for wallet in wallets}
    await asyncio.gather(*fixture.asking)


async def test_a_dead_shard_does_not_hold_up_the_others() -> None:
    fixture = DispatcherFixture(shard_count=2)
    one, other = wallet_id(0), wallet_id(2)
    assert ring_of(2).shard_of(one) != ring_of(2).shard_of(other)
    await fixture.request("stuck", wallet_id=one)
    await fixture.shards.next_call()
    (asking,) = await fixture.request("free", wallet_id=other)
    (await fixture.shards.next_call()).reply()
    assert await asking == reply_to("free")
    await fixture.close()


# -- bounds --------------------------------------------------------------------------------------


async def test_a_full_queue_refuses_at_once_and_says_that_nothing_was_applied() -> None:
    fixture = DispatcherFixture(ingress_queue_max=2)
    await fixture.request("called")
    await fixture.request("q1", "q2")
    reply = await fixture.dispatcher.submit(make_command_request("too many"))
    assert isinstance(reply, Failure)
    assert (reply.code, reply.applied) == (FailureCode.OVERLOADED, "no")
    (await fixture.shards.next_call()).reply()
    assert (await fixture.shards.next_call()).names == ["q1", "q2"]
    await fixture.close()


async def test_the_queue_s_bound_counts_commands() -> None:
    fixture = DispatcherFixture(ingress_queue_max=3)
    await fixture.request("called")
    await fixture.request("q1", items=2)
    refused = await fixture.dispatcher.submit(make_command_request("too many", items=2))
    assert isinstance(refused, Failure)
    await fixture.request("fits")
    assert fixture.dispatcher.queued == [3]
    await fixture.close()


async def test_a_large_request_fits_into_an_empty_queue() -> None:
    fixture = DispatcherFixture(ingress_queue_max=3)
    await fixture.request("called")
    await fixture.request("huge", items=9)
    assert fixture.dispatcher.queued == [9]
    await fixture.close()


# -- delivery -------------------------------------------------------------------------------------


async def test_a_call_lost_with_its_shard_is_delivered_as_a_second_attempt(
    fixture: DispatcherFixture,
) -> None:
    (asking,) = await fixture.request("r1")
    first = await fixture.shards.next_call()
    first.die()
    second = await fixture.shards.next_call()
    assert second.requests[0].attempt == 2
    assert second.requests[0].items == first.requests[0].items
    assert second.requests[0].timeout_s < first.requests[0].timeout_s
    second.die()
    third = await fixture.shards.next_call()
    assert third.requests[0].attempt == 3
    third.reply()
    assert await asking == reply_to("r1")


async def test_a_call_that_never_reached_its_shard_is_no_second_attempt(
    fixture: DispatcherFixture,
) -> None:
    (asking,) = await fixture.request("r1")
    (await fixture.shards.next_call()).die(delivered=False)
    again = await fixture.shards.next_call()
    assert again.requests[0].attempt == 1
    again.reply()
    assert await asking == reply_to("r1")


async def test_a_delivery_contains_the_client_s_remaining_time(fixture: DispatcherFixture) -> None:
    await fixture.request("first")
    first = await fixture.shards.next_call()
    await fixture.request("queued", timeout_s=5.0)
    await asyncio.sleep(0.02)  # Time spent in the queue.
    first.reply()
    (queued,) = (await fixture.shards.next_call()).requests
    assert 0 < queued.timeout_s <= 5.0 - 0.02


@pytest.mark.parametrize(("arrived", "applied"), [(True, "unknown"), (False, "no")])
async def test_a_request_that_reaches_no_shard_is_given_up_before_its_deadline(
    monkeypatch: pytest.MonkeyPatch, arrived: bool, applied: str
) -> None:
    monkeypatch.setattr(module, "_backoff_s", lambda _failures: 0.0)
    fixture = DispatcherFixture(shard_unreachable_timeout_s=0)
    (asking,) = await fixture.request("r1", timeout_s=60.0)
    (await fixture.shards.next_call()).die(delivered=arrived)

    reply = await asking

    assert isinstance(reply, Failure)
    assert (reply.code, reply.applied) == (FailureCode.UNAVAILABLE, applied)
    assert fixture.shards.no_calls()


async def test_a_deadline_that_passes_in_the_queue_means_nothing_was_applied(
    fixture: DispatcherFixture,
) -> None:
    await fixture.request("first")
    first = await fixture.shards.next_call()
    late = await fixture.dispatcher.submit(make_command_request("late", timeout_s=0.01))
    assert isinstance(late, Failure)
    assert late.code is FailureCode.DEADLINE_EXCEEDED
    assert late.applied == "no"

    # As reported, it is never delivered.
    await fixture.request("next")
    first.reply()
    assert (await fixture.shards.next_call()).names == ["next"]


async def test_a_deadline_that_passes_after_a_delivery_leaves_it_open(
    fixture: DispatcherFixture,
) -> None:
    reply = await fixture.dispatcher.submit(make_command_request("r1", timeout_s=0.01))
    assert isinstance(reply, Failure)
    assert reply.code is FailureCode.DEADLINE_EXCEEDED
    assert reply.applied == "unknown"


@pytest.mark.parametrize(("arrived", "applied"), [(True, "unknown"), (False, "no")])
async def test_a_deadline_between_tries_reports_whether_one_was_delivered(
    fixture: DispatcherFixture, monkeypatch: pytest.MonkeyPatch, arrived: bool, applied: str
) -> None:
    (asking,) = await fixture.request("r1", timeout_s=0.3)
    (await fixture.shards.next_call()).die(delivered=arrived)
    second = await fixture.shards.next_call()
    monkeypatch.setattr(module, "_backoff_s", lambda _failures: 60.0)
    second.die(delivered=False)
    reply = await asking
    assert isinstance(reply, Failure)
    assert reply.code is FailureCode.DEADLINE_EXCEEDED
    assert reply.applied == applied


async def test_a_call_that_nobody_waits_for_any_more_is_given_up(
    fixture: DispatcherFixture,
) -> None:
    reply = await fixture.dispatcher.submit(make_command_request("r1", timeout_s=0.01))
    assert isinstance(reply, Failure)
    await fixture.shards.next_call()  # Its shard hangs: there is no reply.
    (asking,) = await fixture.request("r2")
    (await fixture.shards.next_call()).reply()
    assert await asking == reply_to("r2")


async def test_a_cancelled_request_is_not_delivered_and_the_others_are(
    fixture: DispatcherFixture,
) -> None:
    await fixture.request("first")
    first = await fixture.shards.next_call()
    gone, stays = await fixture.request("gone", "stays")
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    first.reply()
    call = await fixture.shards.next_call()
    assert call.names == ["stays"]
    call.reply()
    assert await stays == reply_to("stays")


async def test_who_goes_while_its_call_is_under_way_is_not_delivered_again(
    fixture: DispatcherFixture,
) -> None:
    await fixture.request("first")
    first = await fixture.shards.next_call()
    gone, _stays = await fixture.request("gone", "stays")
    first.reply()
    call = await fixture.shards.next_call()
    assert call.names == ["gone", "stays"]
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    call.die()
    assert (await fixture.shards.next_call()).names == ["stays"]


async def test_a_bug_in_a_call_reaches_those_who_wait_for_it_and_nobody_else(
    fixture: DispatcherFixture,
) -> None:
    (asking,) = await fixture.request("r1")
    (await fixture.shards.next_call()).fail(RuntimeError("a bug"))
    with pytest.raises(RuntimeError, match="a bug"):
        await asking
    (following,) = await fixture.request("r2")
    (await fixture.shards.next_call()).reply()
    assert await following == reply_to("r2")


async def test_a_reply_too_few_is_a_bug(fixture: DispatcherFixture) -> None:
    await fixture.request("first")
    first = await fixture.shards.next_call()
    tasks = await fixture.request("r1", "r2")
    first.reply()
    (await fixture.shards.next_call()).reply([reply_to("r1")])
    assert await tasks[0] == reply_to("r1")
    with pytest.raises(AssertionError, match="INV-6 each request has one reply: 1 replies to 2"):
        await tasks[1]


async def test_replies_of_an_overloaded_wallet_yield_to_other_wallets(
    fixture: DispatcherFixture,
) -> None:
    await fixture.request("first")
    first = await fixture.shards.next_call()
    many = [f"r{number}" for number in range(40)]
    tasks = await fixture.request(*many)
    first.reply()
    call = await fixture.shards.next_call()
    call.reply()
    answered: list[int] = []
    while not all(task.done() for task in tasks):
        await asyncio.sleep(0)
        answered.append(sum(task.done() for task in tasks))
    # Each loop iteration resolves some of them, and other wallets are served in between.
    steps = [after - before for before, after in pairwise([0, *answered])]
    assert max(steps) <= 8
    assert [await task for task in tasks] == [reply_to(name) for name in many]


def test_a_second_try_waits_a_little_and_never_long() -> None:
    waits = [module._backoff_s(failures) for failures in range(1, 20)]
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (0.04, 0.25)
