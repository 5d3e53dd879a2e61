"""Rule 5: the stream holds every journal event once, in version order per wallet, and nothing else.

A message whose id came before is a repetition, which the stream or its readers drop. Since
versions are contiguous, "seen before" is one number a wallet: any stream can be judged in one
pass with memory for its wallets, not for its messages.
"""

from collections.abc import Iterable, Iterator, Mapping

from verification.facts import JournalEvent, StreamMessage
from verification.violations import Violation, ViolationKind


class StreamOrder:
    """The order of the messages, wallet by wallet, as they stream by."""

    def __init__(self, *, starts_anywhere: bool = False) -> None:
        """``starts_anywhere``: the stream's head is gone, so a wallet may begin at any version."""
        self._starts_anywhere = starts_anywhere
        self.last: dict[str, int] = {}
        """Version up to which each wallet's events came in order."""
        self.repetitions = 0

    def add(self, message: StreamMessage) -> Iterator[Violation]:
        event = message.event
        last = self.last.get(event.wallet_id)
        if message.message_id != f"{event.wallet_id}:{event.version}":
            yield stream_violation(
                ViolationKind.STREAM_MESSAGE_ID_WRONG, message, message.message_id
            )
        if last is not None and event.version <= last:
            self.repetitions += 1
            return
        if event.version != (last or 0) + 1 and (last is not None or not self._starts_anywhere):
            yield stream_violation(
                ViolationKind.STREAM_EVENT_OUT_OF_ORDER, message, f"came after version {last or 0}"
            )
        self.last[event.wallet_id] = event.version


def judge_content(message: StreamMessage, recorded: JournalEvent | None) -> Iterator[Violation]:
    """The message is the journal's event of its wallet and version."""
    if recorded is None:
        yield stream_violation(ViolationKind.STREAM_EVENT_UNKNOWN, message, "not in the journal")
    elif message.event != recorded:
        yield stream_violation(
            ViolationKind.STREAM_EVENT_DIFFERS, message, f"says {message.event}, journal {recorded}"
        )


def judge_stream(
    journal: Mapping[tuple[str, int], JournalEvent], stream: Iterable[StreamMessage]
) -> Iterator[Violation]:
    """All of rule 5 for a stream and a journal in memory."""
    order = StreamOrder()
    there: set[tuple[str, int]] = set()
    for message in stream:
        place = (message.event.wallet_id, message.event.version)
        there.add(place)
        yield from order.add(message)
        yield from judge_content(message, journal.get(place))
    for wallet_id, version in sorted(journal.keys() - there):
        yield Violation(
            kind=ViolationKind.STREAM_EVENT_MISSING,
            wallet_id=wallet_id,
            detail=f"version={version}",
        )


def stream_violation(breach: ViolationKind, message: StreamMessage, what: str) -> Violation:
    event = message.event
    return Violation(
        kind=breach,
        wallet_id=event.wallet_id,
        detail=f"version={event.version} sequence={message.sequence} {what}",
    )
