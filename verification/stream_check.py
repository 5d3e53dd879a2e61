"""Rule 5 on a running service: the stream against the journal, in one pass over its messages.

First it records what must be on the stream: per wallet, the events before its first outbox row.
Then it reads the stream up to the last message at that time. Memory: one number per wallet.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

import asyncpg
import msgspec

from verification.cloud_events import decode_message
from verification.facts import StreamMessage
from verification.findings import Findings
from verification.rows import chained_events_at
from verification.stream_rules import (
    StreamOrder,
    check_chain,
    check_content,
    is_of_release_0_1,
)
from verification.stream_source import StoredMessage, StreamBounds, StreamSource
from verification.violations import Violation, ViolationKind
from verification.wallet_ranges import Range, ranges

_PUBLISHED: Final = """
SELECT w.id::text, coalesce(o.first_version - 1, w.version), w.updated_at
FROM wallets w LEFT JOIN (
    SELECT wallet_id, min(first_version) AS first_version FROM outbox
    WHERE wallet_id > $1::uuid AND wallet_id <= $2::uuid GROUP BY wallet_id
) o ON o.wallet_id = w.id
WHERE w.id > $1::uuid AND w.id <= $2::uuid
"""

_RESOLVED: Final = """
SELECT concat_ws(':', wallet_id, version, nullif(encode(hash, 'hex'), '')) FROM lost_events
WHERE outcome IS NOT NULL
"""

_CLOCK_MARGIN: Final = timedelta(minutes=5)
"""Allowed difference between the clocks of Postgres and NATS."""

Published = dict[str, tuple[int, datetime]]
"""By wallet: the version up to which its events were published, and when it last changed."""


class StreamTotals(msgspec.Struct):
    """Counts of a stream check."""

    messages: int = 0
    of: int = 0
    duplicates: int = 0
    resolved: int = 0
    """Events that the database lost, and that a recovery has resolved: reported to consumers."""
    without_hash: int = 0
    """Published by relays of release 0.1.0 while it was upgraded: events of the release after it,
    under the ids of 0.1.0."""
    is_truncated: bool = False
    """Old messages were dropped; they are not checked."""


async def check_stream(
    connection: asyncpg.Connection,
    source: StreamSource,
    findings: Findings,
    *,
    on_progress: Callable[[StreamTotals], None] = lambda _totals: None,
) -> StreamTotals:
    """Check every message, and that none is missing."""
    published = await _published(connection)
    bounds = await source.bounds()
    totals = StreamTotals(of=bounds.last - bounds.first + 1, is_truncated=bounds.first > 1)
    order = StreamOrder(starts_anywhere=totals.is_truncated)
    resolved = {row[0] for row in await connection.fetch(_RESOLVED)}
    async for page in source.pages(bounds):
        decoded = _decoded(page, findings)
        messages = [one for one in decoded if one.message_id not in resolved]
        totals.resolved += len(decoded) - len(messages)
        recorded = await chained_events_at(
            connection,
            sorted({(one.event.wallet_id, one.event.version) for one in messages}),
        )
        for message in messages:
            event_key = (message.event.wallet_id, message.event.version)
            findings.add(order.add(message))
            event, chain = recorded.get(event_key, (None, None))
            findings.add(check_content(message, event))
            if chain is not None:
                totals.without_hash += is_of_release_0_1(message, chain)
                findings.add(check_chain(message, chain))
        totals.messages += len(page)
        on_progress(totals)
    totals.duplicates = order.duplicates
    _check_tail(published, order, bounds, findings)
    return totals


async def _published(connection: asyncpg.Connection) -> Published:
    published: Published = {}
    async for wallets in ranges(connection):
        for row in await _published_in(connection, wallets):
            published[row[0]] = (row[1], row[2])
    return published


async def _published_in(
    connection: asyncpg.Connection, wallets: Range
) -> list[tuple[str, int, datetime]]:
    rows = await connection.fetch(_PUBLISHED, wallets.after, wallets.until)
    return [(row[0], row[1], row[2]) for row in rows]


def _decoded(page: list[StoredMessage], findings: Findings) -> list[StreamMessage]:
    messages = []
    for stored in page:
        try:
            message = decode_message(
                stored.sequence, stored.message_id, stored.subject, stored.payload
            )
        except (msgspec.MsgspecError, ValueError) as failure:
            findings.add([_unreadable(stored, failure)])
        else:
            messages.append(message)
    return messages


def _check_tail(
    published: Published, order: StreamOrder, bounds: StreamBounds, findings: Findings
) -> None:
    """No published event is missing at the end, where the order doesn't show it."""
    for wallet_id, (version, changed_at) in published.items():
        last = order.last.get(wallet_id)
        if last is None and bounds.first > 1 and changed_at < bounds.first_at + _CLOCK_MARGIN:
            continue  # its events may have been among the dropped messages
        if version > (last or 0):
            detail = f"version={(last or 0) + 1} to {version}"
            findings.add(
                [
                    Violation(
                        kind=ViolationKind.STREAM_EVENT_MISSING, wallet_id=wallet_id, detail=detail
                    )
                ]
            )


def _unreadable(stored: StoredMessage, failure: Exception) -> Violation:
    return Violation(
        kind=ViolationKind.STREAM_EVENT_UNKNOWN,
        wallet_id="*",
        detail=f"sequence={stored.sequence} id={stored.message_id} is not an event: {failure}",
    )
