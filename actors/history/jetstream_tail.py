"""The stream's tail in NATS JetStream, read over a connection that exists only for a check."""

from collections.abc import Sequence
from typing import Final

import msgspec
import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import NotFoundError

from actors.history.ports import StreamEvent, StreamUnreadable
from wallet.event_codec import decode_envelope

_TIMEOUT_S: Final = 2.0
_FETCH: Final = 500
"""Messages per pull: the client's buffer holds 512."""


class JetStreamTail:
    """Implements `StreamTail`."""

    def __init__(self, url: str, stream: str) -> None:
        self._url = url
        self._stream = stream
        self._client: Client | None = None

    async def last_sequence(self) -> int:
        try:
            client = await self._connected()
            info = await client.jetstream(timeout=_TIMEOUT_S).stream_info(self._stream)
        except NotFoundError:
            return 0
        except (NatsError, OSError, TimeoutError) as failure:
            raise _unreadable(failure) from failure
        return info.state.last_seq if info.state.messages else 0

    async def before(self, sequence: int, *, limit: int) -> Sequence[StreamEvent]:
        first = max(sequence - limit, 1)
        try:
            messages = await self._messages(await self._connected(), first, sequence - 1)
        except (NatsError, OSError, TimeoutError) as failure:
            raise _unreadable(failure) from failure
        return [event for event in map(_event_of, messages) if event is not None]

    async def _messages(self, client: Client, first: int, last: int) -> list[Msg]:
        """The messages from ``first`` to ``last``; some may be missing."""
        puller = await client.jetstream(timeout=_TIMEOUT_S).pull_subscribe(
            "",
            stream=self._stream,
            config=ConsumerConfig(
                deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
                opt_start_seq=first,
                ack_policy=AckPolicy.NONE,
                inactive_threshold=10.0,
                mem_storage=True,
            ),
        )
        found: list[Msg] = []
        try:
            pending = (await puller.consumer_info()).num_pending or 0
            sequence = first - 1
            while pending and sequence < last:
                wanted = min(_FETCH, pending, last - sequence)
                page = await puller.fetch(wanted, timeout=_TIMEOUT_S)
                sequence = page[-1].metadata.sequence.stream
                pending = page[-1].metadata.num_pending
                found += (one for one in page if one.metadata.sequence.stream <= last)
        finally:
            await puller.unsubscribe()
        return found

    async def _connected(self) -> Client:
        if self._client is None or not self._client.is_connected:
            self._client = await nats.connect(
                self._url,
                name="wallet-history",
                connect_timeout=_TIMEOUT_S,
                allow_reconnect=False,
                max_reconnect_attempts=1,
            )
        return self._client

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()


def _unreadable(failure: Exception) -> StreamUnreadable:
    return StreamUnreadable(f"{type(failure).__name__}: {failure}")


def _event_of(message: Msg) -> StreamEvent | None:
    """The event in ``message``; None if it is none, since others may publish, too."""
    try:
        event = decode_envelope(message.data)
        return StreamEvent(
            sequence=message.metadata.sequence.stream,
            stored_at=message.metadata.timestamp,
            committed_at=event.time,
            wallet_id=event.subject,
            version=event.walletversion,
            hash=bytes.fromhex(event.hash or ""),
            previous_hash=bytes.fromhex(event.previoushash or ""),
            payload=message.data,
        )
    except (msgspec.MsgspecError, ValueError):
        return None
