"""Whether a shard can write now: known from its commits, or from write probes if it has none.

A Postgres that answers queries may still not accept writes: a synchronous standby may be gone, the
disk full, the server read-only, a table locked. So only a confirmed commit counts. A busy shard
confirms many per second. An idle one, or one whose last commit failed, writes a probe that changes
nothing and is committed like a batch (`PostgresWriteProbe`).

Writes are healthy unless the latest result is a failure, or a commit or probe has waited too long
for its confirmation. There is one probe at a time. Some commits say nothing about the next write:
one that wrote no row (refusals without idempotency keys), a client error (an amount that the
database rejects), and one that waited for a lock. The lock may be on a single wallet; if it is on
a table, the probe waits for it too.
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
    ReadSet,
)
from actors.journal.probe_ports import ProbeFailed, WriteProbe
from wallet.ids import WalletId

_log = structlog.get_logger(__name__)

_GIVE_UP_S: Final = 10.0
"""A probe without a response for this long is cancelled: its connection may be dead."""

_DISK_FULL: Final = "53"
_SERVERS_STATE: Final = frozenset({"08", "25", _DISK_FULL, "55", "57", "58", "F0", "XX"})
"""SQLSTATE classes that describe the server's state; the others are about the statement."""

_NOTHING_YET: Final = "nothing has been written yet"


class WriteHealthLimits(msgspec.Struct, frozen=True, kw_only=True):
    """See the settings of these names for their reasons."""

    write_probe_s: float
    write_ready_s: float


class WriteHealth:
    """State of a shard's writes. ``run`` is its only task."""

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
        """Why a write would fail now; None if it would succeed."""
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
        """The commit has ended, confirmed or not."""
        self._commit_since = None

    def proved(self, *, began: float) -> None:
        """A write that started at ``began`` is confirmed."""
        self._proved_at = max(self._proved_at, began)
        if began >= self._failed_at and self._failure is not None:
            if self._failure != _NOTHING_YET:
                _log.info("writes recovered")
            self._failure = None

    def failed(self, message: str) -> None:
        """A write or read failed for a reason that would fail the next one, too."""
        if self._failure is None:
            _log.warning("writes fail", cause=message)
        self._failure, self._failed_at = message, self._clock()

    # -- probes --------------------------------------------------------------------------------

    async def run(self) -> None:
        """Probe whenever there is no recent commit, until cancelled."""
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
    """Implements `Journal`: delegates to another one and reports each result to ``health``."""

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
            raise  # Another writer's commit succeeded.
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
    """Whether the batch writes a row. Otherwise it only compares versions."""
    return bool(batch.events or batch.stored_answers or batch.refused)
