"""Kinds of violations. Every kind has a name, and belongs to one of seven numbered rules."""

from enum import StrEnum
from typing import Final

import msgspec


class ViolationKind(StrEnum):
    """A way to break a rule. The names are stable: scripts and alerts may match them."""

    # 1: responses to clients against the journal
    ACKNOWLEDGED_WRITE_MISSING = "acknowledged_write_missing"
    ACKNOWLEDGED_WRITE_DIFFERS = "acknowledged_write_differs"
    WRITE_APPLIED_TWICE = "write_applied_twice"
    REFUSED_WRITE_APPLIED = "refused_write_applied"
    UNAPPLIED_WRITE_APPLIED = "unapplied_write_applied"
    REFUSAL_UNJUSTIFIED = "refusal_unjustified"
    UNASKED_EVENT = "unasked_event"
    # 2: the journal itself, and the rows that follow from it
    VERSION_GAP = "version_gap"
    VERSION_REPEATED = "version_repeated"
    FOLD_BROKEN = "fold_broken"
    TRANSITION_FORBIDDEN = "transition_forbidden"
    BALANCE_BELOW_LIMIT = "balance_below_limit"
    HOLD_NEGATIVE = "hold_negative"
    TRANSFER_SETTLED_TWICE = "transfer_settled_twice"
    TRANSFER_CREATED_TWICE = "transfer_created_twice"
    SETTLEMENT_WITHOUT_TRANSFER = "settlement_without_transfer"
    WALLET_ROW_DIFFERS = "wallet_row_differs"
    WALLET_ROW_MISSING = "wallet_row_missing"
    TRANSFER_ROW_DIFFERS = "transfer_row_differs"
    TRANSFER_ROW_MISSING = "transfer_row_missing"
    TRANSFER_ROW_WITHOUT_EVENT = "transfer_row_without_event"
    MONEY_NOT_CONSERVED = "money_not_conserved"
    OUTBOX_ROW_UNSOUND = "outbox_row_unsound"
    CHAIN_BROKEN = "chain_broken"
    EVENT_HASH_WRONG = "event_hash_wrong"
    WALLET_HASH_WRONG = "wallet_hash_wrong"
    EXPIRY_WRONG = "expiry_wrong"
    EXPIRY_ROW_MISSING = "expiry_row_missing"
    EXPIRY_ROW_UNSOUND = "expiry_row_unsound"
    HOLD_OVERDUE = "hold_overdue"
    REFUND_WRONG = "refund_wrong"
    # 3: order in real time
    WRITE_OUT_OF_ORDER = "write_out_of_order"
    READ_WENT_BACK = "read_went_back"
    READ_DIFFERS = "read_differs"
    # 4: idempotency keys
    REPLAY_DIFFERS = "replay_differs"
    REPLAY_NOT_MARKED = "replay_not_marked"
    KEY_REUSE_ACCEPTED = "key_reuse_accepted"
    KEY_ROW_MISSING = "key_row_missing"
    KEY_ROW_DIFFERS = "key_row_differs"
    KEY_ROW_WITHOUT_EVENT = "key_row_without_event"
    # 5: the stream
    STREAM_EVENT_MISSING = "stream_event_missing"
    STREAM_EVENT_UNKNOWN = "stream_event_unknown"
    STREAM_EVENT_DIFFERS = "stream_event_differs"
    STREAM_EVENT_OUT_OF_ORDER = "stream_event_out_of_order"
    STREAM_MESSAGE_ID_WRONG = "stream_message_id_wrong"
    STREAM_HASH_WRONG = "stream_hash_wrong"
    # 6: the projections
    PROJECTION_MISSING = "projection_missing"
    PROJECTION_DIFFERS = "projection_differs"
    PROJECTION_UNKNOWN = "projection_unknown"
    PROJECTION_BEHIND = "projection_behind"
    PROJECTION_HASH_WRONG = "projection_hash_wrong"
    # 7: a digest that was taken earlier
    DIGEST_DIFFERS = "digest_differs"


RULES: Final[dict[int, str]] = {
    1: "every acknowledged write is in the journal once, every refused one is not",
    2: "versions are contiguous, balances follow from the events, money is conserved, holds expire "
    "at their time, refunds return at most what was completed, and each wallet's events are an "
    "unbroken hash chain",
    3: "per wallet, real-time order",
    4: "one idempotency key, one request, one response",
    5: "the stream holds every journal event once, in version order, and nothing else",
    6: "projections equal the write side",
    7: "nothing up to an earlier digest was changed",
}

_FIRST_OF_RULE: Final = {
    1: ViolationKind.ACKNOWLEDGED_WRITE_MISSING,
    2: ViolationKind.VERSION_GAP,
    3: ViolationKind.WRITE_OUT_OF_ORDER,
    4: ViolationKind.REPLAY_DIFFERS,
    5: ViolationKind.STREAM_EVENT_MISSING,
    6: ViolationKind.PROJECTION_MISSING,
    7: ViolationKind.DIGEST_DIFFERS,
}


def _rules_of_kinds() -> dict[ViolationKind, int]:
    starts = {kind: rule for rule, kind in _FIRST_OF_RULE.items()}
    rules: dict[ViolationKind, int] = {}
    rule = 0
    for kind in ViolationKind:
        rule = starts.get(kind, rule)
        rules[kind] = rule
    return rules


_RULE_OF: Final = _rules_of_kinds()


class Violation(msgspec.Struct, frozen=True, kw_only=True):
    """One violation in one wallet. ``detail`` has the actual and the expected value."""

    kind: ViolationKind
    wallet_id: str
    detail: str

    @property
    def rule(self) -> int:
        return _RULE_OF[self.kind]

    def __str__(self) -> str:
        return f"rule {self.rule} {self.kind} wallet={self.wallet_id} {self.detail}"
