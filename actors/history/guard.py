"""Lets a shard write only to a database that is known to have the whole history.

Every new session may lead to another server: a promoted standby, a restored copy. A shard asks each
for its identity. One that is known is used at once, and compared with the stream beside the writes:
a snapshot of a disk has the identity of its original. One that is not known is compared first, by
one shard, while the requests of the others wait. What the journal lost is stored, its wallets are
put in quarantine, and then the database is known. So nobody decides on a history that has lost a
write without knowing it, and wallets that lost nothing go on.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import structlog

from actors.history.comparison import compare
from actors.history.ports import DatabaseIdentity, HistoryStore, StreamTail, StreamUnreadable
from actors.journal.ports import JournalBusy, JournalUnavailable, SessionLost

_log = structlog.get_logger(__name__)

_LOGGED_WALLETS_MAX: Final = 20

_INTERVAL_S: Final = 1.0

_WAIT_S: Final = 3.0
"""How long requests wait for another shard's comparison, before they are refused as not applied. A
comparison usually takes less."""

_POLL_S: Final = 0.02
"""How often a waiting shard asks whether the database is known."""


class HistoryGuard:
    """One per shard. ``forked_stops_all``: nothing is written while any wallet is in quarantine."""

    def __init__(
        self, store: HistoryStore, tail: StreamTail, *, forked_stops_all: bool = False
    ) -> None:
        self._store = store
        self._tail = tail
        self._forked_stops_all = forked_stops_all
        self._session: int | None = None
        """The latest session whose database is known."""
        self._requiring = asyncio.Lock()
        self._beside: asyncio.Task[None] | None = None
        self.problem: str | None = None
        """Why nothing can be written, for readiness."""

    async def require(self, session: int) -> bool:
        """Return once the database behind ``session`` is known. True: it was compared first.

        Raises:
            SessionLost: the session has ended.
            JournalUnavailable: the database is not known yet. Call again.
        """
        if session == self._session:
            return False
        async with self._requiring:
            return session != self._session and await self._require(session)

    async def run(self, enter_session: Callable[[], Awaitable[None]]) -> None:
        """Check a new database also while nothing is written, until cancelled.

        ``enter_session`` makes the shard use the journal's current session, and calls `require`.
        """
        while True:
            with suppress(JournalUnavailable, SessionLost):  # The next round tries again.
                await enter_session()
            await asyncio.sleep(_INTERVAL_S)

    async def _require(self, session: int) -> bool:
        identity = await self._store.identity(session)
        known = await self._store.is_known(identity, session)
        if not known:
            await self._compare_first(identity, session)
        if self._forked_stops_all and (forked := await self._store.forked_wallets(session)):
            self.problem = f"the histories of {forked} wallets have forked: see `wallet recover`"
            raise JournalUnavailable(self.problem)
        if known:
            self._compare_beside(identity, session)
        self._session, self.problem = session, None
        return not known

    async def _compare_first(self, identity: DatabaseIdentity, session: int) -> None:
        self.problem = "the database is another one, and its history is being checked"
        if not await self._is_mine_to_compare(identity, session):
            return
        try:
            await self._compare_or_give_up(identity, session)
        except StreamUnreadable as failure:
            self.problem = f"the database is another one, and the stream can't be read: {failure}"
            raise JournalUnavailable(self.problem) from failure

    async def _is_mine_to_compare(self, identity: DatabaseIdentity, session: int) -> bool:
        """Whether this shard has the lock. False: the database is known, since another one had it.

        Raises:
            JournalUnavailable: another shard is still comparing.
        """
        clock = asyncio.get_running_loop().time
        deadline = clock() + _WAIT_S
        while not await self._store.try_begin(session):
            if await self._store.is_known(identity, session):
                return False
            if clock() > deadline:
                raise JournalUnavailable(self.problem)
            await asyncio.sleep(_POLL_S)
        if await self._store.is_known(identity, session):
            await self._store.give_up(session)
            return False
        return True

    def _compare_beside(self, identity: DatabaseIdentity, session: int) -> None:
        if self._beside is not None:
            self._beside.cancel()
        self._beside = asyncio.create_task(self._compare_known(identity, session))

    async def _compare_known(self, identity: DatabaseIdentity, session: int) -> None:
        try:
            if await self._store.try_begin(session):
                await self._compare_or_give_up(identity, session)
        except (SessionLost, JournalUnavailable, StreamUnreadable) as failure:
            _log.info("history not checked", cause=str(failure))

    async def _compare_or_give_up(self, identity: DatabaseIdentity, session: int) -> None:
        try:
            await self._compare(identity, session)
        except (StreamUnreadable, JournalBusy):
            # The session goes on, and would keep the lock.
            await self._store.give_up(session)
            raise

    async def _compare(self, identity: DatabaseIdentity, session: int) -> None:
        result = await compare(self._tail, lambda events: self._store.lost(events, session))
        found = await self._store.adopt(identity, result.lost, session)
        if found:
            wallets = sorted({event.wallet_id for event in result.lost})
            _log.critical(
                "database lost commits",
                events=found,
                wallets=len(wallets),
                some=wallets[:_LOGGED_WALLETS_MAX],
                **identity._asdict(),
            )
        else:
            _log.info("history checked", events=result.compared, **identity._asdict())

    async def close(self) -> None:
        if self._beside is not None:
            self._beside.cancel()
