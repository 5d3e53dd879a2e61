"""Messages published in one write are byte for byte what the library would have sent."""

import asyncio

import pytest
from nats.errors import MaxPayloadError

from actors.journal.ports import Message
from actors.outbox.nats_client import PublishClient

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

MESSAGES = (
    Message("wallet.events.7.w.transfer.completed", "w:2", b'{"id":"w:2"}'),
    Message("wallet.events.7.w.transfer.pending", "w:3", b'{"name":"\xc3\xa9\r\n"}', TRACE),
    Message("wallet.events.7.w.transfer.failed", "w:4", b""),
)
REPLIES = ("inbox.b.3.fail.1.0.$FI", "inbox.b.3.fail.2.1.$FI", "inbox.b.3.fail.3.2.$FI")


class Wire(PublishClient):
    """A client whose socket is a list."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes] = []
        self.flushes = 0

    async def _send_command(self, cmd: bytes, priority: bool = False) -> None:
        assert not priority
        self.sent.append(cmd)

    async def _flush_pending(self, force_flush: bool = False) -> None:
        assert not force_flush
        self.flushes += 1


async def _as_the_library_does() -> bytes:
    wire = Wire()
    for message, reply in zip(MESSAGES, REPLIES, strict=True):
        headers = {"Nats-Msg-Id": message.id}
        if message.traceparent is not None:
            headers["traceparent"] = message.traceparent
        size = len(message.payload)
        await wire._send_publish(message.subject, reply, message.payload, size, headers)
    return b"".join(wire.sent)


def test_the_bytes_are_the_librarys() -> None:
    async def run() -> None:
        wire = Wire()
        await wire.publish_many(MESSAGES, REPLIES)
        assert b"".join(wire.sent) == await _as_the_library_does()
        assert wire.flushes == 1

    asyncio.run(run())


def test_one_that_is_too_large_keeps_all_of_them_back() -> None:
    async def run() -> None:
        wire = Wire()
        large = Message("wallet.events.7.w.transfer.completed", "w:5", b"x" * 2_000_000)
        with pytest.raises(MaxPayloadError):
            await wire.publish_many((*MESSAGES, large), (*REPLIES, "inbox.b.4.fail.4.2.$FI"))
        assert not wire.sent

    asyncio.run(run())
