"""Ports of the history check: the database and the stream's tail."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple, Protocol

import msgspec

from wallet.ids import WalletId


class DatabaseIdentity(NamedTuple):
    """Which history a server writes. A promotion or a restore to a point in time begins a new
    timeline; a restored dump is another database."""

    system_identifier: str
    timeline: str
    """Eight hexadecimal digits, as in the names of WAL files."""
    database_oid: int


class StreamEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A message of the stream."""

    sequence: int
    stored_at: datetime
    """When the stream stored it."""
    committed_at: datetime
    """The event's own time: that of its commit."""
    wallet_id: WalletId
    version: int
    hash: bytes
    """Empty: recorded before there was a chain."""
    previous_hash: bytes
    payload: bytes


class LostEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event that the stream has and the journal lost."""

    wallet_id: WalletId
    version: int
    hash: bytes
    """Empty: recorded before there was a chain."""
    payload: bytes
    found_at: datetime
    outcome: str | None = None
    """What became of it; None: not decided yet."""

    @property
    def id(self) -> str:
        position = f"{self.wallet_id}:{self.version}"
        return f"{position}:{self.hash.hex()}" if self.hash else position


class StreamUnreadable(Exception):
    """The stream can't be read now."""


class StreamTail(Protocol):
    """Reads the stream from its end."""

    async def last_sequence(self) -> int:
        """Sequence of the last message; 0 if there is none or no stream.

        Raises:
            StreamUnreadable: no answer.
        """

    async def before(self, sequence: int, *, limit: int) -> Sequence[StreamEvent]:
        """Events with a lower sequence, in order: all of the last ``limit`` sequences before it.

        Empty if the stream has no earlier message. Messages that are no events are left out.

        Raises:
            StreamUnreadable: no answer.
        """


class HistoryStore(Protocol):
    """What the database knows about itself. Every call is for one session of the journal.

    All raise `SessionLost` if that session has ended, and `JournalUnavailable` without an answer.
    """

    async def identity(self, session: int) -> DatabaseIdentity: ...

    async def is_known(self, identity: DatabaseIdentity, session: int) -> bool:
        """Whether this database was found to have the whole history, or is the first one."""

    async def try_begin(self, session: int) -> bool:
        """Whether this shard got the lock of the check. It is held until ``adopt``, ``give_up`` or
        the end of the session."""

    async def give_up(self, session: int) -> None:
        """Release the lock without a result."""

    async def lost(self, events: Sequence[StreamEvent], session: int) -> Sequence[StreamEvent]:
        """Those of ``events`` that the journal doesn't have."""

    async def adopt(
        self, identity: DatabaseIdentity, lost: Sequence[StreamEvent], session: int
    ) -> int:
        """In one transaction: store ``lost``, quarantine its wallets, and know ``identity`` from
        now on. Releases the lock. Returns how many of ``lost`` were not stored before."""

    async def forked_wallets(self, session: int) -> int:
        """How many wallets are in quarantine."""
