"""Reads all events of the stream in order."""

import asyncio

import nats
from nats.js.errors import NotFoundError

from wallet.event_codec import CloudEvent, decode_envelope

STREAM = "WALLET_EVENTS"


async def events_on_stream(url: str) -> list[CloudEvent]:
    """Every event on the stream in stream order, duplicates included."""
    client = await nats.connect(url)
    try:
        jetstream = client.jetstream()
        count = (await jetstream.stream_info(STREAM)).state.messages
        if not count:
            return []
        subscription = await jetstream.subscribe("wallet.events.>", ordered_consumer=True)
        messages = [await subscription.next_msg(timeout=10) for _ in range(count)]
        # Who polls with this would else run into the server's limit of consumers.
        await jetstream.delete_consumer(STREAM, (await subscription.consumer_info()).name)
    finally:
        await client.close()
    return [decode_envelope(message.data) for message in messages]


async def wait_for_events(url: str, count: int, *, timeout_s: float = 20.0) -> list[CloudEvent]:
    """Wait for ``count`` distinct events and return them, or TimeoutError."""
    async with asyncio.timeout(timeout_s):
        while True:
            try:
                events = await events_on_stream(url)
            except NotFoundError:
                events = []
            if len({event.id for event in events}) >= count:
                return events
            await asyncio.sleep(0)


async def wait_for_messages(url: str, count: int, *, timeout_s: float = 20.0) -> None:
    """Wait until the stream holds ``count`` messages."""
    client = await nats.connect(url)
    try:
        async with asyncio.timeout(timeout_s):
            while (await client.jetstream().stream_info(STREAM)).state.messages < count:
                continue
    finally:
        await client.close()


def first_occurrences(events: list[CloudEvent]) -> list[CloudEvent]:
    """``events`` without duplicates by id."""
    seen: dict[str, CloudEvent] = {}
    for event in events:
        seen.setdefault(event.id, event)
    return list(seen.values())


def versions_by_wallet(events: list[CloudEvent]) -> dict[str, list[int]]:
    """The versions of each wallet in stream order."""
    versions: dict[str, list[int]] = {}
    for event in events:
        versions.setdefault(event.subject, []).append(event.walletversion)
    return versions
