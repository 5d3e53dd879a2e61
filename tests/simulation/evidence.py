"""Converts the state after a run to the checker's input types."""

from collections.abc import Sequence

import msgspec

from actors.journal.memory_database import MemoryDatabase
from tests.simulation.projections import ProjectionTables, control_of
from tests.simulation.stream import StreamServer
from tests.simulation.world import World
from tests.support.client_state import SharedClientState
from verification.cloud_events import decode_message
from verification.facts import (
    Balances,
    ClientCall,
    ExpiryRow,
    Facts,
    JournalEvent,
    KeyRow,
    OutboxRow,
    Refunded,
    StreamMessage,
    TransferRow,
    WalletRow,
)
from wallet.events import RecordedEvent, TransferChanged, WalletChanged, WalletCreated
from wallet.state import Refunded as CountedRefunds
from wallet.state import Wallet


def evidence_of(world: World, state: SharedClientState) -> Facts:
    """Everything at the end of a run."""
    database, tables = world.database, world.tables
    return msgspec.structs.replace(
        journal_facts(database, state.history),
        stream=_stream(world.stream),
        outbox=[
            OutboxRow(wallet_id=span.wallet_id, first_version=span.first, last_version=span.last)
            for rows in database.outbox.values()
            for span in rows
        ],
        wallet_projections=_projected_wallets(tables),
        transfer_projections=_projected_transfers(tables),
    )


def journal_facts(database: MemoryDatabase, history: Sequence[ClientCall]) -> Facts:
    """The journal's rows at any moment, with the clients' ``history`` until then."""
    return Facts(
        history=history,
        journal=[_event(recorded) for recorded in database.events],
        wallets=[_wallet(wallet) for wallet in database.wallets.values()],
        transfers=_transfers(database),
        keys=_keys(database),
        expiries=[
            ExpiryRow(
                wallet_id=one.wallet_id, transfer_id=one.transfer_id, expires_at=one.expires_at
            )
            for one in database.expiries
        ],
    )


def balances_of(wallet: Wallet) -> Balances:
    return Balances(
        balance=wallet.balance,
        pending_debit=wallet.pending_debit,
        pending_credit=wallet.pending_credit,
    )


def _event(recorded: RecordedEvent) -> JournalEvent:
    event, wallet = recorded.event, recorded.wallet_after
    if isinstance(event, WalletChanged):
        asked = event.metadata.get("operation_id", "")
        return JournalEvent(
            wallet_id=wallet.id,
            version=wallet.version,
            type=event.type,
            after=balances_of(wallet),
            occurred_at=event.occurred_at,
            control=control_of(wallet),
            reason=asked if event.type == "wallet.updated" else event.reason or "",
        )
    if not isinstance(event, TransferChanged):
        return JournalEvent(
            wallet_id=wallet.id,
            version=wallet.version,
            type=event.type,
            after=balances_of(wallet),
            occurred_at=event.occurred_at,
            reference_id=(isinstance(event, WalletCreated) and event.reference_id) or "",
            control=control_of(wallet) if isinstance(event, WalletCreated) else None,
        )
    transfer = event.transfer
    return JournalEvent(
        wallet_id=wallet.id,
        version=wallet.version,
        type=event.type,
        after=balances_of(wallet),
        transfer_id=transfer.id,
        transfer_type=transfer.type,
        previous_status=event.previous or "",
        amount=transfer.amount,
        reference_id=transfer.reference_id or "",
        failure_reason=transfer.failure_reason or "",
        expires_at=transfer.expiry.at if transfer.expiry is not None else None,
        on_expiry=transfer.expiry.action if transfer.expiry is not None else "",
        part=transfer.part or 0,
        completed_before=event.completed_before,
        refunds=transfer.refunds or "",
        refunded=refunded_of(event.refunded or transfer.refunded),
        occurred_at=event.occurred_at,
    )


def refunded_of(counted: CountedRefunds | None) -> Refunded | None:
    return None if counted is None else Refunded(counted.completed, counted.pending)


def _wallet(wallet: Wallet) -> WalletRow:
    return WalletRow(
        wallet_id=wallet.id,
        version=wallet.version,
        balances=balances_of(wallet),
        currency=wallet.currency,
        control=control_of(wallet),
    )


def _transfers(database: MemoryDatabase) -> list[TransferRow]:
    return [
        TransferRow(
            wallet_id=wallet_id,
            transfer_id=transfer.id,
            type=transfer.type,
            status=transfer.status,
            amount=transfer.amount,
            created_version=transfer.created_version,
            reference_id=transfer.reference_id or "",
            failure_reason=transfer.failure_reason or "",
            expires_at=transfer.expiry.at if transfer.expiry is not None else None,
            on_expiry=transfer.expiry.action if transfer.expiry is not None else "",
            part=transfer.part or 0,
            refunds=transfer.refunds or "",
            refunded=refunded_of(transfer.refunded),
        )
        for (wallet_id, _), transfer in database.transfers.items()
    ]


def _keys(database: MemoryDatabase) -> list[KeyRow]:
    return [
        KeyRow(
            wallet_id=scope,
            key=key,
            refused=stored.refused,
            answer=stored.answer.decode(),
            version=stored.version,
        )
        for (scope, key), stored in database.idempotency_keys.items()
    ]


def _stream(server: StreamServer) -> list[StreamMessage]:
    return [
        decode_message(sequence, message.id, message.subject, message.payload)
        for sequence, message, _ in server.stored
    ]


def _projected_wallets(tables: ProjectionTables) -> list[WalletRow]:
    return [
        WalletRow(
            wallet_id=row.id,
            version=row.version,
            balances=Balances(
                balance=row.balance,
                pending_debit=row.pending_debit,
                pending_credit=row.pending_credit,
            ),
            control=row.control,
        )
        for row in tables.wallets.values()
    ]


def _projected_transfers(tables: ProjectionTables) -> list[TransferRow]:
    return [
        TransferRow(
            wallet_id=wallet_id,
            transfer_id=transfer_id,
            type=row.type,
            status=row.status,
            amount=row.amount,
            created_version=row.created_version,
            reference_id=row.reference_id or "",
            failure_reason=row.failure_reason or "",
            expires_at=row.expires_at,
            on_expiry=row.on_expiry or "",
            part=row.part,
            refunds=row.refunds,
            refunded=row.refunded,
        )
        for (wallet_id, transfer_id), row in tables.transfers.items()
    ]
