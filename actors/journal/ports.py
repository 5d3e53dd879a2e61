"""What the write side needs of the world, and how the world may fail it.

Small protocols; adapters for Postgres and JetStream implement them, and so do in-memory ones
that pass the same tests.
"""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import NamedTuple, Protocol

import msgspec

from wallet.commands import Idempotency
from wallet.events import RecordedEvent
from wallet.ids import IdempotencyKey, TransferId, WalletId
from wallet.state import Transfer, Wallet

TransferKey = tuple[WalletId, TransferId]
IdempotencyKeyRef = tuple[WalletId, IdempotencyKey]


class JournalConflict(Exception):
    """Somebody else wrote first. Nothing of the batch was applied.

    ``wallet_ids``: whose versions were not as expected; empty if the journal can't tell.
    """

    def __init__(self, message: str, *, wallet_ids: frozenset[WalletId] = frozenset()) -> None:
        super().__init__(message)
        self.wallet_ids = wallet_ids


class SessionLost(Exception):
    """The session has ended over which something was to be asked. Nothing of it was applied.

    What was read over it may not be true any more: the next session may lead to a server that
    lacks the last commits.
    """


class JournalUnavailable(Exception):
    """The journal could not be asked. Nothing of this call was applied."""


class JournalBusy(JournalUnavailable):
    """The journal is well, and ended what took too long: a lock was held, or all of it was slow."""


class JournalError(JournalUnavailable):
    """The journal is alive and refused what it was asked: the content, or its own state."""


class OutcomeUnknown(Exception):
    """The journal was asked to commit and the answer is lost: it may have been applied."""


class PublishFailed(Exception):
    """The stream did not acknowledge. Some or none of the events may be on it."""


class EventRange(NamedTuple):
    """The journal events of one wallet from ``first`` to ``last``, both included."""

    wallet_id: WalletId
    first: int
    last: int


class StoredAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What was answered under an idempotency key."""

    fingerprint: bytes
    request_id: str
    refused: bool
    answer: bytes
    version: int


class IdempotencyRecord(msgspec.Struct, frozen=True, kw_only=True):
    """An answer to be remembered under a key, in the scope of one wallet."""

    scope: WalletId
    idempotency: Idempotency
    stored: StoredAnswer


class RefusedDelivery(msgspec.Struct, frozen=True, kw_only=True):
    """A transfer that was refused on a second delivery, and must never be written: the first
    delivery may still be on its way. ``answer`` is the JSON of the refusal."""

    wallet_id: WalletId
    transfer_id: TransferId
    answer: bytes


class ReadSet(msgspec.Struct, kw_only=True):
    """What a batch must read before it can be decided. Empty when everything is warm."""

    wallets: set[WalletId] = msgspec.field(default_factory=set)
    transfers: set[TransferKey] = msgspec.field(default_factory=set)
    keys: set[IdempotencyKeyRef] = msgspec.field(default_factory=set)
    created_transfers: set[TransferKey] = msgspec.field(default_factory=set)
    """Transfers that an earlier delivery may have created, or a later one refused."""
    references: set[str] = msgspec.field(default_factory=set)

    def __bool__(self) -> bool:
        return bool(
            self.wallets or self.transfers or self.keys or self.created_transfers or self.references
        )


class LoadedState(msgspec.Struct, kw_only=True):
    """What was found of the ``Missing``; what is absent does not exist."""

    wallets: dict[WalletId, Wallet] = msgspec.field(default_factory=dict)
    unpublished: list[EventRange] = msgspec.field(default_factory=list)
    """Outbox rows of the wallets loaded, in version order per wallet."""
    transfers: dict[TransferKey, Transfer] = msgspec.field(default_factory=dict)
    keys: dict[IdempotencyKeyRef, StoredAnswer] = msgspec.field(default_factory=dict)
    created_transfers: dict[TransferKey, RecordedEvent] = msgspec.field(default_factory=dict)
    refused: dict[TransferKey, bytes] = msgspec.field(default_factory=dict)
    """Of ``Missing.recorded``: the answers of those that were refused for good."""
    references: dict[str, WalletId] = msgspec.field(default_factory=dict)


class CommitRequest(msgspec.Struct, kw_only=True):
    """Everything that one transaction writes, and the versions that it rests on."""

    now: datetime
    expected_versions: dict[WalletId, int]
    """Version that each existing wallet was decided on, changed or only refused."""
    wallets: dict[WalletId, Wallet]
    """Wallets as the batch leaves them: every one of ``expected`` and of ``created``."""
    created_wallets: list[WalletId]
    events: list[RecordedEvent]
    idempotency_records: list[IdempotencyRecord]
    refused: list[RefusedDelivery] = msgspec.field(default_factory=list)
    confirm: bool = False
    """Something is answered from what was read. That may not be on a synchronous standby yet, so
    the commit waits until it is, also if there is nothing else to write."""

    def spans(self) -> list[EventRange]:
        """The outbox rows of this batch: one a changed wallet."""
        return [
            EventRange(wallet_id, self.expected_versions.get(wallet_id, 0) + 1, wallet.version)
            for wallet_id, wallet in self.wallets.items()
            if wallet.version > self.expected_versions.get(wallet_id, 0)
        ]


class Journal(Protocol):
    """The truth. One object serves one shard; calls don't overlap.

    ``session``: the only one over which a call may be made; None: any.
    """

    async def connect(self) -> int:
        """The session that the next call will use: a number that never comes back once it ended.

        Raises:
            JournalUnavailable: no answer in time.
        """

    async def load(self, missing: ReadSet, *, session: int | None = None) -> LoadedState:
        """Read what ``missing`` names, at most one query a kind.

        Raises:
            SessionLost: ``session`` has ended.
            JournalUnavailable: no answer in time.
        """

    async def commit(self, batch: CommitRequest, *, session: int | None = None) -> None:
        """Write all of ``batch`` or nothing (INV-5).

        Raises:
            SessionLost: ``session`` has ended; nothing was written.
            JournalConflict: a version, key, id or reference was not as expected; or a transfer of
                the batch was refused for good.
            JournalError: the journal answered with an error; nothing was written.
            JournalUnavailable: surely nothing was written.
            OutcomeUnknown: asked, and no answer came; or it is written and not replicated.
        """

    async def locked(self, wallet_ids: Collection[WalletId]) -> frozenset[WalletId]:
        """Which of these wallets' rows somebody else holds locked now.

        Raises:
            JournalUnavailable: it can't be told; a whole table may be locked.
        """


class Outbox(Protocol):
    """Events that are committed and not yet known to be on the stream's disk."""

    async def read(self, spans: Sequence[EventRange]) -> Sequence[Sequence[RecordedEvent]]:
        """Each span's events from the journal, in version order. At least one span."""

    async def delete(self, spans: Collection[EventRange]) -> None:
        """Forget all rows of these spans: their events are on the stream's disk."""

    async def unpublished(
        self, *, limit: int, after: EventRange | None = None, older_than_s: float = 0.0
    ) -> Sequence[EventRange]:
        """Rows of every wallet, by wallet and in version order: never one without those before.

        ``after``: the next ones after that row; fewer than ``limit`` are the last ones.
        ``older_than_s``: up to the last row of each wallet that is that old.
        """


class StreamBackfill(Protocol):
    """What is needed to fill a stream anew that was lost: by one relay, while the others wait."""

    async def backfilled_incarnation(self) -> str | None:
        """The incarnation of the stream that is known to have got all of the journal."""

    async def try_begin(self) -> bool:
        """Whether this relay may fill now; nobody else may until ``end`` or a lost connection."""

    async def finish(self, incarnation: str | None) -> None:
        """Let others fill; ``incarnation``: it has everything now."""

    async def wallet_ranges(self, *, after: WalletId | None, limit: int) -> Sequence[EventRange]:
        """By wallet id: all of each wallet's events."""


class Message(NamedTuple):
    """One event, ready for the stream."""

    subject: str
    id: str
    payload: bytes
    traceparent: str | None = None
    """W3C ``traceparent`` that travels in the message's headers."""


class EventStream(Protocol):
    """The stream that events are relayed to."""

    @property
    def connection_epoch(self) -> int:
        """Counts connections. When one ends the server may have lost power, and with it what it
        had acknowledged and not yet written to its disk."""

    async def ensure_ready(self) -> str | None:
        """Connect, and make the stream if it isn't there; returns which incarnation of it this is.

        Raises:
            PublishFailed: not reachable now.
        """

    async def publish(
        self, messages: Sequence[Message], *, connection: int, incarnation: str | None
    ) -> None:
        """Append all of ``messages`` in order; those that are on the stream already are left.

        Over no other ``connection`` than that: on a later one something else may have to go first.
        To no other ``incarnation`` than that, whatever happens to the stream meanwhile: another
        one must be filled first.
        Returns after the acknowledgement, and never stores a message before an earlier one
        of the same call.

        Raises:
            PublishFailed: no acknowledgement; publishing the same messages again is safe.
        """

    async def ping(self, *, connection: int) -> None:
        """Return once the server has said something over ``connection``: it has been up until now.

        Raises:
            PublishFailed: it says nothing, or another connection has come since.
        """


class ProbeFailed(Exception):
    """A probe was not written. The message begins with the SQLSTATE, if the server gave one."""


class WriteProbe(Protocol):
    """Writes something that nobody reads."""

    async def write(self, *, allocating: bool) -> None:
        """Return once it is committed as a batch would be.

        ``allocating``: try as well to get space on the disk.

        Raises:
            ProbeFailed: it was refused, or there is no connection.
        """
