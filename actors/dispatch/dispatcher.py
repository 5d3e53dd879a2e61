"""The ingress side of the write path: one queue per shard, sent in batches.

Batching. Requests that arrive in one iteration of the event loop share one call. While the maximum
number of calls is in flight, the next batch collects without any timer. A wallet's commands are in
one call at a time, in order: those of an overloaded wallet form one large batch after another, and
other wallets' commands don't wait for them.

Fair scheduling. If every stage between a client and the disk is busy with one wallet's commands,
other wallets' commands wait at each stage. So while wallets that are not overloaded use the shard
queue, an overloaded wallet's calls carry no more than its quota, and after each call it has a
cool-down as long as its share of the call took: its commands wait here, where nothing waits behind
them
(`specification/decisions/0028-fair-scheduling-between-wallets.md`).

Delivery. If a call fails with its shard, the outcome of its commands is unknown. They are delivered
again, with a higher attempt number, to the shard that owns the wallet then, until their deadline.
Their ids were generated here, before the first delivery, so the successor recognises commands that
are already committed.
"""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Final

import msgspec
import structlog

from actors.dispatch.pending_calls import Caller, ContentionDetector, PendingRequest
from actors.dispatch.ring import ring_of
from actors.dispatch.tracing import submit_traced
from actors.fair_queue import FairQueue, Overflow, Taken
from actors.rpc.messages import (
    Failure,
    FailureCode,
    RequestResult,
    decode_replies,
    encode_submissions,
)
from actors.rpc.transport import ShardTransport, ShardUnreachable
from runtime import tracing
from wallet.commands import CommandRequest
from wallet.ids import WalletId

_log = structlog.get_logger(__name__)


class DispatcherLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of a dispatcher; see the settings of the same names for their reasons."""

    shard_count: int
    ingress_queue_max: int
    ingress_wallet_queue_max: int
    shard_calls_in_flight_max: int
    call_commands_max: int
    call_wallet_commands_max: int
    shard_unreachable_timeout_s: float


class Dispatcher:
    """Sends requests to the shards that own their wallets."""

    def __init__(self, transport: ShardTransport, limits: DispatcherLimits) -> None:
        self._ring = ring_of(limits.shard_count)
        self._shard_queues = [
            _ShardQueue(shard, transport, limits) for shard in range(limits.shard_count)
        ]

    async def submit(self, request: CommandRequest) -> RequestResult:
        """The shard's reply, or a failure by the request's deadline."""
        if tracing.enabled:
            return await submit_traced(self._submit, request)
        return await self._submit(request)

    async def submit_all(self, requests: Sequence[CommandRequest]) -> list[RequestResult]:
        """The replies, in the order of ``requests``, which have one ``timeout_s``.

        Requests of a wallet are decided in order, those of different wallets in any.
        """
        if tracing.enabled:
            return await asyncio.gather(*map(self.submit, requests))
        return await self._submit_all(requests)

    async def _submit(self, request: CommandRequest) -> RequestResult:
        loop = asyncio.get_running_loop()
        now, caller = loop.time(), Caller(1)
        pending = PendingRequest(request, now + request.timeout_s, caller)
        if (failure := self._queue_of(request).put(pending, now)) is not None:
            return failure
        timer = loop.call_at(pending.deadline, pending.expire)
        try:
            await caller.replied
        finally:
            timer.cancel()
        return pending.reply

    async def _submit_all(self, requests: Sequence[CommandRequest]) -> list[RequestResult]:
        if not requests:
            return []
        loop = asyncio.get_running_loop()
        now, timeout_s = loop.time(), requests[0].timeout_s
        assert all(request.timeout_s == timeout_s for request in requests), "one timer is set"
        caller, deadline = Caller(len(requests)), now + timeout_s
        pending_requests = []
        for request in requests:
            pending = PendingRequest(request, deadline, caller)
            pending_requests.append(pending)
            if (failure := self._queue_of(request).put(pending, now)) is not None:
                pending.answer(failure)
        timer = loop.call_at(deadline, _expire_all, pending_requests)
        try:
            await caller.replied
        finally:
            timer.cancel()
        return [pending.reply for pending in pending_requests]

    def _queue_of(self, request: CommandRequest) -> "_ShardQueue":
        return self._shard_queues[self._ring.shard_of(request.wallet_id)]

    def overload(self, wallet_id: WalletId) -> Failure | None:
        """Why a request for this wallet would be rejected now; None if it would not. Check this
        before spending work on a request."""
        return self._shard_queues[self._ring.shard_of(wallet_id)].overload(wallet_id)

    @property
    def queued(self) -> list[int]:
        """Queued commands by shard."""
        return [shard_queue.queued for shard_queue in self._shard_queues]


class _ShardQueue:
    """The queue and the calls of one shard."""

    def __init__(self, shard: int, transport: ShardTransport, limits: DispatcherLimits) -> None:
        self._shard = shard
        self._transport = transport
        self._limits = limits
        self._queue: FairQueue[PendingRequest] = FairQueue(
            commands_max=limits.ingress_queue_max,
            wallet_commands_max=limits.ingress_wallet_queue_max,
        )
        self._blocked_wallets: set[WalletId] = set()
        """Wallets with commands in a call in flight, or in a cool-down after one."""
        self._contention = ContentionDetector()
        self._calls: set[asyncio.Task[None]] = set()
        self._flush_scheduled = False
        self._s_per_command = 0.0
        """Moving average over calls: how fast the queue drains."""

    @property
    def queued(self) -> int:
        return self._queue.commands

    def put(self, pending: PendingRequest, now: float) -> Failure | None:
        """Queue ``pending``; why not, if it exceeds a bound."""
        wallet_id = pending.request.wallet_id
        overflow = self._queue.put(wallet_id, pending, pending.size)
        if overflow is not None:
            return self._overloaded(overflow, wallet_id)
        self._contention.record(wallet_id, now)
        self._schedule_flush()
        return None

    def _schedule_flush(self) -> None:
        """Flush after this iteration of the event loop has queued all its requests."""
        if not self._flush_scheduled:
            self._flush_scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_scheduled = False
        now = asyncio.get_running_loop().time()
        while len(self._calls) < self._limits.shard_calls_in_flight_max and (
            taken := self._next_call(now)
        ):
            self._blocked_wallets.update(taken.wallets)
            call = asyncio.create_task(self._deliver(taken.requests))
            self._calls.add(call)
            call.add_done_callback(partial(self._call_finished, taken, now))

    def _call_finished(
        self, taken: Taken[PendingRequest], started: float, call: asyncio.Task[None]
    ) -> None:
        self._blocked_wallets.difference_update(taken.wallets)
        loop = asyncio.get_running_loop()
        now = loop.time()
        took_s = min(now - started, _COOLDOWN_MAX_S)
        for wallet_id in taken.over_quota:
            self._blocked_wallets.add(wallet_id)
            cooled_at = now + took_s * taken.share_of(wallet_id)
            loop.call_at(cooled_at, self._cooled_down, wallet_id)
        self._calls.discard(call)
        if not call.cancelled() and (error := call.exception()) is not None:
            _log.error("delivery failed", shard=self._shard, exc_info=error)
        self._flush()

    def _cooled_down(self, wallet_id: WalletId) -> None:
        self._blocked_wallets.discard(wallet_id)
        self._schedule_flush()  # Those whose cool-down ends now, too, travel together.

    def _next_call(self, now: float) -> Taken[PendingRequest]:
        """The requests of the next call: of wallets in no other call, as many as fit."""
        capacity = quota = self._limits.call_commands_max
        if self._contention.is_contended(now):
            quota = self._limits.call_wallet_commands_max
        taken = self._queue.take(capacity=capacity, quota=quota, blocked=self._blocked_wallets)
        for wallet_id, commands in taken.wallets.items():
            if commands >= self._limits.call_wallet_commands_max:
                self._contention.record_overload(wallet_id, now)
        return taken

    async def _deliver(self, pending_requests: list[PendingRequest]) -> None:
        try:
            await self._deliver_with_retries(pending_requests)
        except BaseException as error:
            # A bug, or this process ends: fail the callers instead of leaving them waiting.
            for pending in pending_requests:
                pending.fail(error)
            raise

    async def _deliver_with_retries(self, pending_requests: list[PendingRequest]) -> None:
        """Retry until every request is answered, by the shard or by its own deadline; or, while no
        shard can be reached, until another node had better try."""
        failures, loop = 0, asyncio.get_running_loop()
        give_up_at = loop.time() + self._limits.shard_unreachable_timeout_s
        while True:
            # A request that is over has reached its deadline, or its client is gone. If it was
            # never delivered, it never will be.
            pending_requests = [pending for pending in pending_requests if not pending.is_over]
            if not pending_requests:
                return
            try:
                await self._call(pending_requests)
            except ShardUnreachable as failure:
                failures += 1
                for pending in pending_requests:
                    if failure.delivered:
                        pending.attempt += 1
                    elif pending.attempt == 1:
                        pending.delivered = False
                _log.warning("shard unreachable", shard=self._shard, cause=str(failure))
                if loop.time() >= give_up_at:
                    for pending in pending_requests:
                        pending.give_up()
                    return
                await asyncio.sleep(_backoff_s(failures))
            else:
                return

    async def _call(self, pending_requests: list[PendingRequest]) -> None:
        started = asyncio.get_running_loop().time()
        payload = encode_submissions(
            [_for_delivery(pending, started) for pending in pending_requests]
        )
        for pending in pending_requests:
            pending.delivered = True
        try:
            # A shard that hangs must not block this queue after the last deadline.
            async with asyncio.timeout_at(max(pending.deadline for pending in pending_requests)):
                answer = await self._transport.call(self._shard, payload)
        except TimeoutError:
            for pending in pending_requests:
                pending.expire()
            return
        replies = decode_replies(answer)
        self._resolve_in_chunks(list(zip(pending_requests, replies, strict=False)))
        assert len(replies) == len(pending_requests), (
            f"INV-6 each request has one reply: {len(replies)} replies to {len(pending_requests)}"
        )
        s_per_command = (asyncio.get_running_loop().time() - started) / sum(
            pending.size for pending in pending_requests
        )
        self._s_per_command += _RATE_WEIGHT * (s_per_command - self._s_per_command)

    def _resolve_in_chunks(
        self, answers: list[tuple[PendingRequest, RequestResult]], start: int = 0
    ) -> None:
        """A few callers per iteration of the event loop: each writes a response to its socket, and
        other requests must not wait for hundreds of an overloaded wallet's responses."""
        callers = 0
        for index in range(start, len(answers)):
            pending, reply = answers[index]
            callers += pending.answer(reply)
            if callers == _RESOLVED_PER_TICK:
                asyncio.get_running_loop().call_soon(self._resolve_in_chunks, answers, index + 1)
                return

    def overload(self, wallet_id: WalletId) -> Failure | None:
        """Why one more command for this wallet would be rejected now; None if it would not."""
        overflow = self._queue.overflow(wallet_id, 1)
        return self._overloaded(overflow, wallet_id) if overflow is not None else None

    def _overloaded(self, overflow: Overflow, wallet_id: WalletId) -> Failure:
        detail, waiting = _SHARD_QUEUE_FULL, self._queue.commands
        if overflow is Overflow.WALLET:
            detail, waiting = _WALLET_QUEUE_FULL, self._queue.wallet_commands(wallet_id)
        return Failure(
            code=FailureCode.OVERLOADED,
            detail=detail,
            applied="no",
            retry_after_s=waiting * self._s_per_command,
        )


def _expire_all(pending_requests: list[PendingRequest]) -> None:
    for pending in pending_requests:
        pending.expire()


def _for_delivery(pending: PendingRequest, now: float) -> CommandRequest:
    """The request with its remaining time and attempt number, as it is delivered now."""
    return msgspec.structs.replace(
        pending.request, attempt=pending.attempt, timeout_s=max(pending.deadline - now, 0.0)
    )


def _backoff_s(failures: int) -> float:
    """40 ms, doubling to 250 ms. Replacing an actor takes seconds; with one caller per shard no
    jitter is needed."""
    return float(min(0.02 * 2 ** min(failures, 4), 0.25))


_RATE_WEIGHT: Final = 0.1

_RESOLVED_PER_TICK: Final = 8

_COOLDOWN_MAX_S: Final = 0.1
"""Longest cool-down. Enough after any answered call; waiting for a new shard takes far longer."""

_SHARD_QUEUE_FULL: Final = (
    "Too many requests wait for this wallet's shard. This request applied nothing; try again later."
)
_WALLET_QUEUE_FULL: Final = (
    "Too many requests wait for this wallet. This request applied nothing; try again later."
)
