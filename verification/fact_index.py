"""The facts, indexed for the rules."""

from bisect import bisect_right
from collections import defaultdict
from functools import cached_property

import msgspec

from verification.facts import ClientCall, Control, Facts, JournalEvent
from verification.responses import ReportedState, parse_transfer, parse_wallet

STORED_UNDER_KEY = frozenset(
    {
        "insufficient_funds",
        "balance_out_of_range",
        "transfer_already_completed",
        "transfer_already_failed",
        "reference_id_taken",
        "wallet_frozen",
        "wallet_closed",
        "precondition_failed",
        "overdraft_in_use",
        "metadata_full",
        "wallet_not_empty",
        "expiry_out_of_range",
        "amount_exceeds_hold",
        "transfer_not_completed",
        "transfer_is_refund",
        "amount_exceeds_refundable",
    }
)
"""Refusals that are stored under the idempotency key, like a success."""


TRANSFER_OPERATIONS = frozenset({"debit", "credit", "complete", "revert", "refund"})
"""Operations whose response is a transfer."""


class ClientOperation:
    """One operation that a client requested: its calls and its events."""

    __slots__ = ("calls", "events", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.calls: list[ClientCall] = []
        self.events: list[JournalEvent] = []

    @property
    def started(self) -> int:
        return min(call.started for call in self.calls)

    @property
    def first(self) -> ClientCall:
        return self.calls[0]

    @property
    def acknowledged(self) -> list[ClientCall]:
        return [one for one in self.calls if one.outcome == "acknowledged"]

    @property
    def decided(self) -> list[ClientCall]:
        """Calls whose response a retry with the same idempotency key must repeat."""
        return [one for one in self.calls if is_decided(one)]


def is_decided(call: ClientCall) -> bool:
    if call.outcome == "acknowledged":
        return True
    return call.outcome == "refused" and call.code in STORED_UNDER_KEY


class FactIndex:
    """Indexes over `Facts`, each built once."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts

    @cached_property
    def journals(self) -> dict[str, list[JournalEvent]]:
        """Events by wallet, in version order (repeated versions stay next to each other)."""
        journals: defaultdict[str, list[JournalEvent]] = defaultdict(list)
        for event in self.facts.journal:
            journals[event.wallet_id].append(event)
        for events in journals.values():
            events.sort(key=lambda event: event.version)
        return dict(journals)

    @cached_property
    def by_version(self) -> dict[tuple[str, int], JournalEvent]:
        return {(event.wallet_id, event.version): event for event in self.facts.journal}

    @cached_property
    def _controls(self) -> dict[str, list[tuple[int, Control]]]:
        """Of each wallet: the versions at which it changed, in order."""
        return {
            wallet_id: [(one.version, one.control) for one in events if one.control is not None]
            for wallet_id, events in self.journals.items()
        }

    def control_at(self, wallet_id: str, version: int) -> Control:
        """What a wallet may do at ``version``."""
        changes = self._controls.get(wallet_id, [])
        place = bisect_right(changes, version, key=lambda change: change[0])
        return changes[place - 1][1] if place else Control()

    @cached_property
    def settlements(self) -> dict[str, JournalEvent]:
        """The event that completed or failed each transfer, as a whole."""
        return {
            event.transfer_id: event
            for event in self.facts.journal
            if event.status in ("completed", "failed")
        }

    @cached_property
    def creations(self) -> dict[str, JournalEvent]:
        """The event that created each transfer."""
        return {
            event.transfer_id: event
            for event in self.facts.journal
            if event.transfer_id and not event.previous_status
        }

    @cached_property
    def refundable(self) -> dict[str, list[JournalEvent]]:
        """By transfer: its events, and those of its refunds, in version order."""
        found: defaultdict[str, list[JournalEvent]] = defaultdict(list)
        for events in self.journals.values():
            for event in events:
                for transfer_id in {event.transfer_id, event.refunds} - {""}:
                    found[transfer_id].append(event)
        return dict(found)

    @cached_property
    def operations(self) -> dict[str, ClientOperation]:
        """Requested writes, each with its events and with its calls in order of their start."""
        operations: dict[str, ClientOperation] = {}
        for call in sorted(self.facts.history or (), key=lambda one: one.started):
            if call.operation != "read":
                operation = operations.setdefault(
                    call.operation_id, ClientOperation(call.operation_id)
                )
                operation.calls.append(call)
        for event in self.facts.journal:
            asked = event.reference_id or event.reason
            # An expiry has the reference of the transfer's creation.
            if asked in operations and not event.is_expiry:
                operations[asked].events.append(event)
        return operations

    def at(self, wallet_id: str, version: int) -> JournalEvent | None:
        return self.by_version.get((wallet_id, version))


def reported_state_of(call: ClientCall) -> ReportedState | None:
    """The state in an accepted response; None if it can't be parsed."""
    decode = parse_transfer if call.operation in TRANSFER_OPERATIONS else parse_wallet
    try:
        return decode(call.body)
    except (msgspec.MsgspecError, ValueError):
        return None
