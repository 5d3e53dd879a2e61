"""Settles pending transfers that have expired and that no command has met.

Theory of operation. The sweep is a client of its own shard: it submits commands to the mailbox, and
they are decided, chained and committed like anybody's. Whether a transfer has expired is decided
then, by the batch's clock; the sweep only knows where to look. So nothing that goes wrong here
settles a transfer early or twice, and what is forgotten is found again in the table.

It looks when something must be due: it knows the next time in the table, and the times that this
shard commits. Other processes write to these slots only around a change of owners, so for a while
after its start it looks every second, then every few seconds.

What is due at once is settled in pieces, one after the other. A piece is small while others use the
shard, and there is a pause of six times its length after it: six sevenths of the time are theirs.
The pause has a bound, since a piece that met an outage of the database is no measure.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from typing import Final

import msgspec
import structlog

from actors.journal.expiry_ports import Expiries, ExpiringTransfer
from actors.journal.ports import JournalUnavailable
from actors.rpc.messages import Failure, RequestResult
from wallet.commands import CommandItem, CommandRequest, ExpireTransfer
from wallet.ids import WalletId
from wallet.slots import ALL_SLOTS, SlotRange

_log = structlog.get_logger(__name__)

_PAGE: Final = 1_000
"""Most rows that are read at once."""

_PIECE: Final = 200
"""Most transfers in the mailbox at once, if nobody else uses the shard."""

_PIECE_BESIDE_OTHERS: Final = 50
"""Most of them while others do: they wait for a piece of this size, at most. Half of what a piece
of 20 costs is the same for one of any size."""

_PAUSE_BESIDE_OTHERS: Final = 6.0
"""Of the time that such a piece took: how long the shard is theirs then."""

_PAUSE_S_MAX: Final = 0.5
"""A piece takes tens of milliseconds. One that took seconds waited for the database, which says
nothing about others: after an outage of 10 s, holds would stay for a minute past their time."""

_OTHERS_FOR_S: Final = 1.0
"""Others use the shard if they sent a command within this time."""

EXPIRY_BACKLOG_MAX: Final = 20_000
"""Unpublished events above which the sweep waits: the room is for those who ask for something."""

_WAIT_S: Final = 0.1
"""Between two looks at a backlog that is too large."""

_POSTPONED_S: Final = 5.0
"""How long a wallet whose transfers could not be settled is passed over."""

_POSTPONED_MAX: Final = 20
"""Most wallets that are passed over. If more fail, the journal is unavailable or the shard is full:
the sweep ends, and begins anew a second later."""

_YOUNG_S: Final = 60.0
"""How long after its start a shard looks at least every `_LOOK_YOUNG_S`: a former owner of its
slots may still write."""

_LOOK_YOUNG_S: Final = 1.0
_LOOK_S: Final = 10.0


class ShardUse(msgspec.Struct):
    """What the sweep knows of its shard."""

    submit: Callable[[list[CommandRequest]], Awaitable[list[RequestResult]]]
    commands: Callable[[], int]
    """Commands decided so far, the sweep's included."""
    queued: Callable[[], int]
    """Commands in the mailbox."""
    backlog: Callable[[], int]
    """Unpublished events."""


class ExpirySweep:
    """Finds and submits what is due. ``run`` is its task."""

    def __init__(
        self,
        expiries: Expiries,
        shard: ShardUse,
        *,
        now: Callable[[], datetime],
        slots: Sequence[SlotRange] = ALL_SLOTS,
        timeout_s: float = 10.0,
        backlog_max: int = EXPIRY_BACKLOG_MAX,
    ) -> None:
        self._expiries = expiries
        self._shard = shard
        self._now = now
        self._slots = slots
        self._timeout_s = timeout_s
        self._backlog_max = backlog_max
        self._next: datetime | None = None
        """The first time that this process knows of."""
        self._earlier = asyncio.Event()
        self._left_over = False
        """Something may be due that was not settled: look again in a second."""
        self._postponed: dict[WalletId, float] = {}
        """Wallets that are passed over, and until when, in loop time."""
        self._seen = 0
        """Commands of the shard at the last look, without the sweep's own."""
        self._own = 0
        self._others_at = float("-inf")
        self.expired = 0
        """Transfers submitted and answered."""
        self.failures = 0

    def note(self, at: datetime) -> None:
        """A transfer that was just committed expires ``at``."""
        if self._next is None or at < self._next:
            self._next = at
            self._earlier.set()

    async def run(self) -> None:
        """Settle what is due, until cancelled."""
        clock = asyncio.get_running_loop().time
        young_until = clock() + _YOUNG_S
        while True:
            try:
                await self.settle_due()
            except JournalUnavailable as failure:
                self.failures += 1
                self._left_over = True
                _log.warning("expiry sweep failed", cause=str(failure))
            await self._wait(_LOOK_YOUNG_S if clock() < young_until else _LOOK_S)

    async def settle_due(self) -> None:
        """Settle all that is due now, and find out when the next one is.

        Raises:
            JournalUnavailable: the table can't be read.
        """
        if self._gives_up:
            self._postponed.clear()
        self._forget_postponed()
        # Before the table is read: what is committed meanwhile is noted, or found.
        self._next = None
        self._earlier.clear()
        after: ExpiringTransfer | None = None
        until = self._now()
        while True:
            page = await self._expiries.due(
                until=until,
                limit=_PAGE,
                slots=self._slots,
                after=after,
                without=tuple(self._postponed),
            )
            await self._settle(page)
            if len(page) < _PAGE or self._gives_up:
                break
            after = page[-1]
        found = await self._expiries.next_expiry(slots=self._slots)
        # What was due and is still there could not be settled: it is looked at again later.
        self._left_over = found is not None and found <= until
        if found is not None and not self._left_over:
            self.note(found)

    @property
    def _gives_up(self) -> bool:
        return len(self._postponed) > _POSTPONED_MAX

    async def _settle(self, page: Sequence[ExpiringTransfer]) -> None:
        done = 0
        while done < len(page) and not self._gives_up:
            await self._wait_for_room()
            beside_others = self._others_use_the_shard()
            size = _PIECE_BESIDE_OTHERS if beside_others else _PIECE
            piece = page[done : done + size]
            done += len(piece)
            clock = asyncio.get_running_loop().time
            started = clock()
            await self._submit(piece)
            if beside_others:
                pause_s = (clock() - started) * _PAUSE_BESIDE_OTHERS
                await asyncio.sleep(min(pause_s, _PAUSE_S_MAX))

    async def _wait_for_room(self) -> None:
        while True:
            if self._shard.backlog() <= self._backlog_max:
                return
            await asyncio.sleep(_WAIT_S)

    def _others_use_the_shard(self) -> bool:
        now = asyncio.get_running_loop().time()
        theirs = self._shard.commands() - self._own
        if theirs > self._seen or self._shard.queued() > 0:
            self._others_at = now
        self._seen = theirs
        return now - self._others_at < _OTHERS_FOR_S

    async def _submit(self, piece: Sequence[ExpiringTransfer]) -> None:
        by_wallet = sorted(piece, key=lambda one: one.wallet_id)
        requests = [
            self._request(wallet_id, list(of))
            for wallet_id, of in groupby(by_wallet, key=lambda one: one.wallet_id)
        ]
        replies = await self._shard.submit(requests)
        for request, reply in zip(requests, replies, strict=True):
            if isinstance(reply, Failure):
                self._postpone(request, reply)
            else:
                self._own += len(request.items)
                self.expired += len(request.items)

    def _request(self, wallet_id: WalletId, of: list[ExpiringTransfer]) -> CommandRequest:
        return CommandRequest(
            wallet_id=wallet_id,
            items=tuple(
                CommandItem(command=ExpireTransfer(transfer_id=one.transfer_id)) for one in of
            ),
            request_id="expiry",
            timeout_s=self._timeout_s,
            is_batch=True,
        )

    def _postpone(self, request: CommandRequest, failure: Failure) -> None:
        """Whatever became of it: what is still pending is in the table."""
        self.failures += 1
        _log.warning("expiry postponed", wallet_id=request.wallet_id, cause=failure.detail)
        self._postponed[request.wallet_id] = asyncio.get_running_loop().time() + _POSTPONED_S

    def _forget_postponed(self) -> None:
        now = asyncio.get_running_loop().time()
        for wallet_id in [one for one, until in self._postponed.items() if until <= now]:
            del self._postponed[wallet_id]

    async def _wait(self, at_most_s: float) -> None:
        """Return when something is due, or after ``at_most_s``."""
        clock = asyncio.get_running_loop().time
        latest = clock() + (_LOOK_YOUNG_S if self._left_over else at_most_s)
        while (left := min(latest - clock(), self._until_next_s())) > 0:
            self._earlier.clear()
            try:
                async with asyncio.timeout(left):
                    await self._earlier.wait()
            except TimeoutError:
                pass

    def _until_next_s(self) -> float:
        if self._next is None:
            return float("inf")
        return (self._next - self._now()) / timedelta(seconds=1)
