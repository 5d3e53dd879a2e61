"""The ingress side of the write path: one queue per shard, whatever has queued travels at once.

Commands share hops: what comes in one turn of the event loop travels in one call, and while as
many calls are under way as may be, the next one gathers by itself, without any timer. A wallet's
commands travel in one call at a time, in order: those of a flooded wallet make one large batch
after another, and its neighbours' don't wait for them.

Room for neighbours. Where everything between a client and the disk is busy with one wallet's
commands, its neighbours wait in each of those places, and no queue of theirs helps them. So while
others use the lane, a flooded wallet's calls carry no more than its share, and after each one it
rests for as long as the call took: its commands wait here, where nobody waits behind them
(`specification/decisions/0028-a-flooded-wallet-makes-room.md`).

Delivery. A call that dies with its shard says nothing about its commands. They are delivered
again, marked as such, to whoever owns the wallet then, until their deadline; the ids in them were
made here, before the first delivery, so the successor recognises what was committed already.
"""

import asyncio
from functools import partial
from typing import Final

import msgspec
import structlog

from actors.dispatch.pending_calls import ContentionDetector, PendingRequest
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


class Dispatcher:
    """Sends submissions to the shards that own their wallets."""

    def __init__(self, transport: ShardTransport, limits: DispatcherLimits) -> None:
        self._ring = ring_of(limits.shard_count)
        self._lanes = [_ShardQueue(shard, transport, limits) for shard in range(limits.shard_count)]

    async def submit(self, submission: CommandRequest) -> RequestResult:
        """The shard's reply, or a failure by the submission's deadline."""
        lane = self._lanes[self._ring.shard_of(submission.wallet_id)]
        if tracing.enabled:
            return await submit_traced(lane.submit, submission)
        return await lane.submit(submission)

    def overload(self, wallet_id: WalletId) -> Failure | None:
        """Why nothing could be taken for this wallet now, to be asked before work is spent on a
        request; None if something could."""
        return self._lanes[self._ring.shard_of(wallet_id)].overload(wallet_id)

    @property
    def queued(self) -> list[int]:
        """Commands that wait for a call, by shard."""
        return [lane.queued for lane in self._lanes]


class _ShardQueue:
    """The way to one shard."""

    def __init__(self, shard: int, transport: ShardTransport, limits: DispatcherLimits) -> None:
        self._shard = shard
        self._transport = transport
        self._limits = limits
        self._queue: FairQueue[PendingRequest] = FairQueue(
            commands_max=limits.ingress_queue_max,
            wallet_commands_max=limits.ingress_wallet_queue_max,
        )
        self._blocked_wallets: set[WalletId] = set()
        """Wallets with commands in a call that is under way, or that rest after one."""
        self._neighbours = ContentionDetector()
        self._calls: set[asyncio.Task[None]] = set()
        self._flush_scheduled = False
        self._s_per_command = 0.0
        """Moving average over calls: how fast the queue drains."""

    @property
    def queued(self) -> int:
        return self._queue.commands

    async def submit(self, submission: CommandRequest) -> RequestResult:
        loop = asyncio.get_running_loop()
        now, wallet_id = loop.time(), submission.wallet_id
        parcel = PendingRequest(submission, now + submission.timeout_s)
        overflow = self._queue.put(wallet_id, parcel, len(submission.items))
        if overflow is not None:
            return self._overloaded(overflow, wallet_id)
        self._neighbours.record(wallet_id, now)
        self._schedule_flush()
        timer = loop.call_at(parcel.deadline, parcel.expire)
        try:
            return await parcel.reply
        finally:
            timer.cancel()

    def _schedule_flush(self) -> None:
        """Once this turn of the event loop has queued all that it has."""
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
        if taken.over_quota:
            self._blocked_wallets |= taken.over_quota
            loop = asyncio.get_running_loop()
            rest_s = min(loop.time() - started, _COOLDOWN_MAX_S)
            loop.call_later(rest_s, self._cooled_down, taken.over_quota)
        self._calls.discard(call)
        if not call.cancelled() and (error := call.exception()) is not None:
            _log.error("delivery failed", shard=self._shard, exc_info=error)
        self._flush()

    def _cooled_down(self, wallets: set[WalletId]) -> None:
        self._blocked_wallets -= wallets
        self._flush()

    def _next_call(self, now: float) -> Taken[PendingRequest]:
        """What the next call carries: of wallets that are in no other, as much as fits."""
        capacity = quota = self._limits.call_commands_max
        if self._neighbours.is_contended(now):
            quota = self._limits.call_wallet_commands_max
        return self._queue.take(capacity=capacity, quota=quota, blocked=self._blocked_wallets)

    async def _deliver(self, parcels: list[PendingRequest]) -> None:
        try:
            await self._deliver_with_retries(parcels)
        except BaseException as error:
            # A bug, or the end of this process: nobody is left waiting for it.
            for parcel in parcels:
                parcel.fail(error)
            raise

    async def _deliver_with_retries(self, parcels: list[PendingRequest]) -> None:
        """Call until every parcel is answered, by the shard or by its own deadline."""
        failures = 0
        while True:
            # A parcel that nobody waits for any more was answered by its deadline, or its
            # client is gone; if it was never delivered, it never will be.
            parcels = [parcel for parcel in parcels if not parcel.reply.done()]
            if not parcels:
                return
            try:
                await self._call(parcels)
            except ShardUnreachable as failure:
                failures += 1
                for parcel in parcels:
                    if failure.delivered:
                        parcel.attempt += 1
                    elif parcel.attempt == 1:
                        parcel.delivered = False
                _log.warning("shard unreachable", shard=self._shard, cause=str(failure))
                await asyncio.sleep(_backoff_s(failures))
            else:
                return

    async def _call(self, parcels: list[PendingRequest]) -> None:
        started = asyncio.get_running_loop().time()
        payload = encode_submissions([_for_delivery(parcel, started) for parcel in parcels])
        for parcel in parcels:
            parcel.delivered = True
        try:
            # A shard that hangs must not hold this lane for longer than anybody waits.
            async with asyncio.timeout_at(max(parcel.deadline for parcel in parcels)):
                answer = await self._transport.call(self._shard, payload)
        except TimeoutError:
            for parcel in parcels:
                parcel.expire()
            return
        replies = decode_replies(answer)
        self._resolve_in_chunks(list(zip(parcels, replies, strict=False)))
        assert len(replies) == len(parcels), (
            f"INV-6 each submission has one reply: {len(replies)} replies to {len(parcels)}"
        )
        s_per_command = (asyncio.get_running_loop().time() - started) / sum(
            parcel.size for parcel in parcels
        )
        self._s_per_command += _RATE_WEIGHT * (s_per_command - self._s_per_command)

    def _resolve_in_chunks(self, answers: list[tuple[PendingRequest, RequestResult]]) -> None:
        """A few in each turn of the event loop: each takes its request's answer to the socket, and
        whoever else came meanwhile shall not wait for a flooded wallet's hundred."""
        for parcel, reply in answers[:_RESOLVED_PER_TICK]:
            parcel.answer(reply)
        if rest := answers[_RESOLVED_PER_TICK:]:
            asyncio.get_running_loop().call_soon(self._resolve_in_chunks, rest)

    def overload(self, wallet_id: WalletId) -> Failure | None:
        """Why not even one more command for this wallet could be taken now."""
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


def _for_delivery(parcel: PendingRequest, now: float) -> CommandRequest:
    """The submission as it is delivered now: with the time that is left, and the attempt."""
    return msgspec.structs.replace(
        parcel.submission, attempt=parcel.attempt, timeout_s=max(parcel.deadline - now, 0.0)
    )


def _backoff_s(failures: int) -> float:
    """40 ms, doubling to 250 ms: a replaced actor takes seconds, and one caller is no herd."""
    return float(min(0.02 * 2 ** min(failures, 4), 0.25))


_RATE_WEIGHT: Final = 0.1

_RESOLVED_PER_TICK: Final = 8

_COOLDOWN_MAX_S: Final = 0.1
"""Enough after any call that was answered; one that waited for a new shard took far longer."""

_SHARD_QUEUE_FULL: Final = (
    "Too many requests wait for this wallet's shard. This request applied nothing; try again later."
)
_WALLET_QUEUE_FULL: Final = (
    "Too many requests wait for this wallet. This request applied nothing; try again later."
)
