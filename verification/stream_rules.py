"""Rule 5: the stream holds every journal event once, in version order per wallet, and nothing else.

A message with an earlier message's id is a duplicate, which the stream or its readers drop. Since
versions are contiguous, "seen before" is one number per wallet: any stream can be checked in one
pass with memory for its wallets, not for its messages.
"""

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from verification.chain import EventChain, link
from verification.facts import JournalEvent, StreamMessage
from verification.violations import Violation, ViolationKind


class StreamOrder:
    """Checks the order of the messages per wallet, as they are read."""

    def __init__(self, *, starts_anywhere: bool = False) -> None:
        """``starts_anywhere``: old messages were dropped: a wallet may begin at any version."""
        self._starts_anywhere = starts_anywhere
        self.last: dict[str, int] = {}
        """Version up to which each wallet's events were in order."""
        self.duplicates = 0

    def add(self, message: StreamMessage) -> Iterator[Violation]:
        event = message.event
        last = self.last.get(event.wallet_id)
        if message.message_id.split(":")[:2] != [event.wallet_id, str(event.version)]:
            yield stream_violation(
                ViolationKind.STREAM_MESSAGE_ID_WRONG, message, message.message_id
            )
        if last is not None and event.version <= last:
            self.duplicates += 1
            return
        if event.version != (last or 0) + 1 and (last is not None or not self._starts_anywhere):
            yield stream_violation(
                ViolationKind.STREAM_EVENT_OUT_OF_ORDER, message, f"came after version {last or 0}"
            )
        self.last[event.wallet_id] = event.version


def check_content(message: StreamMessage, recorded: JournalEvent | None) -> Iterator[Violation]:
    """The message is the journal's event of its wallet and version."""
    if recorded is None:
        yield stream_violation(ViolationKind.STREAM_EVENT_UNKNOWN, message, "not in the journal")
    elif message.event != msgspec.structs.replace(recorded, completed_before=0):
        yield stream_violation(
            ViolationKind.STREAM_EVENT_DIFFERS,
            message,
            f"message {message.event}, journal {recorded}",
        )


def is_of_release_0_1(message: StreamMessage, recorded: EventChain) -> bool:
    """Whether a relay of release 0.1.0 published an event of a later one, during an upgrade.

    It knows no hashes, and ids without them. The content is compared all the same.
    """
    event = message.event
    return (
        bool(recorded.previous_hash)
        and not (message.hash or message.previous_hash or message.key_digest)
        and message.message_id == f"{event.wallet_id}:{event.version}"
    )


def check_chain(message: StreamMessage, recorded: EventChain) -> Iterator[Violation]:
    """The message has the journal's hashes, and its content has that hash."""
    if is_of_release_0_1(message, recorded):
        return
    found = (message.hash, message.previous_hash, message.key_digest)
    expected = (
        # An event from before the chain has no hash of its own.
        recorded.hash.hex() if recorded.previous_hash else "",
        recorded.previous_hash.hex(),
        recorded.key_digest.hex(),
    )
    suffix = f":{expected[0]}" if expected[0] else ""
    if not message.message_id.endswith(f":{message.event.version}{suffix}"):
        yield stream_violation(ViolationKind.STREAM_MESSAGE_ID_WRONG, message, message.message_id)
    if found != expected:
        yield stream_violation(
            ViolationKind.STREAM_HASH_WRONG, message, f"message {found}, journal {expected}"
        )
    elif message.hash and link(recorded.previous_hash, message.content).hex() != message.hash:
        yield stream_violation(
            ViolationKind.STREAM_HASH_WRONG, message, f"its content has another hash: {found}"
        )


def check_stream_messages(
    journal: Mapping[tuple[str, int], JournalEvent], stream: Iterable[StreamMessage]
) -> Iterator[Violation]:
    """All of rule 5 for a stream and a journal in memory."""
    order = StreamOrder()
    seen: set[tuple[str, int]] = set()
    for message in stream:
        event_key = (message.event.wallet_id, message.event.version)
        seen.add(event_key)
        yield from order.add(message)
        yield from check_content(message, journal.get(event_key))
    for wallet_id, version in sorted(journal.keys() - seen):
        yield Violation(
            kind=ViolationKind.STREAM_EVENT_MISSING,
            wallet_id=wallet_id,
            detail=f"version={version}",
        )


def stream_violation(kind: ViolationKind, message: StreamMessage, what: str) -> Violation:
    event = message.event
    return Violation(
        kind=kind,
        wallet_id=event.wallet_id,
        detail=f"version={event.version} sequence={message.sequence} {what}",
    )
