"""Ports of the write side: the protocols of its adapters, and their errors.

Implemented by adapters for Postgres and JetStream, and by in-memory ones that pass the same tests.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple, Protocol

import msgspec

from wallet.events import RecordedEvent
from wallet.ids import IdempotencyKey, TransferId, WalletId
from wallet.slots import ALL_SLOTS, SlotRange
from wallet.state import Transfer, Wallet

TransferKey = tuple[WalletId, TransferId]
IdempotencyKeyRef = tuple[WalletId, IdempotencyKey]


class JournalConflict(Exception):
    """Another writer committed first. Nothing of the batch was applied.

    ``wallet_ids``: wallets whose versions were not as expected; empty if unknown.
    """

    def __init__(self, message: str, *, wallet_ids: frozenset[WalletId] = frozenset()) -> None:
        super().__init__(message)
        self.wallet_ids = wallet_ids


class SessionLost(Exception):
    """The requested session has ended. Nothing of this call was applied.

    What was read over it may be outdated: the next session may lead to a server that
    lacks the last commits.
    """


class JournalUnavailable(Exception):
    """The journal could not be reached. Nothing of this call was applied."""


class JournalBusy(JournalUnavailable):
    """The journal is healthy, and cancelled the call: a lock was held, or it was too slow."""


class JournalError(JournalUnavailable):
    """The journal responded with an error: because of the content, or of its own state."""


class OutcomeUnknown(Exception):
    """The journal was asked to commit and the response is lost: it may have been applied."""


class PublishFailed(Exception):
    """The stream did not acknowledge. Some or none of the events may be on it."""


class EventRange(NamedTuple):
    """The journal events of one wallet from ``first`` to ``last``, both included."""

    wallet_id: WalletId
    first: int
    last: int


class StoredAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer stored under an idempotency key."""

    fingerprint: bytes
    request_id: str
    refused: bool
    answer: bytes
    version: int
    recovered: bool = False
    """The journal lost the key, and `wallet recover` applied its events again. ``fingerprint`` has
    only its first 16 bytes, and ``answer`` is the JSON of the first event."""


class ReadSet(msgspec.Struct, kw_only=True):
    """What a batch must read before it can be decided. Empty if the cache has everything."""

    wallets: set[WalletId] = msgspec.field(default_factory=set)
    transfers: set[TransferKey] = msgspec.field(default_factory=set)
    """With a refund, the transfer that it refunds is read, too."""
    keys: set[IdempotencyKeyRef] = msgspec.field(default_factory=set)
    created_transfers: set[TransferKey] = msgspec.field(default_factory=set)
    """Transfers that an earlier delivery may have created, or a later one refused. Also deliveries
    of completions, which a later one may have refused."""
    references: set[str] = msgspec.field(default_factory=set)

    def __bool__(self) -> bool:
        return bool(
            self.wallets or self.transfers or self.keys or self.created_transfers or self.references
        )


class LoadedState(msgspec.Struct, kw_only=True):
    """What was found of a `ReadSet`; what is absent does not exist."""

    wallets: dict[WalletId, Wallet] = msgspec.field(default_factory=dict)
    unpublished: list[EventRange] = msgspec.field(default_factory=list)
    """Outbox rows of the wallets loaded, in version order per wallet."""
    transfers: dict[TransferKey, Transfer] = msgspec.field(default_factory=dict)
    keys: dict[IdempotencyKeyRef, StoredAnswer] = msgspec.field(default_factory=dict)
    created_transfers: dict[TransferKey, RecordedEvent] = msgspec.field(default_factory=dict)
    refused: dict[TransferKey, bytes] = msgspec.field(default_factory=dict)
    """Of ``ReadSet.created_transfers``: the answers of those that were refused permanently."""
    references: dict[str, WalletId] = msgspec.field(default_factory=dict)
    forked: set[WalletId] = msgspec.field(default_factory=set)
    """Of ``ReadSet.wallets``: those whose history the journal has lost a part of. They may be in
    ``wallets``, too, but nothing is decided on them."""


def refunded_by(transfers: Mapping[TransferKey, Transfer]) -> set[TransferKey]:
    """What the refunds among ``transfers`` refund, and what is not among these."""
    return {
        (wallet_id, transfer.refunds)
        for (wallet_id, _), transfer in transfers.items()
        if transfer.refunds is not None and (wallet_id, transfer.refunds) not in transfers
    }


class CommitRequest(msgspec.Struct, kw_only=True):
    """Everything that one transaction writes, and the versions and hashes that it depends on."""

    now: datetime
    expected_versions: dict[WalletId, int]
    """Version that each existing wallet was decided on, changed or only refused."""
    expected_hashes: dict[WalletId, bytes]
    """Hash of that version: a history that the journal lost may have had another event there."""
    wallets: dict[WalletId, Wallet]
    """Wallets after the batch: each of ``expected_versions`` and ``created_wallets``."""
    created_wallets: list[WalletId]
    events: list[RecordedEvent]
    stored_answers: dict[IdempotencyKeyRef, StoredAnswer] = msgspec.field(default_factory=dict)
    refused: dict[TransferKey, bytes] = msgspec.field(default_factory=dict)
    """Transfers that were refused on a second delivery, and must never be written: the first
    delivery may still be on its way. The JSON of each refusal. A completion is not refused for
    good, only this delivery of it: instead of the transfer's id stands the delivery's."""
    deliveries: set[TransferKey] = msgspec.field(default_factory=set)
    """Deliveries of completions that the batch applies: wallet and `SettleTransfer.delivery_id`.
    None of them was refused on a later delivery."""
    confirm: bool = False
    """An answer depends on what was read. That may not be on a synchronous standby yet, so the
    commit waits until it is, even if there is nothing else to write."""

    def spans(self) -> list[EventRange]:
        """The outbox rows of this batch: one per changed wallet."""
        return [
            EventRange(wallet_id, self.expected_versions.get(wallet_id, 0) + 1, wallet.version)
            for wallet_id, wallet in self.wallets.items()
            if wallet.version > self.expected_versions.get(wallet_id, 0)
        ]


class Journal(Protocol):
    """The system of record. One object serves one shard; calls don't overlap.

    ``session``: the only one that a call may use; None: any.
    """

    async def connect(self) -> int:
        """The session that the next call will use: a number that is never reused.

        Raises:
            JournalUnavailable: no answer in time.
        """

    async def load(self, missing: ReadSet, *, session: int | None = None) -> LoadedState:
        """Read what ``missing`` names, with at most one query per kind.

        Raises:
            SessionLost: ``session`` has ended.
            JournalUnavailable: no answer in time.
        """

    async def commit(self, batch: CommitRequest, *, session: int | None = None) -> None:
        """Write all of ``batch`` or nothing (INV-5).

        Raises:
            SessionLost: ``session`` has ended; nothing was written.
            JournalConflict: a version, hash, key, id or reference was not as expected; a transfer
                of the batch was refused permanently; or the history of a wallet has forked.
            JournalError: the journal answered with an error; nothing was written.
            JournalUnavailable: nothing was written.
            OutcomeUnknown: sent, and no response; or written, and not replicated.
        """

    async def locked(self, wallet_ids: Collection[WalletId]) -> frozenset[WalletId]:
        """Which of these wallets' rows are locked by another transaction now.

        Raises:
            JournalUnavailable: unknown; a whole table may be locked.
        """


class StreamMark(NamedTuple):
    """A sequence up to which the stream must have everything that it acknowledged."""

    incarnation: str
    sequence: int
    age_s: float = 0.0
    """How long ago the publish of its message began: the stream stored it no earlier."""
    lowest: int = 0
    """A lower sequence of the same events: the first mark of a stream tells whether it was purged
    right after them. 0: none."""

    @property
    def sequences(self) -> list[int]:
        return sorted({self.lowest, self.sequence} - {0})


class Outbox(Protocol):
    """Events that are committed and not yet known to be on the stream's disk."""

    async def read(self, event_ranges: Sequence[EventRange]) -> Sequence[Sequence[RecordedEvent]]:
        """Each range's events from the journal, in version order. At least one range."""

    async def delete(
        self, event_ranges: Collection[EventRange], *, mark: StreamMark | None = None
    ) -> None:
        """Delete all rows of these ranges: their events are on the stream's disk.

        ``mark``: the last of them on the stream. It is stored by the same statement, so whatever
        has no row any more is at or below a mark.
        """

    async def unpublished(
        self,
        *,
        limit: int,
        slots: Sequence[SlotRange] = ALL_SLOTS,
        after: EventRange | None = None,
        older_than_s: float = 0.0,
    ) -> Sequence[EventRange]:
        """Rows by slot and wallet, in version order: never a row without earlier ones.

        ``slots``: return rows of wallets in these slots. The cost does not depend on other rows.
        ``after``: return rows after this one; fewer than ``limit`` means that these are the last.
        ``older_than_s``: return at most ``limit`` rows of at least that age, and younger ones
        before them (the clock was set back) beside the limit.
        """


class Acknowledged(NamedTuple):
    """What the database knows of the stream."""

    incarnation: str | None = None
    """The incarnation that has been backfilled from the journal."""
    highest: int = 0
    """Its highest mark: it stored a message of this sequence, and synced it."""
    oldest_retained: int | None = None
    """Its lowest mark whose message is too young to have expired; None: there is none."""


class FilledStream(NamedTuple):
    """A stream that has everything of the journal, or everything from some moment on."""

    incarnation: str
    first: int = 0
    """Sequence of the first message of the fill; 0: nothing had to be published."""
    last: int = 0
    """Its last sequence; 0: it is empty."""
    kept: int = 0
    """Marks of its former state that are still true: those up to this sequence."""
    since: float | None = None
    """What `StreamBackfill.missing_since` gave for the fill; None: it took the whole journal."""
    took_s: float = 0.0


class StreamBackfill(Protocol):
    """State for filling a stream that lacks events: done by one relay, while the others wait."""

    async def acknowledged(self) -> Acknowledged:
        """The backfilled incarnation and its marks."""

    async def try_begin(self) -> bool:
        """Whether this relay got the lock. It holds it until ``finish`` or a lost connection."""

    async def finish(self, filled: FilledStream | None) -> None:
        """Release the lock; ``filled``: the state of the stream now, which replaces the marks."""

    async def missing_since(self, sequence: int) -> float | None:
        """A time not after the commit of any event that the stream stored after ``sequence``.

        In seconds, by the database's clock; None: any event may be among them.
        """

    async def wallet_ranges(
        self, *, after: WalletId | None, limit: int, since: float | None = None
    ) -> Sequence[EventRange]:
        """All of each wallet's events, as one range per wallet, by wallet id.

        ``since``: only of wallets that may have changed after that time.
        """

    async def limit_age(self, max_age_s: float) -> None:
        """The stream kept its messages for ``max_age_s`` only: its marks expire as early."""

    async def thin_marks(self) -> None:
        """Delete the marks that others make superfluous."""


class Message(NamedTuple):
    """One event, ready for the stream."""

    subject: str
    id: str
    payload: bytes
    traceparent: str | None = None
    """W3C ``traceparent`` for the message's headers."""


class StreamState(NamedTuple):
    """The stream at one moment."""

    incarnation: str | None
    """Identifies it since its creation, or since the last fill of it that was begun."""
    first_sequence: int = 1
    """Of the oldest message; one more than ``last_sequence`` if there is none."""
    last_sequence: int = 0
    max_age_s: float = 0.0
    """The shortest age at which its messages expired lately; 0: they don't."""
    evicts: bool = False
    """Whether messages may leave it for other reasons than their age."""


def creation_of(incarnation: str | None) -> str | None:
    """The part of ``incarnation`` that stays the same when a fill begins."""
    return None if incarnation is None else incarnation.partition("|")[0]


def fill_of(incarnation: str | None) -> str:
    """The label and the random part of the last fill that was begun; empty: there was none."""
    return "" if incarnation is None else incarnation.partition("|")[2]


class EventStream(Protocol):
    """The stream that events are relayed to."""

    @property
    def connection_epoch(self) -> int:
        """Counts connections. When one ends, the server may have lost power, and with it what it
        had acknowledged and not yet written to disk."""

    async def ensure_ready(self) -> StreamState:
        """Connect, and create the stream if it doesn't exist; returns its state.

        Raises:
            PublishFailed: not reachable now.
        """

    async def begin_fill(self, label: str, *, connection: int, purge: bool) -> StreamState:
        """Make the existing stream another incarnation: nobody who knew it can publish to it.

        ``label``: letters, digits and dashes; part of the incarnation. ``purge``: also remove all
        messages, and forget their ids. The sequences continue, and consumers keep their positions.

        Raises:
            PublishFailed: no response, or the connection was replaced.
        """

    async def last_payloads(self, wallet_ids: Sequence[WalletId]) -> Sequence[bytes | None]:
        """The payload of each wallet's last message; None: it has none.

        Raises:
            PublishFailed: not reachable now.
        """

    async def publish(
        self, messages: Sequence[Message], *, connection: int, incarnation: str | None
    ) -> int:
        """Append all of ``messages`` in order; the stream drops those that it has already.

        Only over this ``connection``: on a later one, retained events may have to go first. Only
        to this ``incarnation``, even if the stream is created again meanwhile: a new one must be
        backfilled first. Returns after the acknowledgement, and never stores a message before an
        earlier one of the same call. Returns a sequence that none of them is above.

        Raises:
            PublishFailed: no acknowledgement; publishing the same messages again is safe.
        """

    async def ping(self, *, connection: int) -> None:
        """Return once the server has responded over ``connection``: it has been up until now.

        Raises:
            PublishFailed: no response, or the connection was replaced.
        """
