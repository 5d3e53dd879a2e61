"""One drill: clients and an outside consumer at work, a failure, recovery, and all three checks.

At the end the checker, the clients' record and the outside consumer's view must agree.
"""

import asyncio
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from itertools import pairwise
from math import inf
from pathlib import Path
from typing import Final

import msgspec

from tests.chaos.clients import IMPATIENT, MIX, THINK_S, Load
from tests.drills.outside_consumer import OutsideConsumer, outside_consumer
from tests.drills.results import DrillResult, Target
from tests.drills.stack import DrillStack
from tests.support.backlog import drained_s_of
from tests.support.checker import run_checker
from tests.support.load_client import failure_in
from tests.support.operation_source import OperationMix
from verification import rows
from verification.database import connect
from verification.facts import ClientCall, JournalEvent
from verification.history import check_history
from verification.stream_rules import check_stream_messages
from verification.violations import ViolationKind

RECORD_VARIABLE: Final = "WALLET_DRILLS_RECORD"
"""An existing folder for the clients' records; by default they are not kept."""

Moment = int
"""A reading of the monotonic clock, in nanoseconds."""

_CALM_S: Final = 2.0
"""Load before the failure."""
_AFTER_S: Final = 2.0
"""Load after every wallet accepted a write again."""
_BACK_S_MAX: Final = 60.0
_DRAIN_S_MAX: Final = 60.0
_POLL_S: Final = 0.02
_SAYS_IF_APPLIED: Final = ("503 unavailable", "503 history_forked", "504 deadline_exceeded", "429 ")
"""How errors begin that say whether the write was applied."""


class Drill:
    """What a failure needs while it is injected."""

    def __init__(self, stack: DrillStack, load: Load, outside: OutsideConsumer) -> None:
        self.stack = stack
        self.load = load
        self.outside = outside
        self.violations: list[str] = []
        self.missed: list[str] = []
        self.measured: list[str] = []
        """What was measured besides, for the page of results."""
        self.void: Callable[[ClientCall], bool] = lambda _: False
        """Whether a call's answer is known to be lost."""
        self.at_end: Callable[[Drill], Awaitable[None]] | None = None
        """Checks more once the clients have stopped and everything has arrived everywhere."""

    def record(self) -> list[ClientCall]:
        """The clients' record. Calls that are void were reported to them.

        A write whose answer is void may have been applied again or not; a read never was.
        """
        return [
            msgspec.structs.replace(one, outcome="unknown", version=0) if self.void(one) else one
            for one in self.load.state.history
            if one.operation != "read" or not self.void(one)
        ]

    async def do(self, work: Callable[[], object]) -> None:
        """Do something that blocks while the clients go on."""
        await asyncio.to_thread(work)

    async def for_s(self, seconds: float) -> None:
        """Let the clients go on for a while."""
        await asyncio.sleep(seconds)
        self.load.raise_failures()

    def acknowledged_between(self, start: Moment, end: Moment) -> int:
        """First answers of 2xx to writes that were sent after ``start`` and answered by ``end``."""
        return sum(
            one.outcome == "acknowledged"
            and one.operation != "read"
            and not one.replayed
            and one.started >= start
            and one.ended <= end
            for one in self.load.state.history
        )

    def expect(self, is_so: bool, target: str) -> None:
        """Note a target that was missed."""
        if not is_so:
            self.missed.append(target)


class LoadRate(msgspec.Struct, frozen=True, kw_only=True):
    """How much the clients send."""

    clients: int = 10
    """Few: a saturated machine would be measured in place of the service."""
    think_s: float = 2 * THINK_S
    """Mean pause between a client's requests."""
    mix: OperationMix = MIX
    resting: int = 0
    """Clients besides, each with a wallet of its own, that rest when the failure says so."""


ORDINARY: Final = LoadRate()

Failure = Callable[[Drill], Awaitable[Moment]]
"""Injects a failure and ends it. Returns the moment from which the recovery is measured."""


def now() -> Moment:
    return time.monotonic_ns()


async def run_drill(
    stack: DrillStack,
    failure: Failure,
    *,
    name: str,
    what: str,
    target: Target,
    rate: LoadRate = ORDINARY,
) -> DrillResult:
    """Run a drill on a healthy stack."""
    async with outside_consumer(stack.nats.url) as outside, _load(stack, name, rate) as load:
        drill = Drill(stack, load, outside)
        await drill.for_s(_CALM_S)
        began = now()
        moment = await failure(drill)
        all_wallets_s = await _until_every_wallet_was_written_to(load, moment)
        await drill.for_s(_AFTER_S)
        await load.stop()
        result = DrillResult(
            name=name,
            what=what,
            target=target,
            writes=_decided_writes(load.state.history),
            errors=Counter({code: n for code, n in load.errors.items() if code != IMPATIENT}),
            longest_s=load.longest_s(began),
            silent_s=silent_s(load.state.history, began, now()),
            back_s=back_s(load.state.history, moment),
            all_wallets_s=all_wallets_s,
            lost=0,
            violations=await _violations(drill),
            missed=drill.missed,
            measured=drill.measured,
        )
        result.lost = await _lost(drill)
        if target.in_order and outside.belief.gaps:
            result.missed.append(f"{len(outside.belief.gaps)} gaps on the stream")
        _keep_record(name, began, moment, load)
    result.missed += _missed(result)
    return result


@asynccontextmanager
async def _load(stack: DrillStack, name: str, rate: LoadRate) -> AsyncIterator[Load]:
    load = Load(
        stack.url,
        name=name,
        seed=f"drill {name}",
        clients=rate.clients,
        think_s=rate.think_s,
        mix=rate.mix,
        resting=rate.resting,
    )
    await load.start()
    try:
        yield load
    finally:
        await load.stop()


async def _until_every_wallet_was_written_to(load: Load, moment: Moment) -> float | None:
    deadline = time.monotonic() + _BACK_S_MAX
    while (back := load.back_after_s(moment)) is None:
        load.raise_failures()
        if time.monotonic() > deadline:
            return None
        await asyncio.sleep(_POLL_S)
    return back


def _decided_writes(history: Iterable[ClientCall]) -> int:
    """Each item of a batch is a write."""
    return sum(
        one.operation != "read" and one.outcome in ("acknowledged", "refused") for one in history
    )


def back_s(history: Iterable[ClientCall], moment: Moment) -> float | None:
    """Until writes were acknowledged, nothing sent before hung, and no error came any more.

    Unlike the time until every wallet was written to, it does not contain the clients' pauses.
    """
    calls = [one for one in history if one.operation != "read" and one.ended > moment]
    firsts = [one.ended for one in calls if one.outcome == "acknowledged"]
    if not firsts:
        return None
    first = min(firsts)
    hung = [one.ended for one in calls if one.started < first and one.code != IMPATIENT]
    errors = [one.ended for one in calls if failure_in(one) and one.code != IMPATIENT]
    return (max([first, *hung, *errors]) - moment) / 1e9


def silent_s(history: Iterable[ClientCall], began: Moment, ended: Moment) -> float:
    """The longest time without an acknowledged write between two moments."""
    answers = sorted(
        one.ended
        for one in history
        if one.outcome == "acknowledged" and one.operation != "read" and one.ended > began
    )
    return max(later - earlier for earlier, later in pairwise([began, *answers, ended])) / 1e9


async def _violations(drill: Drill) -> list[str]:
    """What the checker, the clients' record and the outside consumer disagree about."""
    stack = drill.stack
    arrived = await _until_everything_arrived(drill)
    if drill.at_end is not None:
        await drill.at_end(drill)
    report = await run_checker(stack.cluster.url, stack.nats.url, drill.record())
    journal = await _journal(stack.cluster.url)
    believed = check_stream_messages(journal, drill.outside.belief.messages())
    return [
        *arrived,
        *drill.violations,
        *report.violations,
        *(f"outside consumer: {violation}" for violation in believed),
    ]


async def _until_everything_arrived(drill: Drill) -> list[str]:
    """What did not arrive in time at the clients, the stream, the read side or the consumer."""
    stack, missing = drill.stack, list[str]()
    if drill.load.abandoned:
        missing.append(f"{drill.load.abandoned} outcomes were never learned")
    if await drained_s_of(stack.cluster.url, timeout_s=_DRAIN_S_MAX) is None:
        missing.append(f"not everything was published and projected after {_DRAIN_S_MAX:.0f} s")
    try:
        await drill.outside.until_it_has_seen(stack.nats.last_sequence)
    except TimeoutError:
        missing.append("the outside consumer did not get to the end of the stream")
    return missing


async def _lost(drill: Drill) -> int:
    """Acknowledged writes that the journal does not have. The checker reports one a wallet."""
    connection = await connect(drill.stack.cluster.url)
    try:
        found = await check_history(connection, drill.record())
        return sum(one.kind is ViolationKind.ACKNOWLEDGED_WRITE_MISSING for one in found)
    finally:
        await connection.close()


async def _journal(database_url: str) -> dict[tuple[str, int], JournalEvent]:
    connection = await connect(database_url)
    try:
        ids = [row[0] for row in await connection.fetch("SELECT id::text FROM wallets")]
        events = map(rows.event_from_row, await connection.fetch(rows.EVENTS_OF, ids))
        return {(event.wallet_id, event.version): event for event in events}
    finally:
        await connection.close()


def _keep_record(name: str, began: Moment, moment: Moment, load: Load) -> None:
    """Keep every answer with its times, for whoever wants to know where the time went."""
    folder = os.environ.get(RECORD_VARIABLE)
    if folder:
        lines = [{"began": began, "recovery_from": moment}, *load.state.history]
        text = b"\n".join(map(msgspec.json.encode, lines))
        (Path(folder) / f"{name}.jsonl").write_bytes(text)


def _missed(result: DrillResult) -> list[str]:
    target, missed = result.target, []
    if result.all_wallets_s is None or (result.back_s or 0.0) > (target.back_s or inf):
        missed.append("not back in time")
    if target.unharmed and result.errors:
        missed.append("errors")
    unclear = any(not code.startswith(_SAYS_IF_APPLIED) for code in result.errors)
    if target.says_if_applied and unclear:
        missed.append("an error that does not say what happened")
    return missed
