"""A JetStream pull subscription that keeps a pull request open and buffers what arrives.

The NATS client's own ``fetch`` creates a task, a timer and a random inbox for each message: more
than half the cost of applying an event. It also sends nothing while its caller works. Here the
server goes on sending while a batch is applied. The next batch is what arrived meanwhile, as
everywhere on the write path.
"""

import asyncio
from typing import Final

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

_NO_MESSAGES: Final = frozenset({"404", "408"})
"""Status of a pull request that expired without enough messages."""

_HEARTBEAT: Final = "100"

_GRACE_S: Final = 1.0
"""How long after a pull request's expiry its status message may arrive."""


class PullEnded(Exception):
    """The consumer was deleted, or the server doesn't respond."""


class _Request(msgspec.Struct, frozen=True):
    batch: int
    expires: int
    """Nanoseconds."""


class PullSubscription:
    """Pulls from a durable consumer. Call ``open`` first, ``close`` last.

    Buffers at most ``batch_max`` messages besides the last batch returned: set the consumer's
    ``max_ack_pending`` to twice that.
    """

    def __init__(
        self, client: Client, *, stream: str, consumer: str, batch_max: int, poll_s: float
    ) -> None:
        self._client = client
        self._request_subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self._batch_max = batch_max
        self._poll_s = poll_s
        self._inbox = client.new_inbox()
        self._subscription: Subscription | None = None
        self._buffered: list[Msg] = []
        self._arrived = asyncio.Event()
        self._failure: PullEnded | None = None
        self._request_count = 0
        self._reply = ""
        """Reply subject of the open request. Each request has its own, so that a late status of
        one isn't taken for another's."""
        self._outstanding = 0
        """Messages that the open request may still deliver; 0: no request is open."""
        self._expires_at = 0.0
        self._newest: Msg | None = None

    async def open(self) -> None:
        """Subscribe to the inbox."""
        self._subscription = await self._client.subscribe(f"{self._inbox}.*", cb=self._on_message)

    async def close(self) -> None:
        """Unsubscribe. Messages in transit are redelivered after the consumer's ``ack_wait``.

        Raises:
            NatsError: the connection is closed already.
        """
        if self._subscription is not None:
            await self._subscription.unsubscribe()

    @property
    def pending(self) -> int:
        """Messages not fetched yet, here and at the server, as of the last arrival."""
        return len(self._buffered) + self.pending_on_server

    @property
    def pending_on_server(self) -> int:
        """Messages that the server had not sent, as of the last arrival."""
        return self._newest.metadata.num_pending if self._newest is not None else 0

    async def fetch(self) -> list[Msg]:
        """The buffered messages, in stream order; waits for the first.

        Empty after ``poll_s`` without a message: the stream has none for this consumer.

        Raises:
            PullEnded: the consumer was deleted, or the server doesn't respond.
        """
        while not self._buffered:
            if self._failure is not None:
                raise self._failure
            if not self._outstanding:
                await self._request()
            if not await self._wait():
                return []
        batch, self._buffered = self._buffered, []
        if not self._outstanding:
            await self._request()
        return batch

    async def _wait(self) -> bool:
        """False: the request expired without a message."""
        self._arrived.clear()
        try:
            async with asyncio.timeout_at(self._expires_at + _GRACE_S):
                await self._arrived.wait()
        except TimeoutError:
            raise PullEnded("JetStream does not respond") from None
        return bool(self._buffered) or self._failure is not None

    async def _request(self) -> None:
        self._request_count += 1
        self._reply = f"{self._inbox}.{self._request_count}"
        self._outstanding = self._batch_max
        self._expires_at = asyncio.get_running_loop().time() + self._poll_s
        request = _Request(self._batch_max, int(self._poll_s * 1e9))
        await self._client.publish(self._request_subject, msgspec.json.encode(request), self._reply)

    async def _on_message(self, message: Msg) -> None:
        status = message.headers.get("Status") if message.headers else None
        if status is None:
            self._buffered.append(message)
            self._newest = message
            self._outstanding = max(self._outstanding - 1, 0)
        elif status == _HEARTBEAT or message.subject != self._reply:
            return
        elif status in _NO_MESSAGES:
            self._outstanding = 0
        else:
            description = (message.headers or {}).get("Description", "")
            self._failure = PullEnded(f"JetStream returned {status} {description}")
        self._arrived.set()
