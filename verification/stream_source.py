"""Reads the stream from its first message to the current last one."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Final

import msgspec
import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

_TIMEOUT_S: Final = 10.0
_FETCH: Final = 1_000


class StoredMessage(msgspec.Struct, frozen=True):
    """A message as it is stored."""

    sequence: int
    message_id: str
    subject: str
    payload: bytes


class _State(msgspec.Struct):
    first_seq: int
    last_seq: int
    first_ts: datetime


class _Error(msgspec.Struct):
    description: str = ""


class _Info(msgspec.Struct):
    state: _State | None = None
    error: _Error | None = None


class StreamUnreadable(Exception):
    """The server has no such stream."""


class StreamBounds(msgspec.Struct, frozen=True):
    """First and last sequence of the part that is read."""

    first: int
    last: int
    first_at: datetime
    """When the first message was stored."""


class StreamSource:
    """A JetStream stream, with a connection that the caller owns."""

    def __init__(self, client: Client, name: str) -> None:
        self._client = client
        self._jetstream = client.jetstream(timeout=_TIMEOUT_S)
        self._name = name

    async def bounds(self) -> StreamBounds:
        """
        Raises:
            StreamUnreadable: the stream does not exist.
            nats.errors.Error: the server doesn't respond.
        """
        subject = f"$JS.API.STREAM.INFO.{self._name}"
        answer = await self._client.request(subject, b"", timeout=_TIMEOUT_S)
        info = msgspec.json.decode(answer.data, type=_Info)
        if info.state is None:
            reason = info.error.description if info.error else "no state"
            raise StreamUnreadable(f"stream {self._name}: {reason}")
        return StreamBounds(info.state.first_seq, info.state.last_seq, info.state.first_ts)

    async def pages(self, bounds: StreamBounds) -> AsyncIterator[list[StoredMessage]]:
        """Messages in order, in pages. The consumer is ephemeral and needs no acknowledgements."""
        if bounds.first > bounds.last:
            return
        config = ConsumerConfig(
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=bounds.first,
            ack_policy=AckPolicy.NONE,
            inactive_threshold=60.0,
        )
        puller = await self._jetstream.pull_subscribe("", stream=self._name, config=config)
        try:
            sequence = 0
            while sequence < bounds.last:
                messages = await puller.fetch(_FETCH, timeout=_TIMEOUT_S)
                sequence = messages[-1].metadata.sequence.stream
                yield [
                    _stored_message(one)
                    for one in messages
                    if one.metadata.sequence.stream <= bounds.last
                ]
        finally:
            await puller.unsubscribe()


def _stored_message(message: Msg) -> StoredMessage:
    message_id = (message.headers or {}).get("Nats-Msg-Id", "")
    return StoredMessage(
        message.metadata.sequence.stream, message_id, message.subject, message.data
    )


@asynccontextmanager
async def open_stream(url: str, name: str) -> AsyncIterator[StreamSource]:
    """The stream ``name`` of the server at ``url``.

    Raises:
        OSError, nats.errors.Error: the server can't be reached.
    """
    client = await nats.connect(
        url,
        connect_timeout=5,
        allow_reconnect=False,
        max_reconnect_attempts=1,
        name="wallet-verify",
    )
    try:
        yield StreamSource(client, name)
    finally:
        await client.close()
