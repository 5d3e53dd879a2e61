"""The relay's connection to NATS: many messages in one write, and no reconnection."""

from collections.abc import Iterable, Sequence
from typing import Final

import structlog
from nats.aio.client import Client
from nats.errors import MaxPayloadError

from actors.journal.ports import Message
from wallet.event_codec import SUBJECT_ROOT

_log = structlog.get_logger(__name__)


class PublishClient(Client):  # type: ignore[misc]  # the library has no types
    """The library's client, plus sending all messages of a batch in one write.

    Its ``publish`` validates each header and its own state per message; a shard spent a sixth of
    its time there when publishing thousands of events.
    """

    async def publish_many(
        self, messages: Sequence[Message], replies: Iterable[str], *, root: str = SUBJECT_ROOT
    ) -> None:
        """Send ``messages`` in order under ``root``, each with its reply subject.

        Raises:
            MaxPayloadError: one is too large for the server; nothing was sent.
        """
        if any(len(message.payload) > self.max_payload for message in messages):
            raise MaxPayloadError
        commands = b"".join(
            _encode_publish(message, reply, root)
            for message, reply in zip(messages, replies, strict=True)
        )
        await self._send_command(commands)
        await self._flush_pending()


_ROOT_LENGTH: Final = len(SUBJECT_ROOT)


def _encode_publish(message: Message, reply: str, root: str) -> bytes:
    """``message`` in the NATS protocol. Its headers contain no client input."""
    trace = f"traceparent: {message.traceparent}\r\n" if message.traceparent is not None else ""
    headers = f"NATS/1.0\r\nNats-Msg-Id: {message.id}\r\n{trace}\r\n"
    sizes = f"{len(headers)} {len(headers) + len(message.payload)}"
    first = f"HPUB {root}{message.subject[_ROOT_LENGTH:]} {reply} {sizes}\r\n{headers}"
    return b"%b%b\r\n" % (first.encode(), message.payload)


async def connect(url: str, *, name: str) -> PublishClient:
    """A connection that does not reconnect: once it breaks, its calls fail.

    Raises:
        OSError, nats.errors.Error: no server could be reached.
    """
    client = PublishClient()
    await client.connect(
        url,
        name=name,
        allow_reconnect=False,
        ping_interval=5,
        max_outstanding_pings=2,
        # Our subjects consist of ids and fixed words.
        skip_subject_validation=True,
        error_cb=_log_error,
    )
    return client


async def _log_error(error: Exception) -> None:
    _log.warning("nats client error", error=f"{type(error).__name__}: {error}")
