"""A shard's connections to the simulated Postgres, with everything that connections do wrong."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import NoReturn, TypeVar

from actors.ports import (
    BatchWrite,
    JournalConflict,
    JournalRefused,
    JournalUnavailable,
    Loaded,
    Missing,
    OutcomeUnknown,
    Span,
)
from tests.simulation.chance import Dice, Odds
from tests.simulation.database import Database
from tests.simulation.loop import Process, SimulatedLoop
from wallet.events import Recorded

T = TypeVar("T")


class Connection:
    """One client's way to the server. ``timeout_s`` is when the client gives a statement up."""

    def __init__(
        self, loop: SimulatedLoop, server: Process, odds: Odds, dice: Dice, *, timeout_s: float
    ) -> None:
        self._loop = loop
        self._server = server
        self._odds = odds
        self._dice = dice
        self._timeout_s = timeout_s

    async def ask(self, statement: Callable[[], T]) -> T:
        """Run ``statement`` on the server.

        Raises:
            JournalUnavailable: surely not run.
            JournalConflict, JournalRefused: run, and refused.
            OutcomeUnknown: no answer.
        """
        odds, dice = self._odds, self._dice
        if dice.happens(odds.fail_before):
            await asyncio.sleep(dice.delay_s(odds.latency_s))
            raise JournalUnavailable("connection refused")
        answer: asyncio.Future[T] = self._loop.create_future()
        if not dice.happens(odds.lose_request):
            self._send(statement, answer)
        try:
            async with asyncio.timeout(self._timeout_s):
                return await answer
        except TimeoutError:
            raise OutcomeUnknown("no answer in time") from None

    def _send(self, statement: Callable[[], T], answer: "asyncio.Future[T]") -> None:
        odds, dice = self._odds, self._dice
        there_s = dice.delay_s(odds.latency_s)
        if dice.happens(odds.apply_late):
            self._lose(answer, dice.delay_s(odds.latency_s))
            there_s = dice.between(0.0, 2 * self._timeout_s)
        refusal: Exception | None = None
        if dice.happens(odds.conflict):
            refusal = JournalConflict("could not serialize access")
        elif dice.happens(odds.refuse):
            refusal = JournalRefused("disk full")
        lost = dice.happens(odds.lose_answer)
        back_s = dice.delay_s(odds.latency_s)
        loop = self._loop

        def serve() -> None:
            try:
                result = _refuse(refusal) if refusal else statement()
            except (JournalConflict, JournalRefused, OutcomeUnknown) as refused:
                loop.call_later(back_s, _fail, answer, refused)
            else:
                if lost:
                    self._lose(answer, back_s)
                else:
                    loop.call_later(back_s, _finish, answer, result)

        self._server.call_later(there_s, serve)

    def _lose(self, answer: "asyncio.Future[T]", after_s: float) -> None:
        """The connection breaks, and the client notices."""
        self._loop.call_later(after_s, _fail, answer, OutcomeUnknown("connection lost"))


def _refuse(refusal: Exception) -> NoReturn:
    raise refusal


def _finish(answer: "asyncio.Future[T]", result: T) -> None:
    if not answer.done():
        answer.set_result(result)


def _fail(answer: "asyncio.Future[T]", error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)


async def _read(connection: Connection, statement: Callable[[], T]) -> T:
    try:
        return await connection.ask(statement)
    except (OutcomeUnknown, JournalConflict) as failure:
        raise JournalUnavailable(str(failure)) from failure


class SimulatedJournal:
    """Implements `Journal`."""

    def __init__(self, database: Database, connection: Connection) -> None:
        self._database = database
        self._connection = connection

    async def load(self, missing: Missing) -> Loaded:
        return await _read(self._connection, lambda: self._database.load(missing))

    async def commit(self, batch: BatchWrite) -> None:
        await self._connection.ask(lambda: self._database.commit(batch))


class SimulatedOutbox:
    """Implements `Outbox`."""

    def __init__(self, database: Database, connection: Connection) -> None:
        self._database = database
        self._connection = connection

    async def read(self, spans: Sequence[Span]) -> Sequence[Sequence[Recorded]]:
        return await _read(self._connection, lambda: [self._database.span(span) for span in spans])

    async def delete(self, spans: Collection[Span]) -> None:
        await _read(self._connection, lambda: self._database.delete(spans))

    async def unpublished(
        self, *, limit: int, after: Span | None = None, older_than_s: float = 0.0
    ) -> Sequence[Span]:
        return await _read(
            self._connection, lambda: self._database.unpublished(limit, after, older_than_s)
        )
