"""An asynchronous standby that is three seconds behind is promoted: acknowledged writes are gone.

Each drill ends with `wallet recover --replay`. Then everything that had reached the stream is back,
and every fork was reported to consumers.
"""

import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from nats.js.api import StreamConfig

from tests.drills.conftest import Report
from tests.drills.drill import Drill, Failure, LoadRate, Moment, now, run_drill
from tests.drills.recovery import complete_recovery
from tests.drills.results import Target
from tests.drills.stack import DrillStack
from tests.drills.tcp_link import TcpLink, tcp_link
from tests.support.operation_source import OperationMix
from tests.support.published import STREAM

_BEHIND_S = 3.0
_STANDING_S = 1.0
_UNHARMED_AFTER_NS = 1_500_000_000
_SHORT_WINDOW_S = 2.0
_RESTED_S = 0.5
"""Until the resting clients have finished their requests."""
_SETTLED_S = 3.0
"""After the promotion, until the service has judged every wallet."""

_WRITES_PER_S = 500
_FAST = LoadRate(
    clients=20,
    think_s=0.2,
    mix=OperationMix(
        idempotent_share=0.7,
        debit_share=2 / 3,
        pending_share=0.3,
        settle_share=0.1,
        batch_share=0.9,
        batch_size=(10, 16),
        atomic_share=0.1,
    ),
    resting=5,
)
"""More than `_WRITES_PER_S`."""

Disturbance = Callable[[Drill], Awaitable[Callable[[], None]]]
"""Does something when the standby falls behind; what it returns undoes it after the promotion."""


def _promotion(
    link: TcpLink, disturb: Disturbance | None = None, *, standing_s: float = _STANDING_S
) -> Failure:
    async def promote_one_behind(drill: Drill) -> Moment:
        stack = drill.stack
        drill.load.rest()
        await drill.for_s(_RESTED_S)
        await drill.do(stack.cluster.wait_until_replayed)
        link.stall()
        stalled = now()
        undo = await disturb(drill) if disturb else _nothing
        await drill.for_s(_BEHIND_S)
        _expect_rate(drill, stalled, now())
        await drill.do(stack.cluster.primary.kill)
        link.cut()
        await drill.for_s(standing_s)
        await drill.do(stack.promote)
        promoted = now()
        drill.load.wake()
        await drill.for_s(_SETTLED_S)
        await drill.do(undo)
        await drill.do(lambda: stack.service.wallet("recover", "--replay"))
        drill.at_end = complete_recovery(promoted, unharmed_after=promoted + _UNHARMED_AFTER_NS)
        return now()

    return promote_one_behind


def _expect_rate(drill: Drill, start: Moment, end: Moment) -> None:
    """The standby is behind by that many writes a second."""
    rate = drill.acknowledged_between(start, end) / ((end - start) / 1e9)
    drill.measured.append(f"{rate:,.0f} acknowledged writes a second until the primary was killed")
    drill.expect(rate >= _WRITES_PER_S, f"{rate:,.0f} writes a second of {_WRITES_PER_S}")


def _nothing() -> None:
    """There is nothing to undo."""


@asynccontextmanager
async def _standby_behind_a_link(stack: DrillStack) -> AsyncIterator[TcpLink]:
    with tcp_link(stack.cluster.primary.port) as link:
        stack.cluster.add_standby(synchronous=False, source_port=link.port)
        yield link


async def test_what_the_stream_has_is_back_after_a_lossy_failover(
    stack: DrillStack, report: Report
) -> None:
    async with _standby_behind_a_link(stack) as link:
        report(
            await run_drill(
                stack,
                _promotion(link),
                name="asynchronous-failover",
                what=f"a standby {_BEHIND_S:.0f} s behind promoted, within the duplicate window",
                target=Target(),
                rate=_FAST,
            )
        )


async def test_a_lossy_failover_is_repaired_beyond_the_duplicate_window(
    stack: DrillStack, report: Report
) -> None:
    async with _duplicate_window(stack, _SHORT_WINDOW_S), _standby_behind_a_link(stack) as link:
        report(
            await run_drill(
                stack,
                _promotion(link, standing_s=2 * _SHORT_WINDOW_S),
                name="asynchronous-failover-late",
                what=f"the same with a duplicate window of {_SHORT_WINDOW_S:.0f} s, so that the "
                "stream drops no repetition",
                target=Target(),
                rate=_FAST,
            )
        )


async def test_a_paused_projection_shows_no_transfer_that_was_lost(
    stack: DrillStack, report: Report
) -> None:
    async def pause(_drill: Drill) -> Callable[[], None]:
        return _paused(stack, "ray::ProjectionActor", all_of_them=True)

    async with _standby_behind_a_link(stack) as link:
        report(
            await run_drill(
                stack,
                _promotion(link, pause),
                name="asynchronous-failover-projection-paused",
                what="the same, the projection stopped (SIGSTOP) from before the loss until after "
                "the promotion",
                target=Target(),
                rate=_FAST,
            )
        )


async def test_two_owners_and_lost_commits_make_no_money_from_nothing(
    stack: DrillStack, report: Report
) -> None:
    async def pause(drill: Drill) -> Callable[[], None]:
        await drill.for_s(_BEHIND_S / 2)  # it remembers commits that will be lost
        return _paused(stack, "ray::ShardActor", all_of_them=False)

    async with _standby_behind_a_link(stack) as link:
        report(
            await run_drill(
                stack,
                _promotion(link, pause),
                name="asynchronous-failover-two-owners",
                what="the same, a shard stopped (SIGSTOP) during the loss: it continues after the "
                "promotion beside its successor, with a memory of lost commits",
                target=Target(),
                rate=_FAST,
            )
        )


def _paused(stack: DrillStack, title: str, *, all_of_them: bool) -> Callable[[], None]:
    found = sorted(stack.service.processes(title), key=lambda one: one.pid)
    assert found, f"no process has the title {title}"
    victims = found if all_of_them else found[:1]
    for victim in victims:
        victim.send_signal(signal.SIGSTOP)

    def resume() -> None:
        for victim in victims:
            if victim.is_running():
                victim.send_signal(signal.SIGCONT)

    return resume


@asynccontextmanager
async def _duplicate_window(stack: DrillStack, seconds: float) -> AsyncIterator[None]:
    before = await _set_duplicate_window(stack, seconds)
    try:
        yield
    finally:
        await _set_duplicate_window(stack, before)


async def _set_duplicate_window(stack: DrillStack, seconds: float) -> float:
    """Returns the window before."""
    async with stack.nats.jetstream() as jetstream:
        config: StreamConfig = (await jetstream.stream_info(STREAM)).config
        before = config.duplicate_window or 0.0
        config.duplicate_window = seconds
        await jetstream.update_stream(config)
    return before


pytestmark = pytest.mark.timeout(300)
