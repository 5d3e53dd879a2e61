"""Reads all events of the stream in order."""

import asyncio
from contextlib import suppress

import nats
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from wallet.event_codec import CloudEvent, decode_envelope

STREAM = "WALLET_EVENTS"


async def events_on_stream(url: str) -> list[CloudEvent]:
    """Every event on the stream, in stream order, duplicates included."""
    client = await nats.connect(url)
    try:
        return await _read(client.jetstream())
    finally:
        await client.close()


async def wait_for_events(url: str, count: int, *, timeout_s: float = 20.0) -> list[CloudEvent]:
    """The stream's events once there are ``count`` different ones, or TimeoutError."""
    client = await nats.connect(url)
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                with suppress(NotFoundError):
                    events = await _read(client.jetstream(), at_least=count)
                    if len({event.id for event in events}) >= count:
                        return events
                await asyncio.sleep(0)
    finally:
        await client.close()


async def _read(jetstream: JetStreamContext, *, at_least: int = 1) -> list[CloudEvent]:
    """By sequence: a consumer for each poll would reach the server's limit of consumers."""
    state = (await jetstream.stream_info(STREAM)).state
    if state.messages < at_least:
        return []
    messages = [
        await jetstream.get_msg(STREAM, sequence)
        for sequence in range(state.first_seq, state.last_seq + 1)
    ]
    return [decode_envelope(message.data or b"") for message in messages]


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
