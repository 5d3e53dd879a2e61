"""Refusals of commands. A refusal is a value; its code names the violated rule."""

from enum import StrEnum

import msgspec


class RefusalCode(StrEnum):
    """Stable codes that clients may branch on."""

    WALLET_NOT_FOUND = "wallet_not_found"
    TRANSFER_NOT_FOUND = "transfer_not_found"
    INSUFFICIENT_FUNDS = "insufficient_funds"
    BALANCE_OUT_OF_RANGE = "balance_out_of_range"
    TRANSFER_ALREADY_COMPLETED = "transfer_already_completed"
    TRANSFER_ALREADY_FAILED = "transfer_already_failed"
    REFERENCE_ID_TAKEN = "reference_id_taken"
    WALLET_FROZEN = "wallet_frozen"
    WALLET_CLOSED = "wallet_closed"
    VALIDATION_ERROR = "validation_error"
    IDEMPOTENCY_KEY_REUSED = "idempotency_key_reused"
    PRECONDITION_FAILED = "precondition_failed"
    OVERDRAFT_IN_USE = "overdraft_in_use"
    METADATA_FULL = "metadata_full"
    WALLET_NOT_EMPTY = "wallet_not_empty"
    EXPIRY_OUT_OF_RANGE = "expiry_out_of_range"
    AMOUNT_EXCEEDS_HOLD = "amount_exceeds_hold"
    TRANSFER_NOT_COMPLETED = "transfer_not_completed"
    TRANSFER_IS_REFUND = "transfer_is_refund"
    AMOUNT_EXCEEDS_REFUNDABLE = "amount_exceeds_refundable"


STORED_UNDER_KEY = frozenset(
    {
        RefusalCode.INSUFFICIENT_FUNDS,
        RefusalCode.BALANCE_OUT_OF_RANGE,
        RefusalCode.TRANSFER_ALREADY_COMPLETED,
        RefusalCode.TRANSFER_ALREADY_FAILED,
        RefusalCode.REFERENCE_ID_TAKEN,
        RefusalCode.WALLET_FROZEN,
        RefusalCode.WALLET_CLOSED,
        RefusalCode.PRECONDITION_FAILED,
        RefusalCode.OVERDRAFT_IN_USE,
        RefusalCode.METADATA_FULL,
        RefusalCode.WALLET_NOT_EMPTY,
        RefusalCode.EXPIRY_OUT_OF_RANGE,
        RefusalCode.AMOUNT_EXCEEDS_HOLD,
        RefusalCode.TRANSFER_NOT_COMPLETED,
        RefusalCode.TRANSFER_IS_REFUND,
        RefusalCode.AMOUNT_EXCEEDS_REFUNDABLE,
    }
)
"""Refusals stored under the idempotency key, so that a late duplicate of a declined payment can't
succeed. Refusals for an unknown wallet or transfer, or an invalid request, are not stored."""


class Refusal(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A decision against a command. ``detail`` explains to a person the reason and what to do."""

    code: RefusalCode
    detail: str
    pointer: str | None = None
    """JSON pointer into the request, for ``VALIDATION_ERROR``."""
    request_id: str = ""
    """The request that was refused; a replay has the id of the first one."""
