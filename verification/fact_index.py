"""The evidence, indexed the way the rules ask for it."""

from collections import defaultdict
from functools import cached_property

import msgspec

from verification.facts import ClientCall, Facts, JournalEvent
from verification.responses import ReportedState, parse_transfer, parse_wallet

REMEMBERED = frozenset(
    {
        "insufficient_funds",
        "balance_out_of_range",
        "transfer_already_completed",
        "transfer_already_failed",
        "reference_id_taken",
        "wallet_frozen",
        "wallet_closed",
    }
)
"""Refusals that are kept under the client's key like a success."""


class ClientOperation:
    """Everything that became of one thing that a client wanted."""

    __slots__ = ("attempts", "events", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.attempts: list[ClientCall] = []
        self.events: list[JournalEvent] = []

    @property
    def started(self) -> int:
        return min(attempt.started for attempt in self.attempts)

    @property
    def first(self) -> ClientCall:
        return self.attempts[0]

    @property
    def acknowledged(self) -> list[ClientCall]:
        return [one for one in self.attempts if one.outcome == "acknowledged"]

    @property
    def decided(self) -> list[ClientCall]:
        """Attempts with an answer that a key must give again."""
        return [one for one in self.attempts if is_decided(one)]


def is_decided(attempt: ClientCall) -> bool:
    if attempt.outcome == "acknowledged":
        return True
    return attempt.outcome == "refused" and attempt.code in REMEMBERED


class FactIndex:
    """Look-ups over an `Evidence`, each made once."""

    def __init__(self, evidence: Facts) -> None:
        self.evidence = evidence

    @cached_property
    def journals(self) -> dict[str, list[JournalEvent]]:
        """Events by wallet, in version order (repeated versions stay next to each other)."""
        journals: defaultdict[str, list[JournalEvent]] = defaultdict(list)
        for event in self.evidence.journal:
            journals[event.wallet_id].append(event)
        for events in journals.values():
            events.sort(key=lambda event: event.version)
        return dict(journals)

    @cached_property
    def by_version(self) -> dict[tuple[str, int], JournalEvent]:
        return {(event.wallet_id, event.version): event for event in self.evidence.journal}

    @cached_property
    def limits(self) -> dict[str, int]:
        """How far below zero each wallet may go."""
        return {row.wallet_id: row.overdraft_limit for row in self.evidence.wallets}

    @cached_property
    def settlements(self) -> dict[str, JournalEvent]:
        """The event that made each transfer completed or failed."""
        return {
            event.transfer_id: event
            for event in self.evidence.journal
            if event.status in ("completed", "failed")
        }

    @cached_property
    def creations(self) -> dict[str, JournalEvent]:
        """The event that made each transfer."""
        return {
            event.transfer_id: event
            for event in self.evidence.journal
            if event.transfer_id and not event.previous_status
        }

    @cached_property
    def intents(self) -> dict[str, ClientOperation]:
        """Intents to write, with their attempts in the order of their start and their events."""
        intents: dict[str, ClientOperation] = {}
        for attempt in sorted(self.evidence.history or (), key=lambda one: one.started):
            if attempt.operation != "read":
                intent = intents.setdefault(
                    attempt.operation_id, ClientOperation(attempt.operation_id)
                )
                intent.attempts.append(attempt)
        for event in self.evidence.journal:
            if event.reference_id in intents:
                intents[event.reference_id].events.append(event)
        return intents

    def at(self, wallet_id: str, version: int) -> JournalEvent | None:
        return self.by_version.get((wallet_id, version))


def reported_state_of(attempt: ClientCall) -> ReportedState | None:
    """What an accepted answer said, or None if it can't be understood."""
    decode = parse_wallet if attempt.operation in ("create_wallet", "read") else parse_transfer
    try:
        return decode(attempt.body)
    except (msgspec.MsgspecError, ValueError):
        return None
