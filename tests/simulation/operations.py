"""Converts requested operations to command requests, and replies to recorded outcomes.

Does the work of the HTTP layer without HTTP: ids per request, fingerprints, statuses.
"""

import hashlib
from collections.abc import Sequence

import msgspec

from actors.rpc.messages import (
    Applied,
    BatchCommitted,
    BatchRolledBack,
    Failure,
    ItemResult,
    Refused,
    RequestResult,
)
from tests.simulation.fault_probabilities import SeededRandom
from tests.support.load_client import (
    BATCH_REFUSED,
    CallTiming,
    RequestedOperation,
    attempt_at,
)
from verification.facts import ClientCall, Outcome
from wallet.commands import (
    CloseWallet,
    Command,
    CommandItem,
    CommandRequest,
    CreateTransfer,
    CreateWallet,
    FreezeWallet,
    Idempotency,
    RefundTransfer,
    RequestedExpiry,
    SettleTransfer,
    UnfreezeWallet,
    UpdateWallet,
)
from wallet.ids import IdempotencyKey, TransferId, WalletId, wallet_creation_scope
from wallet.money import canonical_amount, canonical_limit, from_minor


def request_for(
    operations: Sequence[RequestedOperation],
    random: SeededRandom,
    *,
    timeout_s: float,
    atomic: bool,
) -> CommandRequest:
    """The command request that an ingress builds."""
    first = operations[0]
    wallet_id = WalletId(first.wallet_id or random.identifier())
    commands = [_command(operation, wallet_id, random) for operation in operations]
    if first.operation == "create_wallet" and first.key:
        wallet_id = wallet_creation_scope(IdempotencyKey(first.key))
    return CommandRequest(
        wallet_id=wallet_id,
        items=tuple(
            CommandItem(command=command, idempotency=_keyed(operation, random))
            for operation, command in zip(operations, commands, strict=True)
        ),
        request_id=random.identifier(),
        timeout_s=timeout_s,
        atomic=atomic,
        is_batch=len(operations) > 1,
    )


def _command(operation: RequestedOperation, wallet_id: WalletId, random: SeededRandom) -> Command:
    if operation.operation == "create_wallet":
        return CreateWallet(
            wallet_id=wallet_id, currency="USD", scale=2, reference_id=operation.intent
        )
    if operation.operation in ("complete", "revert"):
        completes = operation.operation == "complete"
        keyless = completes and not operation.key and not operation.amount
        return SettleTransfer(
            transfer_id=TransferId(operation.transfer_id),
            status="completed" if completes else "failed",
            amount=canonical_amount(from_minor(operation.amount, 2)) if operation.amount else None,
            final=operation.final,
            reference_id=operation.intent,
            delivery_id=TransferId(random.identifier()) if keyless else None,
        )
    if (control := _control(operation)) is not None:
        return control
    if operation.operation == "refund":
        return RefundTransfer(
            transfer_id=TransferId(random.identifier()),
            refunds=TransferId(operation.transfer_id),
            status="pending" if operation.pending else "completed",
            amount=canonical_amount(from_minor(operation.amount, 2)) if operation.amount else None,
            reference_id=operation.intent,
            expiry=_expiry(operation),
        )
    return CreateTransfer(
        transfer_id=TransferId(random.identifier()),
        type="debit" if operation.operation == "debit" else "credit",
        status="pending" if operation.pending else "completed",
        amount=canonical_amount(from_minor(operation.amount, 2)),
        reference_id=operation.intent,
        expiry=_expiry(operation),
    )


def _expiry(operation: RequestedOperation) -> RequestedExpiry | None:
    if not operation.expires_in_s:
        return None
    return RequestedExpiry(after_s=operation.expires_in_s, action=operation.on_expiry)


def _control(operation: RequestedOperation) -> Command | None:
    """The change of a wallet that was asked for; None: something else was."""
    match operation.operation:
        case "update":
            limit = canonical_limit(from_minor(operation.amount, 2))
            patch = {"operation_id": operation.intent}
            return UpdateWallet(metadata=patch, overdraft_limit=limit)
        case "freeze":
            return FreezeWallet(direction=operation.direction or "both", reason=operation.intent)
        case "unfreeze":
            return UnfreezeWallet(reason=operation.intent)
        case "close":
            return CloseWallet(reason=operation.intent)
    return None


def _keyed(operation: RequestedOperation, random: SeededRandom) -> Idempotency | None:
    key = operation.key
    is_part = operation.operation == "complete" and operation.amount > 0
    if not key and (is_part or _control(operation) is not None):
        key = f"own-{random.identifier()}"  # As the ingress does.
    if not key:
        return None
    asked = hashlib.sha256(msgspec.json.encode(operation)).digest()
    return Idempotency(key=IdempotencyKey(key), fingerprint=asked)


def attempts_of(
    operations: Sequence[RequestedOperation],
    reply: RequestResult | None,
    started: int,
    ended: int,
) -> list[ClientCall]:
    """The recorded attempts; ``reply`` is None if there was none."""
    timing = CallTiming(started, ended)
    if reply is None:
        return [attempt_at(operation, timing, "unknown") for operation in operations]
    if isinstance(reply, Failure):
        outcome: Outcome = "not_applied" if reply.applied == "no" else "unknown"
        code, detail = str(reply.code), reply.detail
        return [
            attempt_at(operation, timing, outcome, code=code, body=detail)
            for operation in operations
        ]
    if isinstance(reply, BatchRolledBack):
        return [
            attempt_at(operation, timing, "not_applied", code=BATCH_REFUSED)
            for operation in operations
        ]
    if isinstance(reply, BatchCommitted):
        return [
            _answered(operation, timing, item)
            for operation, item in zip(operations, reply.items, strict=True)
        ]
    assert isinstance(reply, Applied | Refused), reply
    (operation,) = operations
    return [_answered(operation, timing, reply)]


def _answered(operation: RequestedOperation, timing: CallTiming, result: ItemResult) -> ClientCall:
    if isinstance(result, Refused):
        return attempt_at(
            operation,
            timing,
            "refused",
            code=str(result.refusal.code),
            status=409,
            body=msgspec.json.encode(result.refusal).decode(),
            replayed=result.replayed,
        )
    return attempt_at(
        operation,
        timing,
        "acknowledged",
        status=200,
        body=result.body.decode(),
        replayed=result.replayed,
        version=result.version,
    )
