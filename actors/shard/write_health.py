"""Whether a shard's writes go through now: known from its commits, and from probes without them.

That Postgres answers a question says nothing about writes: a synchronous standby may be gone, the
disk full, the server read-only, a table locked. So what counts is a commit that was confirmed. A
busy shard confirms many a second. An idle one, or one whose last commit failed, writes a probe
that changes nothing and is committed like any batch (`PostgresWriteProbe`).

Writes go through unless the last thing that was learnt is a failure, or something has waited for
its confirmation for too long. One probe is under way at a time. Some commits say nothing about the
next write: one that wrote no row (refusals without keys; it left nothing to be confirmed), a
client's own mistake (an amount that the database refuses), and one that a lock held up. The lock
may be on one wallet alone; if it is on a table, the probe meets it.
"""

import asyncio
from collections.abc import Callable, Collection
from typing import Final

import msgspec
import structlog

from actors.journal.ports import (
    CommitRequest,
    Journal,
    JournalBusy,
    JournalConflict,
    JournalError,
    JournalUnavailable,
    LoadedState,
    OutcomeUnknown,
    ProbeFailed,
    ReadSet,
    WriteProbe,
)
from wallet.ids import WalletId

_log = structlog.get_logger(__name__)

_GIVE_UP_S: Final = 10.0
"""A probe that nothing answers for so long is cancelled: its connection may be a dead one."""

_DISK_FULL: Final = "53"
_SERVERS_STATE: Final = frozenset({"08", "25", _DISK_FULL, "55", "57", "58", "F0", "XX"})
"""Classes of SQLSTATE that speak of the server; the others are about what it was asked."""

_NOTHING_YET: Final = "nothing has been written yet"


class WriteHealthLimits(msgspec.Struct, frozen=True, kw_only=True):
    """See the settings of these names for their reasons."""

    write_probe_s: float
    write_ready_s: float


class WriteHealth:
    """What is known about writes. ``run`` is its only task."""

    def __init__(
        self, probe: WriteProbe, limits: WriteHealthLimits, clock: Callable[[], float]
    ) -> None:
        self._probe = probe
        self._limits = limits
        self._clock = clock
        self._failure: str | None = _NOTHING_YET
        self._failed_at = clock()
        self._proved_at = float("-inf")
        self._commit_since: float | None = None
        self._probe_since: float | None = None

    def problem(self) -> str | None:
        """Why a write would not go through now; None if it would."""
        if self._failure is not None:
            return self._failure
        now = self._clock()
        for what, since in (("commit", self._commit_since), ("probe", self._probe_since)):
            if since is None or since < self._proved_at:
                continue
            if now - since > self._limits.write_ready_s:
                return f"a {what} has waited {now - since:.1f} s for Postgres to confirm it"
        return None

    # -- commits -------------------------------------------------------------------------------

    def commit_begins(self) -> None:
        self._commit_since = self._clock()

    def commit_ends(self) -> None:
        """Confirmed or not, nothing waits any more."""
        self._commit_since = None

    def proved(self, *, began: float) -> None:
        """A write that began then is confirmed."""
        self._proved_at = max(self._proved_at, began)
        if began >= self._failed_at and self._failure is not None:
            if self._failure != _NOTHING_YET:
                _log.info("writes recovered")
            self._failure = None

    def failed(self, message: str) -> None:
        """A write or a read failed, for a reason that the next one would meet as well."""
        if self._failure is None:
            _log.warning("writes fail", cause=message)
        self._failure, self._failed_at = message, self._clock()

    # -- probes --------------------------------------------------------------------------------

    async def run(self) -> None:
        """Probe while no commit tells, until cancelled."""
        while True:
            if self._failure is not None or not self._is_fresh():
                await self._write_probe()
            await asyncio.sleep(self._limits.write_probe_s)

    def _is_fresh(self) -> bool:
        return self._clock() - self._proved_at < self._limits.write_probe_s

    async def _write_probe(self) -> None:
        began = self._probe_since = self._clock()
        allocating = (self._failure or "").startswith(_DISK_FULL)
        try:
            async with asyncio.timeout(_GIVE_UP_S):
                await self._probe.write(allocating=allocating)
        except TimeoutError:
            self.failed(f"a probe was not confirmed within {_GIVE_UP_S:g} s")
        except ProbeFailed as failure:
            self.failed(str(failure))
        else:
            self.proved(began=began)
        finally:
            self._probe_since = None


class MonitoredJournal:
    """Implements `Journal`: another one, whose successes and failures ``health`` hears of."""

    def __init__(self, journal: Journal, health: WriteHealth, clock: Callable[[], float]) -> None:
        self._journal = journal
        self._health = health
        self._clock = clock

    async def connect(self) -> int:
        try:
            return await self._journal.connect()
        except JournalUnavailable as failure:
            self._note(failure)
            raise

    async def load(self, missing: ReadSet, *, session: int | None = None) -> LoadedState:
        try:
            return await self._journal.load(missing, session=session)
        except JournalUnavailable as failure:
            self._note(failure)
            raise

    async def commit(self, batch: CommitRequest, *, session: int | None = None) -> None:
        began = self._clock()
        self._health.commit_begins()
        try:
            await self._journal.commit(batch, session=session)
        except JournalConflict:
            raise  # Somebody else's write went through.
        except (JournalUnavailable, OutcomeUnknown) as failure:
            self._note(failure)
            raise
        else:
            if _writes_rows(batch):
                self._health.proved(began=began)
        finally:
            self._health.commit_ends()

    async def locked(self, wallet_ids: Collection[WalletId]) -> frozenset[WalletId]:
        return await self._journal.locked(wallet_ids)

    def _note(self, failure: Exception) -> None:
        if isinstance(failure, JournalBusy):
            return
        message = str(failure)
        if not isinstance(failure, JournalError) or message[:2] in _SERVERS_STATE:
            self._health.failed(message)


def _writes_rows(batch: CommitRequest) -> bool:
    """Otherwise it only compares versions, and confirms at most what others have written."""
    return bool(batch.events or batch.idempotency_records or batch.refused)
