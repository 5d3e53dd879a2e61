"""The dispatcher: an overloaded wallet leaves room for the other wallets of its shard."""

import asyncio

import pytest

from actors.dispatch import dispatcher as module
from actors.dispatch import pending_calls
from actors.rpc.messages import Failure, FailureCode
from tests.support.dispatcher_fixture import (
    DispatcherFixture,
    let_callbacks_run,
    make_command_request,
)
from tests.support.domain import wallet_id

_OTHER = wallet_id(7)


async def fixture_beside_another_wallet(**limits: int) -> DispatcherFixture:
    """Its shard queue has just sent another wallet's command."""
    fixture = DispatcherFixture(**limits)
    await fixture.request("q1", wallet_id=_OTHER)
    (await fixture.shards.next_call()).reply()
    await let_callbacks_run()
    return fixture


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
    await fixture.request("q2", wallet_id=_OTHER)
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


async def test_overloaded_wallets_of_one_call_share_its_cool_down() -> None:
    fixture = DispatcherFixture(call_wallet_commands_max=2)
    await fixture.request("first", wallet_id=wallet_id(9))
    for number in range(4):
        await fixture.request("1", "2", "3", wallet_id=wallet_id(number))
    (await fixture.shards.next_call()).reply()
    call = await fixture.shards.next_call()
    assert call.names == ["1", "2"] * 4
    await asyncio.sleep(0.08)  # The time that the call takes.
    clock = asyncio.get_running_loop().time
    answered = clock()
    call.reply()
    assert (await fixture.shards.next_call()).names == ["3"] * 4
    assert clock() - answered == pytest.approx(0.08 / 4, abs=0.002)
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
    answered = asyncio.get_running_loop().time()
    first.reply()
    await fixture.shards.next_call()
    assert asyncio.get_running_loop().time() - answered < 0.001
    await fixture.close()


@pytest.mark.parametrize(("pause_s", "met"), [(0.99, True), (1.01, False), (600.0, False)])
def test_an_old_command_is_no_contention(pause_s: float, met: bool) -> None:
    contention = pending_calls.ContentionDetector()
    contention.record(_OTHER, 10.0)
    now = 10.0 + pause_s
    contention.record(wallet_id(1), now)
    assert contention.is_contended(now) is met


def test_contention_ends_a_second_after_the_other_wallet_s_last_command() -> None:
    contention = pending_calls.ContentionDetector()
    for now, wallet in ((0.0, 1), (0.5, 7), (1.2, 1), (1.4, 1)):
        contention.record(wallet_id(wallet), now)
    assert contention.is_contended(1.45)
    assert not contention.is_contended(1.55)


def test_overloaded_wallets_alone_are_no_contention() -> None:
    contention = pending_calls.ContentionDetector()
    for wallet in (1, 2):
        contention.record(wallet_id(wallet), 0.0)
    assert contention.is_contended(0.1), "they may be quiet ones"
    for wallet in (1, 2):
        contention.record_overload(wallet_id(wallet), 0.2)
        contention.record(wallet_id(wallet), 0.3)
    assert not contention.is_contended(0.3)


def test_a_quiet_wallet_beside_an_overloaded_one_is_contention() -> None:
    contention = pending_calls.ContentionDetector()
    contention.record_overload(wallet_id(1), 0.0)
    contention.record(_OTHER, 0.5)
    contention.record(wallet_id(1), 0.6)
    assert contention.is_contended(0.9)
    assert not contention.is_contended(1.1), "nobody else was there within a second"


def test_a_wallet_is_quiet_again_a_second_after_its_overload() -> None:
    contention = pending_calls.ContentionDetector()
    contention.record_overload(wallet_id(1), 0.0)
    contention.record_overload(_OTHER, 1.5)
    contention.record(wallet_id(1), 1.6)
    assert contention.is_contended(1.6)


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
