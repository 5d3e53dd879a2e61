"""The dispatcher: commands share calls, and every command is answered even if shards die."""

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import pytest
import pytest_asyncio

from actors.dispatch import dispatcher as module
from actors.dispatch import pending_calls
from actors.dispatch.dispatcher import Dispatcher, DispatcherLimits
from actors.dispatch.ring import ring_of
from actors.rpc.messages import Failure, FailureCode, RequestResult
from tests.support.domain import WALLET_ID, transfer_id, wallet_id
from tests.support.scripted_shards import ScriptedShards, reply_to
from tests.support.write_side import debit
from wallet.commands import CommandItem, CommandRequest

ITEM = CommandItem(command=debit("1", transfer_id=transfer_id(1)))

OTHER = wallet_id(7)

Asking = asyncio.Task[RequestResult]


class DispatcherFixture:
    """A dispatcher, its shards, and the callers that wait for it."""

    def __init__(self, **limits: int) -> None:
        self.shards = ScriptedShards()
        self.dispatcher = Dispatcher(
            self.shards,
            DispatcherLimits(
                **{
                    "shard_count": 1,
                    "ingress_queue_max": 100,
                    "ingress_wallet_queue_max": 100,
                    "shard_calls_in_flight_max": 1,
                    "call_commands_max": 50,
                    "call_wallet_commands_max": 50,
                    "shard_unreachable_timeout_s": 60,
                }
                | limits
            ),
        )
        self.asking: list[Asking] = []

    async def request(self, *names: str, **fields: Any) -> list[Asking]:
        """Send requests in one loop iteration; returns when all are queued or in flight."""
        tasks = [
            asyncio.create_task(self.dispatcher.submit(make_command_request(name, **fields)))
            for name in names
        ]
        self.asking += tasks
        await asyncio.sleep(0)  # Each runs until it waits for its reply.
        await asyncio.sleep(0)  # End of the iteration: the queued requests are sent, if allowed.
        return tasks

    async def close(self) -> None:
        for call in self.shards.open:
            if not call.answer.done():
                call.reply()
        for task in self.asking:
            task.cancel()
        await asyncio.gather(*self.asking, return_exceptions=True)


async def fixture_beside_another_wallet(**limits: int) -> DispatcherFixture:
    """Its shard queue has just sent another wallet's command."""
    fixture = DispatcherFixture(**limits)
    await fixture.request("q1", wallet_id=OTHER)
    (await fixture.shards.next_call()).reply()
    await let_callbacks_run()
    return fixture


async def let_callbacks_run() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def make_command_request(name: str, *, items: int = 1, **fields: Any) -> CommandRequest:
    values: dict[str, Any] = {"wallet_id": WALLET_ID, "timeout_s": 5.0, "is_batch": items > 1}
    return CommandRequest(items=(ITEM,) * items, request_id=name, **values | fields)


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


async def test_a_wallet_has_one_call_at_a_time_and_other_wallets_another() -> None:
    fixture = DispatcherFixture(shard_calls_in_flight_max=2)
    overloaded, quiet = wallet_id(0), wallet_id(1)
    await fixture.request("f1", wallet_id=overloaded)
    first = await fixture.shards.next_call()
    await fixture.request("f2", "f3", wallet_id=overloaded)
    assert fixture.shards.no_calls()
    await fixture.request("q1", wallet_id=quiet)
    second = await fixture.shards.next_call()
    assert second.names == ["q1"]
    first.reply()
    third = await fixture.shards.next_call()
    assert third.names == ["f2", "f3"]
    second.reply()
    third.reply()
    await asyncio.gather(*fixture.asking)


async def test_an_overloaded_wallet_leaves_queue_space_for_other_wallets() -> None:
    fixture = DispatcherFixture(ingress_queue_max=10, ingress_wallet_queue_max=3)
    overloaded, quiet = wallet_id(0), wallet_id(1)
    await fixture.request("called", wallet_id=overloaded)
    await fixture.request("f1", "f2", "f3", wallet_id=overloaded)
    refused = await fixture.dispatcher.submit(make_command_request("f4", wallet_id=overloaded))
    assert isinstance(refused, Failure)
    assert (refused.code, refused.applied) == (FailureCode.OVERLOADED, "no")
    full = fixture.dispatcher.overload(overloaded)
    assert full is not None
    assert full.detail == refused.detail
    assert fixture.dispatcher.overload(quiet) is None
    await fixture.request("q1", wallet_id=quiet)
    assert fixture.dispatcher.queued == [4]
    await fixture.close()


async def test_an_overloaded_wallet_alone_has_no_quota_and_no_cool_down() -> None:
    fixture = DispatcherFixture(call_wallet_commands_max=2)
    await fixture.request("first")
    await fixture.request("f1", "f2", "f3", "f4", "f5")
    (await fixture.shards.next_call()).reply()
    call = await fixture.shards.next_call()
    assert call.names == ["f1", "f2", "f3", "f4", "f5"]
    await fixture.request("next")
    call.reply()
    await let_callbacks_run()
    assert (await fixture.shards.next_call()).names == ["next"]
    await fixture.close()


async def test_an_overloaded_wallet_under_contention_has_quota_and_cool_down() -> None:
    fixture = await fixture_beside_another_wallet(
        shard_calls_in_flight_max=2, call_wallet_commands_max=2
    )
    clock = asyncio.get_running_loop().time
    await fixture.request("f1", "f2", "f3", "f4", "f5")
    first = await fixture.shards.next_call()
    called = clock()
    assert first.names == ["f1", "f2"]
    await asyncio.sleep(0.05)  # The time that the call takes.
    first.reply()
    answered = clock()
    await let_callbacks_run()
    assert fixture.shards.no_calls()

    # Other wallets have no cool-down.
    await fixture.request("q2", wallet_id=OTHER)
    (await fixture.shards.next_call()).reply()
    second = await fixture.shards.next_call()
    assert second.names == ["f3", "f4"]
    assert clock() - answered >= answered - called - 0.001  # Timers keep to whole milliseconds.

    # A call within the quota is followed by no cool-down.
    second.reply()
    third = await fixture.shards.next_call()
    assert third.names == ["f5"]
    await fixture.request("f6")
    third.reply()
    await let_callbacks_run()
    assert (await fixture.shards.next_call()).names == ["f6"]
    await fixture.close()


async def test_a_batch_that_is_larger_than_its_share_travels_alone() -> None:
    fixture = await fixture_beside_another_wallet(call_wallet_commands_max=2)
    await fixture.request("huge", items=9)
    await fixture.request("f1")
    first = await fixture.shards.next_call()
    assert first.names == ["huge"]
    first.reply()
    assert (await fixture.shards.next_call()).names == ["f1"]
    await fixture.close()


async def test_an_overloaded_wallet_cools_down_briefly_after_a_first_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_COOLDOWN_MAX_S", 0.0)
    fixture = await fixture_beside_another_wallet(call_wallet_commands_max=1)
    await fixture.request("f1", "f2")
    first = await fixture.shards.next_call()
    assert first.names == ["f1"]
    await asyncio.sleep(0.3)  # The time that the call takes.
    first.reply()
    await let_callbacks_run()
    assert not fixture.shards.no_calls()
    await fixture.close()


@pytest.mark.parametrize(("pause_s", "met"), [(0.99, True), (1.01, False), (600.0, False)])
def test_an_old_command_is_no_contention(pause_s: float, met: bool) -> None:
    contention = pending_calls.ContentionDetector()
    contention.record(OTHER, 10.0)
    now = 10.0 + pause_s
    contention.record(wallet_id(1), now)
    assert contention.is_contended(now) is met


def test_contention_lasts_a_second_after_the_last_command() -> None:
    contention = pending_calls.ContentionDetector()
    for now, wallet in ((0.0, 1), (0.5, 7), (1.2, 1), (1.6, 1)):
        contention.record(wallet_id(wallet), now)
    assert contention.is_contended(2.1)
    assert not contention.is_contended(2.3)


async def test_an_overloaded_wallet_has_no_quota_after_contention_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pending_calls, "_CONTENTION_WINDOW_S", 0.02)
    fixture = await fixture_beside_another_wallet(call_wallet_commands_max=2)
    await fixture.request("f1")
    (await fixture.shards.next_call()).reply()
    await asyncio.sleep(0.03)  # The contention window.
    await fixture.request("f2", "f3", "f4")
    assert (await fixture.shards.next_call()).names == ["f2", "f3", "f4"]
    await fixture.close()


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
