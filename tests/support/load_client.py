"""A client that retries under the same idempotency key until it knows the outcome.

Used by the simulation, fault injection, the cluster tests and the benchmarks that count what
clients see. They differ in the `Transport`, the mix of operations (`operation_source.py`) and what
they do with the record of each call.
"""

import asyncio
from collections.abc import Callable, Sequence
from itertools import count
from typing import Final, Literal, Protocol

import msgspec

from tests.simulation.fault_probabilities import SeededRandom
from verification.facts import ClientCall, Operation, Outcome

BATCH_REFUSED: Final = "batch_refused"
"""Code of an atomic batch with a refused item: nothing was applied."""

Record = Callable[[Sequence[ClientCall], int], None]
"""Receives the attempts of one call and the start of the first call for these operations."""


class RequestedOperation(msgspec.Struct, frozen=True, kw_only=True):
    """One requested operation, identical in every attempt."""

    intent: str
    operation: Operation
    wallet_id: str = ""
    transfer_id: str = ""
    amount: int = 0
    """Of an update: the overdraft limit. Of a completion: a part; 0: all. Of a refund, too."""
    final: bool = True
    """Of a completion with an amount: whether the rest is released."""
    pending: bool = False
    expires_in_s: int = 0
    """0: never."""
    on_expiry: Literal["fail", "complete"] = "fail"
    direction: Literal["", "both", "debit", "credit"] = ""
    """Of a freeze."""
    key: str = ""


class CallTiming(msgspec.Struct, frozen=True):
    """Start and end of a call, on one monotonic clock (ns)."""

    started: int
    ended: int


class Transport(Protocol):
    """Sends requests to the service and reports the outcomes."""

    async def send(
        self, operations: Sequence[RequestedOperation], *, atomic: bool
    ) -> list[ClientCall]:
        """Send one request; returns one attempt per operation, in order. Never raises."""

    async def read(self, wallet_id: str, *, min_version: int, strong: bool) -> ClientCall | None:
        """Read a wallet; returns the attempt without an intent, or None if there was no wallet."""


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Exponential back-off with full jitter."""

    wait_s: float
    """Upper bound of the first wait; doubles with every attempt."""
    wait_max_s: float
    attempts_max: int | None = None
    give_up_s: float | None = None
    """Measured from the start of the first attempt."""

    def longest_wait_s(self, attempt: int) -> float:
        return min(self.wait_max_s, self.wait_s * 2.0 ** min(attempt, 30))

    def is_exhausted(self, attempts: int, elapsed_s: float) -> bool:
        return (self.attempts_max is not None and attempts >= self.attempts_max) or (
            self.give_up_s is not None and elapsed_s > self.give_up_s
        )


class LoadClient:
    """One client. ``clock``: nanoseconds, monotonic."""

    def __init__(
        self,
        transport: Transport,
        record: Record,
        random: SeededRandom,
        retry: RetryPolicy,
        clock: Callable[[], int],
    ) -> None:
        self._transport = transport
        self._record = record
        self._random = random
        self._retry = retry
        self._clock = clock

    async def pursue(
        self, operations: Sequence[RequestedOperation], *, atomic: bool = False
    ) -> int:
        """Send one request and retry while that is safe, until every outcome is known.

        Returns how many outcomes are unknown because the retry policy was exhausted.
        """
        asked = self._clock()
        for attempt in count():
            elapsed_s = (self._clock() - asked) / 1e9
            if self._retry.is_exhausted(attempt, elapsed_s):
                return len(operations)
            attempts = await self._transport.send(operations, atomic=atomic)
            self._record(attempts, asked)
            operations = retryable(operations, attempts, atomic=atomic)
            if not operations:
                return 0
            await asyncio.sleep(self._random.between(0.0, self._retry.longest_wait_s(attempt)))
        raise AssertionError("itertools.count never ends")

    async def read(
        self, wallet_id: str, intent: Callable[[], str], *, min_version: int, strong: bool
    ) -> None:
        """Read a wallet once. ``intent`` names the read if a wallet comes back."""
        asked = self._clock()
        attempt = await self._transport.read(wallet_id, min_version=min_version, strong=strong)
        if attempt is not None:
            self._record([msgspec.structs.replace(attempt, operation_id=intent())], asked)


def retryable(
    operations: Sequence[RequestedOperation], attempts: Sequence[ClientCall], *, atomic: bool
) -> list[RequestedOperation]:
    """Operations that were not applied, and those with a key and an unknown outcome.

    An atomic batch that was not applied is not retried: it may have been refused.
    """
    if atomic and all(attempt.outcome != "unknown" for attempt in attempts):
        return []
    return [
        operation
        for operation, attempt in zip(operations, attempts, strict=True)
        if attempt.outcome == "not_applied" or (attempt.outcome == "unknown" and operation.key)
    ]


def failure_in(attempt: ClientCall) -> str | None:
    """Why an attempt was not decided, as text; None if it was."""
    if attempt.outcome in ("acknowledged", "refused") or attempt.code == BATCH_REFUSED:
        return None
    applied = "" if attempt.outcome == "unknown" else ", not applied"
    return f"{attempt.status or ''} {attempt.code}{applied}".strip()


def attempt_at(
    operation: RequestedOperation,
    timing: CallTiming,
    outcome: Outcome,
    *,
    code: str = "",
    status: int = 0,
    body: str = "",
    replayed: bool = False,
    version: int = 0,
) -> ClientCall:
    """The record of one call for ``operation``."""
    return ClientCall(
        operation_id=operation.intent,
        operation=operation.operation,
        wallet_id=operation.wallet_id,
        transfer_id=operation.transfer_id,
        amount=operation.amount,
        final=operation.final,
        pending=operation.pending,
        direction=operation.direction,
        key=operation.key,
        started=timing.started,
        ended=timing.ended,
        outcome=outcome,
        code=code,
        status=status,
        body=body,
        replayed=replayed,
        version=version,
    )


class _Balances(msgspec.Struct):
    version: int = 0


class _Versioned(msgspec.Struct):
    """A wallet, which has a version itself, or a transfer with its wallet."""

    version: int = 0
    wallet: _Balances | None = None


_versioned: Final = msgspec.json.Decoder(_Versioned)


def version_in(body: bytes) -> int:
    """The wallet's version that the JSON of a wallet or of a transfer states."""
    answer = _versioned.decode(body)
    return answer.wallet.version if answer.wallet else answer.version
