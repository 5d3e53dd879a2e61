"""Connections to the simulated servers, with everything that connections do wrong."""

import asyncio
from collections.abc import Callable
from typing import Final, NoReturn, TypeVar

from actors.journal.memory_transactions import MemoryTransaction
from actors.journal.ports import (
    JournalBusy,
    JournalConflict,
    JournalError,
    JournalUnavailable,
    OutcomeUnknown,
    SessionLost,
)
from tests.simulation.fault_probabilities import FaultProbabilities, SeededRandom
from tests.simulation.loop import Process, SimulatedLoop

T = TypeVar("T")

Work = Callable[[Callable[[Callable[[], T]], None]], object]
"""What the server does: it calls what it is given with a statement's result, or its refusal."""

_LOCK_SHARE: Final = 0.3
"""Of a statement's time-out: for so long the server lets it wait for a lock."""

_REPORTED: Final = (JournalConflict, JournalError, JournalUnavailable, OutcomeUnknown)


class Connection:
    """One client's way to a server; implements `MemoryConnection`.

    ``timeout_s``: when the client gives a statement up. It goes on at the server, and the next
    connection may end it.
    """

    def __init__(
        self,
        loop: SimulatedLoop,
        server: Process,
        odds: FaultProbabilities,
        dice: SeededRandom,
        *,
        timeout_s: float,
    ) -> None:
        self._loop = loop
        self._server = server
        self._odds = odds
        self._dice = dice
        self._timeout_s = timeout_s
        self._open: list[_Running] = []
        """Transactions whose client has given up."""
        self.session = 1

    def connect(self) -> int:
        """The session now. A new connection ends most of what the former ones left."""
        given_up, self._open = self._open, []
        for running in given_up:
            if self._dice.happens(0.7):
                running.end()
        return self.session

    async def execute(self, statement: Callable[[], T], *, session: int | None = None) -> T:
        """Run ``statement`` on the server, over ``session`` or any.

        Raises:
            SessionLost: that session has ended.
            JournalUnavailable: surely not run.
            JournalConflict, JournalError: run, and refused.
            OutcomeUnknown: no answer.
        """
        return await self._exchange(lambda reply: reply(statement), session)

    async def commit(self, transaction: MemoryTransaction, *, session: int | None = None) -> None:
        """Run ``transaction`` on the server; raises what `execute` does."""
        running = _Running(
            self._loop,
            self._server,
            transaction,
            hold_s=self._hold_s(),
            lock_timeout_s=_LOCK_SHARE * self._timeout_s,
        )
        try:
            await self._exchange(running.start, session)
        except OutcomeUnknown:
            self._open.append(running)
            raise

    def _hold_s(self) -> float:
        if self._dice.happens(self._odds.hold):
            return self._dice.between(0.0, 3 * self._timeout_s)
        return self._dice.delay_s(self._odds.latency_s) / 4

    async def _exchange(self, work: "Work[T]", session: int | None) -> T:
        if session not in (None, self.session):
            raise SessionLost(f"session {session} has ended")
        odds, dice = self._odds, self._dice
        if dice.happens(odds.fail_before):
            await asyncio.sleep(dice.delay_s(odds.latency_s))
            self.session += 1
            raise JournalUnavailable("connection refused")
        answer: asyncio.Future[T] = self._loop.create_future()
        if not dice.happens(odds.lose_request):
            self._send(work, answer)
        try:
            async with asyncio.timeout(self._timeout_s):
                return await answer
        except TimeoutError:
            self.session += 1
            raise OutcomeUnknown("no answer in time") from None
        except OutcomeUnknown:
            self.session += 1
            raise

    def _send(self, work: "Work[T]", answer: "asyncio.Future[T]") -> None:
        odds, dice = self._odds, self._dice
        there_s = dice.delay_s(odds.latency_s)
        if dice.happens(odds.apply_late):
            self._lose(answer, dice.delay_s(odds.latency_s))
            there_s = dice.between(0.0, 2 * self._timeout_s)
        refusal: Exception | None = None
        if dice.happens(odds.conflict):
            refusal = JournalConflict("could not serialize access")
        elif dice.happens(odds.refuse):
            refusal = JournalError("disk full")
        lost = dice.happens(odds.lose_answer)
        back_s = dice.delay_s(odds.latency_s)
        loop = self._loop

        def reply(statement: Callable[[], T]) -> None:
            try:
                result = statement()
            except _REPORTED as refused:
                loop.call_later(back_s, _fail, answer, refused)
            else:
                if lost:
                    self._lose(answer, back_s)
                else:
                    loop.call_later(back_s, _finish, answer, result)

        def serve() -> None:
            if refusal is not None:
                reply(lambda: _refuse(refusal))
            else:
                work(reply)

        self._server.call_later(there_s, serve)

    def _lose(self, answer: "asyncio.Future[T]", after_s: float) -> None:
        """The connection breaks, and the client notices."""
        self._loop.call_later(after_s, _fail, answer, OutcomeUnknown("connection lost"))


class _Running:
    """A transaction at the server: it waits for locks, holds them for a while, and commits."""

    def __init__(
        self,
        loop: SimulatedLoop,
        server: Process,
        transaction: MemoryTransaction,
        *,
        hold_s: float,
        lock_timeout_s: float,
    ) -> None:
        self._loop = loop
        self._server = server
        self._transaction = transaction
        self._hold_s = hold_s
        self._lock_timeout_s = lock_timeout_s
        self._reply: Callable[[Callable[[], None]], None] = lambda _: None
        self._committing = False
        self._waits = 0
        self._ended = False

    def start(self, reply: Callable[[Callable[[], None]], None]) -> None:
        self._reply = reply
        self._go_on()

    def end(self) -> None:
        """Its backend is ended: before the commit nothing happens, after it all has happened."""
        if self._ended:
            return
        if self._committing:
            self._commit()
        else:
            self._finish()
            self._transaction.roll_back()

    def _go_on(self) -> None:
        if self._ended:
            return
        try:
            holder = self._transaction.advance()
        except JournalConflict as conflict:
            self._finish()
            refused = conflict
            self._reply(lambda: _refuse(refused))
            return
        if holder is None:
            self._committing = True
            self._server.call_later(self._hold_s, self._commit)
            return
        self._waits += 1
        holder.on_end(lambda: self._server.call_later(0.0, self._go_on))
        self._server.call_later(self._lock_timeout_s, self._give_up_lock, self._waits)

    def _give_up_lock(self, wait: int) -> None:
        if self._ended or self._committing or wait != self._waits:
            return
        self._finish()
        self._transaction.roll_back()
        self._reply(lambda: _refuse(JournalBusy("lock timeout")))

    def _commit(self) -> None:
        if self._ended:
            return
        self._finish()
        self._transaction.commit()
        self._reply(lambda: None)

    def _finish(self) -> None:
        self._ended = True


def _refuse(refusal: Exception) -> NoReturn:
    raise refusal


def _finish(answer: "asyncio.Future[T]", result: T) -> None:
    if not answer.done():
        answer.set_result(result)


def _fail(answer: "asyncio.Future[T]", error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)
