"""`Dispatcher.submit_all`: one caller waits for the replies to many requests."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
import pytest_asyncio

from actors.dispatch import dispatcher as module
from actors.dispatch.ring import ring_of
from actors.rpc.messages import Failure, FailureCode, RequestResult
from tests.support.dispatcher_fixture import DispatcherFixture, make_command_request
from tests.support.domain import wallet_id
from tests.support.scripted_shards import reply_to
from wallet.commands import CommandRequest

SHARDS = 2


@pytest_asyncio.fixture
async def fixture(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[DispatcherFixture]:
    """Two shards, one call at a time to each, and no delay before a retry."""
    monkeypatch.setattr(module, "_backoff_s", lambda _failures: 0.0)
    made = DispatcherFixture(shard_count=SHARDS, ingress_queue_max=8)
    yield made
    await made.close()


def of_shard(shard: int, *names: str, timeout_s: float = 5.0) -> list[CommandRequest]:
    """A request for each name, each of another wallet of this shard."""
    ring = ring_of(SHARDS)
    wallets = (one for number in range(1, 200) if ring.shard_of(one := wallet_id(number)) == shard)
    return [
        make_command_request(name, wallet_id=next(wallets), timeout_s=timeout_s) for name in names
    ]


async def asking(
    fixture: DispatcherFixture, requests: Sequence[CommandRequest]
) -> asyncio.Task[list[RequestResult]]:
    task = asyncio.create_task(fixture.dispatcher.submit_all(requests))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return task


async def test_replies_come_in_the_order_of_the_requests(fixture: DispatcherFixture) -> None:
    (first, third), (second,) = of_shard(0, "r1", "r3"), of_shard(1, "r2")
    task = await asking(fixture, [first, second, third])
    calls = [await fixture.shards.next_call() for _ in range(SHARDS)]
    assert sorted(call.names for call in calls) == [["r1", "r3"], ["r2"]]

    for call in reversed(calls):
        assert not task.done()
        call.reply()

    assert await task == [reply_to("r1"), reply_to("r2"), reply_to("r3")]


async def test_without_a_request_there_is_nothing_to_wait_for(fixture: DispatcherFixture) -> None:
    assert await fixture.dispatcher.submit_all([]) == []


async def test_what_does_not_fit_is_refused_and_the_others_are_sent(
    fixture: DispatcherFixture,
) -> None:
    names = [f"r{number}" for number in range(10)]
    task = await asking(fixture, of_shard(0, *names))
    (await fixture.shards.next_call()).reply()

    replies = await task

    assert replies[:8] == [reply_to(name) for name in names[:8]]
    for refused in replies[8:]:
        assert isinstance(refused, Failure)
        assert (refused.code, refused.applied) == (FailureCode.OVERLOADED, "no")


async def test_a_group_of_which_nothing_fits_has_its_replies(fixture: DispatcherFixture) -> None:
    await asking(fixture, of_shard(0, "under way"))
    waiting = await asking(fixture, of_shard(0, *map(str, range(8))))
    assert fixture.dispatcher.queued[0] == 8

    replies = await fixture.dispatcher.submit_all(of_shard(0, "a", "b"))

    assert [isinstance(reply, Failure) for reply in replies] == [True, True]
    waiting.cancel()


async def test_at_the_deadline_each_request_says_whether_it_was_sent(
    fixture: DispatcherFixture,
) -> None:
    before = await asking(fixture, of_shard(1, "before"))
    late = [*of_shard(0, "answered", timeout_s=0.02), *of_shard(1, "queued", timeout_s=0.02)]
    task = await asking(fixture, late)
    calls = {call.names[0]: call for call in [await fixture.shards.next_call() for _ in range(2)]}
    calls["answered"].reply()

    answered, queued = await task

    assert answered == reply_to("answered")
    assert isinstance(queued, Failure)
    assert (queued.code, queued.applied) == (FailureCode.DEADLINE_EXCEEDED, "no")
    calls["before"].reply()
    assert await before == [reply_to("before")]
    assert fixture.shards.no_calls(), "what was never delivered never is"


async def test_a_group_whose_client_is_gone_is_not_delivered_again(
    fixture: DispatcherFixture,
) -> None:
    gone = await asking(fixture, of_shard(0, "gone", "gone too"))
    call = await fixture.shards.next_call()
    stays = await asking(fixture, of_shard(1, "stays"))
    (await fixture.shards.next_call()).reply()

    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    call.die()

    assert await stays == [reply_to("stays")]
    following = await asking(fixture, of_shard(0, "following"))
    assert (await fixture.shards.next_call()).names == ["following"]
    following.cancel()


async def test_a_reply_too_few_fails_the_group_and_a_second_bug_is_not_lost(
    fixture: DispatcherFixture,
) -> None:
    task = await asking(fixture, [*of_shard(0, "r1", "r2"), *of_shard(1, "r3")])
    calls = [await fixture.shards.next_call() for _ in range(SHARDS)]
    for call in calls:
        call.reply([])

    with pytest.raises(AssertionError, match="INV-6 each request has one reply"):
        await task


async def test_requests_of_a_group_have_one_deadline(fixture: DispatcherFixture) -> None:
    requests = [*of_shard(0, "r1", timeout_s=1.0), *of_shard(1, "r2", timeout_s=2.0)]

    with pytest.raises(AssertionError, match="one timer"):
        await fixture.dispatcher.submit_all(requests)
