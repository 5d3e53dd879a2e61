"""Connections to the simulated servers, with connection faults."""

import asyncio
from collections.abc import Callable
from typing import Any, Final, NoReturn, TypeVar

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
"""Work on the server: it calls back with the statement's result or its error."""

_LOCK_SHARE: Final = 0.3
"""Share of a statement's time-out after which the server ends its wait for a lock."""

_REPORTED: Final = (JournalConflict, JournalError, JournalUnavailable, OutcomeUnknown)


class Connection:
    """A client's connection to a server; implements `MemoryConnection`.

    ``timeout_s``: when the client times a statement out. It continues on the server, and the next
    connection may end it.
    """

    def __init__(
        self,
        loop: SimulatedLoop,
        server: Process,
        probabilities: FaultProbabilities,
        random: SeededRandom,
        *,
        timeout_s: float,
    ) -> None:
        self._loop = loop
        self._server = server
        self._probabilities = probabilities
        self._random = random
        self._timeout_s = timeout_s
        self._open: list[_Running] = []
        """Transactions whose client has timed out."""
        self._waiting: dict[asyncio.Future[Any], None] = {}
        """Requests without a response."""
        self._breaks = 0
        self.session = 1

    def break_off(self) -> None:
        """End the session. Requests and responses that are on their way are lost."""
        self.session += 1
        self._breaks += 1
        for answer in self._waiting:
            self._lose(answer, self._random.delay_s(self._probabilities.latency_s))

    def connect(self) -> int:
        """The current session. A new connection ends most transactions of the former ones."""
        given_up, self._open = self._open, []
        for running in given_up:
            if self._random.happens(0.7):
                running.end()
        return self.session

    async def execute(self, statement: Callable[[], T], *, session: int | None = None) -> T:
        """Run ``statement`` on the server, over ``session`` or any.

        Raises:
            SessionLost: that session has ended.
            JournalUnavailable: not executed.
            JournalConflict, JournalError: executed and refused.
            OutcomeUnknown: no response.
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
        if self._random.happens(self._probabilities.hold):
            return self._random.between(0.0, 3 * self._timeout_s)
        return self._random.delay_s(self._probabilities.latency_s) / 4

    async def _exchange(self, work: "Work[T]", session: int | None) -> T:
        if session not in (None, self.session):
            raise SessionLost(f"session {session} has ended")
        probabilities, random = self._probabilities, self._random
        if random.happens(probabilities.fail_before):
            await asyncio.sleep(random.delay_s(probabilities.latency_s))
            self.session += 1
            raise JournalUnavailable("connection refused")
        answer: asyncio.Future[T] = self._loop.create_future()
        self._waiting[answer] = None
        if not random.happens(probabilities.lose_request):
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
        finally:
            del self._waiting[answer]

    def _send(self, work: "Work[T]", answer: "asyncio.Future[T]") -> None:
        probabilities, random = self._probabilities, self._random
        there_s = random.delay_s(probabilities.latency_s)
        if random.happens(probabilities.apply_late):
            self._lose(answer, random.delay_s(probabilities.latency_s))
            there_s = random.between(0.0, 2 * self._timeout_s)
        refusal = self._refusal()
        lost = random.happens(probabilities.lose_answer)
        back_s = random.delay_s(probabilities.latency_s)
        loop, breaks = self._loop, self._breaks

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
            if breaks != self._breaks:
                return
            if refusal is not None:
                reply(lambda: _refuse(refusal))
            else:
                work(reply)

        self._server.call_later(there_s, serve)

    def _refusal(self) -> Exception | None:
        """Why the server refuses the next request; None if it doesn't."""
        if self._random.happens(self._probabilities.conflict):
            return JournalConflict("could not serialize access")
        if self._random.happens(self._probabilities.refuse):
            return JournalError("disk full")
        return None

    def _lose(self, answer: "asyncio.Future[T]", after_s: float) -> None:
        """Break the connection; the client is notified."""
        self._loop.call_later(after_s, _fail, answer, OutcomeUnknown("connection lost"))


class _Running:
    """A transaction on the server: waits for locks, holds them for a while, and commits."""

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
        """Terminate its backend: a transaction that has not committed is rolled back."""
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
        except (JournalConflict, OutcomeUnknown) as failure:
            self._finish()
            refused = failure
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
        self._reply(self._transaction.commit)

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
