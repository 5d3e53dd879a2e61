"""After all other tests: the stream and the read side are consistent with the journal."""

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import jsonschema
import nats
import pytest
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from runtime.settings import Settings
from specification.generators.openapi import FOLDER
from tests.e2e.api import eventually
from tests.support.running_service import RunningService
from wallet.event_codec import SUBJECT_ROOT, decode_envelope, event_id, subject_of
from wallet.events import EventType

_SETTINGS = Settings.model_construct()

Message = tuple[str, str | None, Any]
"""Subject, Nats-Msg-Id and event."""


@pytest.fixture(scope="module")
def journal(service: RunningService) -> dict[tuple[str, int], str]:
    """Every event of the journal by wallet and version: its type."""
    if not service.database_url:
        pytest.skip("the database of this service is out of reach")
    url = service.database_url
    eventually(lambda: not _rows(url, "SELECT 1 FROM outbox LIMIT 1"), timeout_s=60)
    rows = _rows(url, "SELECT wallet_id::text, version, type FROM wallet_events")
    return {(row["wallet_id"], row["version"]): row["type"] for row in rows}


def _rows(url: str, query: str) -> list[asyncpg.Record]:
    async def ask() -> list[asyncpg.Record]:
        connection = await asyncpg.connect(url, timeout=10)
        try:
            return list(await connection.fetch(query, timeout=60))
        finally:
            await connection.close(timeout=10)

    return asyncio.run(ask())


@pytest.fixture(scope="module")
def stream(service: RunningService, journal: object) -> list[Message]:
    """All messages of the stream in order. Read after the journal, so at least as complete."""
    if not service.nats_url:
        pytest.skip("the stream of this service is out of reach")
    return asyncio.run(_whole(service.nats_url))


async def _whole(url: str) -> list[Message]:
    return [message async for message in _messages(url)]


async def _messages(url: str) -> AsyncIterator[Message]:
    client = await nats.connect(url, connect_timeout=10, allow_reconnect=False)
    try:
        jetstream = client.jetstream(timeout=10)
        left = (await jetstream.stream_info(_SETTINGS.stream_name)).state.messages
        reader = await jetstream.pull_subscribe(
            f"{SUBJECT_ROOT}.>",
            stream=_SETTINGS.stream_name,
            config=ConsumerConfig(deliver_policy=DeliverPolicy.ALL, ack_policy=AckPolicy.NONE),
        )
        while left:
            for message in await reader.fetch(min(left, 1_000), timeout=10):
                left -= 1
                headers = message.headers or {}
                yield message.subject, headers.get("Nats-Msg-Id"), json.loads(message.data)
    finally:
        await client.close()


def test_the_run_left_events_of_every_type(stream: list[Message]) -> None:
    types = {str(one) for one in EventType} - {EventType.WALLET_REWOUND}
    assert {event["type"] for _, _, event in stream} == types


def test_every_event_on_the_stream_is_as_its_schema_says(stream: list[Message]) -> None:
    validators = {
        str(event): jsonschema.Draft202012Validator(
            json.loads((FOLDER / f"events/{event}.json").read_text(encoding="utf-8")),
            format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER,
        )
        for event in EventType
    }
    for _, _, event in stream:
        wrong = next(validators[event["type"]].iter_errors(event), None)
        assert wrong is None, f"{event}: {wrong}"


def test_every_event_is_where_its_wallet_says_and_named_by_its_hash(
    stream: list[Message],
) -> None:
    for subject, message_id, event in stream:
        kind = EventType(event["type"])
        assert subject == subject_of(event["subject"], kind, _SETTINGS.stream_partitions)
        assert message_id == event["id"] == event_id(decode_envelope(json.dumps(event).encode()))
        assert event["hash"]


def test_each_wallets_events_are_on_the_stream_in_order_and_without_gaps(
    stream: list[Message],
) -> None:
    versions: dict[str, list[int]] = defaultdict(list)
    for _, _, event in stream:
        seen = versions[event["subject"]]
        # A restarted relay may publish events again that it can't know to be published.
        # Consumers drop them by version.
        if event["walletversion"] > len(seen) or not seen:
            seen.append(event["walletversion"])

    for wallet, seen in versions.items():
        assert seen == list(range(1, len(seen) + 1)), wallet


def test_the_stream_holds_what_the_journal_holds(
    stream: list[Message], journal: dict[tuple[str, int], str]
) -> None:
    on_stream = {
        (event["subject"], event["walletversion"]): event["type"] for _, _, event in stream
    }

    missing = {place: kind for place, kind in journal.items() if on_stream.get(place) != kind}

    assert missing == {}
