"""From what a client wants to a submission, and from the reply to what the client then knows.

This is the HTTP layer's part, without HTTP: ids minted per request, fingerprints of what was
asked, statuses of what was answered.
"""

import hashlib
from collections.abc import Sequence

import msgspec

from actors.protocol import (
    Applied,
    BatchCommitted,
    BatchRolledBack,
    Failure,
    ItemResult,
    Refused,
    RequestResult,
)
from tests.simulation.chance import Dice
from verification.evidence import Attempt, Operation, Outcome
from wallet.commands import (
    Command,
    CreateTransfer,
    CreateWallet,
    Item,
    Keyed,
    SettleTransfer,
    Submission,
)
from wallet.ids import IdempotencyKey, TransferId, WalletId, creation_scope
from wallet.money import canonical_amount, from_minor


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a client wants, the same in every attempt at it."""

    intent: str
    operation: Operation
    wallet_id: str = ""
    transfer_id: str = ""
    amount: int = 0
    pending: bool = False
    key: str = ""


def submission_for(
    wishes: Sequence[Wish], dice: Dice, *, timeout_s: float, atomic: bool
) -> Submission:
    """The submission that an ingress makes of a request."""
    first = wishes[0]
    wallet_id = WalletId(first.wallet_id or dice.identifier())
    commands = [_command(wish, wallet_id, dice) for wish in wishes]
    if first.operation == "create_wallet" and first.key:
        wallet_id = creation_scope(IdempotencyKey(first.key))
    return Submission(
        wallet_id=wallet_id,
        items=tuple(
            Item(command=command, keyed=_keyed(wish))
            for wish, command in zip(wishes, commands, strict=True)
        ),
        request_id=dice.identifier(),
        timeout_s=timeout_s,
        atomic=atomic,
        several=len(wishes) > 1,
    )


def _command(wish: Wish, wallet_id: WalletId, dice: Dice) -> Command:
    if wish.operation == "create_wallet":
        return CreateWallet(
            new_wallet_id=wallet_id, currency="USD", scale=2, reference_id=wish.intent
        )
    if wish.operation in ("complete", "revert"):
        return SettleTransfer(
            transfer_id=TransferId(wish.transfer_id),
            status="completed" if wish.operation == "complete" else "failed",
            reference_id=wish.intent,
        )
    return CreateTransfer(
        transfer_id=TransferId(dice.identifier()),
        type="debit" if wish.operation == "debit" else "credit",
        status="pending" if wish.pending else "completed",
        amount=canonical_amount(from_minor(wish.amount, 2)),
        reference_id=wish.intent,
    )


def _keyed(wish: Wish) -> Keyed | None:
    if not wish.key:
        return None
    asked = hashlib.sha256(msgspec.json.encode(wish)).digest()
    return Keyed(key=IdempotencyKey(wish.key), fingerprint=asked)


def attempts_of(
    wishes: Sequence[Wish], reply: RequestResult | None, started: int, ended: int
) -> list[Attempt]:
    """What the client writes down; ``reply`` is None if none came."""
    if reply is None:
        return [_attempt(wish, started, ended, "unknown") for wish in wishes]
    if isinstance(reply, Failure):
        outcome: Outcome = "not_applied" if reply.applied == "no" else "unknown"
        code, detail = str(reply.code), reply.detail
        return [_attempt(wish, started, ended, outcome, code=code, body=detail) for wish in wishes]
    if isinstance(reply, BatchRolledBack):
        return [_attempt(wish, started, ended, "not_applied", code="undone") for wish in wishes]
    if isinstance(reply, BatchCommitted):
        return [
            _answered(wish, started, ended, item)
            for wish, item in zip(wishes, reply.items, strict=True)
        ]
    assert isinstance(reply, Applied | Refused), reply
    (wish,) = wishes
    return [_answered(wish, started, ended, reply)]


def _answered(wish: Wish, started: int, ended: int, result: ItemResult) -> Attempt:
    if isinstance(result, Refused):
        return _attempt(
            wish,
            started,
            ended,
            "refused",
            code=str(result.refusal.code),
            status=409,
            body=msgspec.json.encode(result.refusal).decode(),
            replayed=result.replayed,
        )
    return _attempt(
        wish,
        started,
        ended,
        "acknowledged",
        status=200,
        body=result.body.decode(),
        replayed=result.replayed,
        version=result.version,
    )


def _attempt(
    wish: Wish,
    started: int,
    ended: int,
    outcome: Outcome,
    *,
    code: str = "",
    status: int = 0,
    body: str = "",
    replayed: bool = False,
    version: int = 0,
) -> Attempt:
    return Attempt(
        intent=wish.intent,
        operation=wish.operation,
        wallet_id=wish.wallet_id,
        transfer_id=wish.transfer_id,
        amount=wish.amount,
        pending=wish.pending,
        key=wish.key,
        started=started,
        ended=ended,
        outcome=outcome,
        code=code,
        status=status,
        body=body,
        replayed=replayed,
        version=version,
    )
