"""Mutations: variants of the service that each break one rule, to test the checker.

Each names the violation that must be found. Most remove one line that could look superfluous.
"""

import asyncio
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any, Final
from unittest.mock import patch

import msgspec

from actors.dispatch import dispatcher
from actors.journal.memory_database import MemoryDatabase
from actors.journal.memory_transactions import MemoryTransaction
from actors.journal.ports import (
    Acknowledged,
    CommitRequest,
    Journal,
    LoadedState,
    OutcomeUnknown,
    ReadSet,
    StreamState,
)
from actors.outbox import backfill
from actors.outbox.relay import OutboxRelay
from actors.outbox.retention import OutboxRetention
from actors.outbox.stream_loss import StreamLoss, loss_of
from actors.shard import batch_decision
from projections import changes
from projections.store import BalanceRow, ControlRow, Reason
from tests.simulation.projections import ProjectionTables
from tests.simulation.run_config import config_for_seed
from tests.simulation.scenario import Make
from tests.simulation.stream import StreamServer
from tests.simulation.world import World
from verification.violations import ViolationKind
from wallet import rules
from wallet.commands import CommandRequest
from wallet.event_codec import CloudEvent
from wallet.events import RecordedEvent
from wallet.ids import WalletId
from wallet.representation import WalletView
from wallet.rules import decide_settlement
from wallet.state import Refunded, Transfer, TransferStatus


class _Journal:
    """A journal with one change; see the subclasses."""

    def __init__(self, journal: Journal, relay: OutboxRelay) -> None:
        self._journal = journal
        self._relay = relay

    async def connect(self) -> int:
        return await self._journal.connect()

    async def load(self, missing: ReadSet, *, session: int) -> LoadedState:
        return await self._journal.load(missing, session=session)

    async def commit(self, write: CommitRequest, *, session: int) -> None:
        await self._journal.commit(write, session=session)

    async def locked(self, wallet_ids: Collection[WalletId]) -> frozenset[WalletId]:
        return await self._journal.locked(wallet_ids)


class _PublishesFirst(_Journal):
    async def commit(self, write: CommitRequest, *, session: int) -> None:
        for event_range in write.spans():
            recorded = [one for one in write.events if one.wallet_after.id == event_range.wallet_id]
            self._relay.add(event_range, recorded)
        await self._journal.commit(write, session=session)


class _TrustsLostAnswers(_Journal):
    async def commit(self, write: CommitRequest, *, session: int) -> None:
        try:
            await self._journal.commit(write, session=session)
        except OutcomeUnknown:
            return


class _LeavesPredecessorsEvents(_Journal):
    async def load(self, missing: ReadSet, *, session: int) -> LoadedState:
        loaded = await self._journal.load(missing, session=session)
        return msgspec.structs.replace(loaded, unpublished=[])


class _RefusesFromMemory(_Journal):
    async def commit(self, write: CommitRequest, *, session: int) -> None:
        if write.events:
            await self._journal.commit(write, session=session)


def _world_with(kind: type[_Journal]) -> Make:
    class Mutated(World):
        def wrap_journal(self, journal: Journal, relay: OutboxRelay) -> Any:
            return kind(journal, relay)

    return Mutated


class _AddingTables(ProjectionTables):
    """Adds each delivered change, duplicates included, instead of keeping the newest state."""

    def _move_wallet(self, row: BalanceRow) -> None:
        stored = self.wallets.get(row.id)
        if stored is None:
            return
        before = self._database.events_by_wallet[row.id][max(row.first_version - 2, 0)].wallet_after
        stored.version = max(stored.version, row.last_version)
        stored.balance += int(row.balance) - before.balance
        stored.pending_debit += int(row.pending_debit) - before.pending_debit
        stored.pending_credit += int(row.pending_credit) - before.pending_credit


class _AddingWorld(World):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.tables = _AddingTables(self.database)


class _TrustingTables(ProjectionTables):
    """Applies events by their version, whichever history they belong to."""

    def _reason(self, row: BalanceRow) -> Reason | None:
        return Reason.GAP if self._head(row.id).version < row.first_version - 1 else None


class _TrustingWorld(World):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.tables = _TrustingTables(self.database)


def _is_at_version(transaction: MemoryTransaction, wallet_id: WalletId) -> bool:
    stored = transaction._database.wallets.get(wallet_id)
    return stored is not None and stored.version == transaction._batch.expected_versions[wallet_id]


def _numbered(recorded: RecordedEvent) -> str:
    return f"{recorded.wallet_after.id}:{recorded.wallet_after.version}"


def _numbered_on_stream(event: CloudEvent) -> str:
    return f"{event.subject}:{event.walletversion}"


def _never(*_: object) -> bool:
    return False


def _zero(*_: object) -> int:
    return 0


def _as_if_active(wallet: WalletView) -> ControlRow:
    """What a projection shows that doesn't know of freezes."""
    return ControlRow(wallet.id, "active", None, None, "0", None)


def _do_nothing(*_: object) -> None:
    """Replaces a check or a write of the journal with nothing."""


def _settle_again(wallet: Any, transfer: Transfer | None, command: Any, *, now: Any) -> Any:
    if transfer is not None:
        transfer = msgspec.structs.replace(transfer, status=TransferStatus.PENDING)
    return decide_settlement(wallet, transfer, command, now=now)


def _always_first(pending: Any, now: float) -> CommandRequest:
    request: CommandRequest = pending.request
    return msgspec.structs.replace(request, timeout_s=max(pending.deadline - now, 0.0))


def _at_once(_retention: OutboxRetention) -> float:
    return asyncio.get_running_loop().time()


def _always(_server: StreamServer, _incarnation: str | None) -> bool:
    return True


def _only_new_streams(known: Acknowledged, state: StreamState) -> StreamLoss | None:
    loss = loss_of(known, state)
    return loss if loss is StreamLoss.NEW else None


class Mutation:
    """One broken rule: the change, and the violation that reports it."""

    def __init__(
        self,
        breach: ViolationKind,
        *,
        make: Make = World,
        patches: tuple[tuple[object, str, object], ...] = (),
        loses_commits: bool = False,
    ) -> None:
        """``loses_commits``: only a database that loses commits can show it."""
        self.breach = breach
        self._make = make
        self._patches = patches
        self._loses_commits = loses_commits

    def may_show(self, seed: int) -> bool:
        """Whether ``seed`` can catch it at all."""
        return not self._loses_commits or config_for_seed(seed).failovers > 0

    @contextmanager
    def applied(self) -> Iterator[Make]:
        patches = [patch.object(*one) for one in self._patches]
        for one in patches:
            one.start()
        try:
            yield self._make
        finally:
            for one in patches:
                one.stop()


MUTATIONS: Final[dict[str, Mutation]] = {
    "drop the version check": Mutation(
        ViolationKind.VERSION_REPEATED,
        patches=((MemoryTransaction, "_check_versions", _do_nothing),),
    ),
    "publish before the commit": Mutation(
        ViolationKind.STREAM_EVENT_UNKNOWN, make=_world_with(_PublishesFirst)
    ),
    "forget the key table": Mutation(
        ViolationKind.WRITE_APPLIED_TWICE,
        patches=((MemoryDatabase, "_store_answers", _do_nothing),),
    ),
    "settle twice": Mutation(
        ViolationKind.TRANSFER_SETTLED_TWICE,
        patches=(
            (MemoryTransaction, "_check_transfers", _do_nothing),
            (batch_decision, "decide_settlement", _settle_again),
        ),
    ),
    "apply an event twice in the projection": Mutation(
        ViolationKind.PROJECTION_DIFFERS, make=_AddingWorld
    ),
    "take a lost acknowledgement for a success": Mutation(
        ViolationKind.ACKNOWLEDGED_WRITE_MISSING, make=_world_with(_TrustsLostAnswers)
    ),
    "deliver again as if for the first time": Mutation(
        ViolationKind.REFUSED_WRITE_APPLIED, patches=((dispatcher, "_for_delivery", _always_first),)
    ),
    "refuse a second delivery for now only": Mutation(
        ViolationKind.REFUSED_WRITE_APPLIED,
        patches=((MemoryTransaction, "_check_refused_deliveries", _do_nothing),),
    ),
    "relay without what predecessors left": Mutation(
        ViolationKind.STREAM_EVENT_OUT_OF_ORDER, make=_world_with(_LeavesPredecessorsEvents)
    ),
    "forget an event at its acknowledgement": Mutation(
        ViolationKind.STREAM_EVENT_MISSING,
        # A stream that is behind would be filled again: each of the two alone loses nothing.
        patches=(
            (OutboxRetention, "_retain_until", _at_once),
            (backfill, "loss_of", _only_new_streams),
        ),
    ),
    "fill whichever stream is there": Mutation(
        ViolationKind.STREAM_EVENT_OUT_OF_ORDER, patches=((StreamServer, "listens_at", _always),)
    ),
    "fill deleted streams only": Mutation(
        ViolationKind.STREAM_EVENT_MISSING, patches=((backfill, "loss_of", _only_new_streams),)
    ),
    "refuse from memory": Mutation(
        ViolationKind.REFUSAL_UNJUSTIFIED, make=_world_with(_RefusesFromMemory)
    ),
    "check the version only": Mutation(
        ViolationKind.FOLD_BROKEN,
        patches=((MemoryTransaction, "_is_current", _is_at_version),),
        loses_commits=True,
    ),
    "id without hash": Mutation(
        ViolationKind.STREAM_EVENT_MISSING,
        patches=(
            (RecordedEvent, "id", property(_numbered)),
            (changes, "event_id", _numbered_on_stream),
        ),
        loses_commits=True,
    ),
    "move money of a frozen wallet": Mutation(
        ViolationKind.TRANSITION_FORBIDDEN, patches=((rules, "_is_stopped", _never),)
    ),
    "let nothing expire": Mutation(
        ViolationKind.EXPIRY_WRONG, patches=((Transfer, "is_due", _never),)
    ),
    "let refunds sum up to any amount": Mutation(
        ViolationKind.REFUND_WRONG, patches=((Refunded, "total", property(_zero)),)
    ),
    "project no freezes": Mutation(
        ViolationKind.PROJECTION_DIFFERS, patches=((changes, "_control_row", _as_if_active),)
    ),
    "project events of a lost history": Mutation(ViolationKind.READ_DIFFERS, make=_TrustingWorld),
}
