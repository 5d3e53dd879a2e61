"""A consumer's messages as they come: a pull request is kept open, and what has arrived is taken.

The NATS client's own ``fetch`` makes a task, a timer and a random name for each message, which was
more than half of what folding an event cost; and it asks, waits and only then lets its caller fold.
Here the server goes on sending while a batch is folded. The next batch is whatever has come
meanwhile, as everywhere on the write path.
"""

import asyncio
from typing import Final

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

_NO_MESSAGES: Final = frozenset({"404", "408"})
"""How the server ends a request that it can't fill in time."""

_HEARTBEAT: Final = "100"

_GRACE_S: Final = 1.0
"""How long after a request's end the server may take to say so."""


class PullEnded(Exception):
    """The consumer is gone, or nobody answers for it."""


class _Request(msgspec.Struct, frozen=True):
    batch: int
    expires: int
    """Nanoseconds."""


class PullSubscription:
    """Pulls from a durable consumer. ``open`` comes first, ``close`` last.

    At most ``batch_max`` messages wait here, beside those that were taken last: the consumer's
    ``max_ack_pending`` should be twice that.
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
        self._arrived: list[Msg] = []
        self._changed = asyncio.Event()
        self._failure: PullEnded | None = None
        self._number = 0
        self._reply = ""
        """Where the open request is answered; each has its own, so that no one's end is taken for
        another's."""
        self._outstanding = 0
        """Messages that the open request may still bring; 0: none is open."""
        self._ends_at = 0.0
        self._newest: Msg | None = None

    async def open(self) -> None:
        """Begin to listen."""
        self._subscription = await self._client.subscribe(f"{self._inbox}.*", cb=self._on_message)

    async def close(self) -> None:
        """Stop listening. What is still sent comes again, once the consumer's ``ack_wait`` is over.

        Raises:
            NatsError: the connection is closed already.
        """
        if self._subscription is not None:
            await self._subscription.unsubscribe()

    @property
    def pending(self) -> int:
        """Messages that were not taken yet, here and at the server, as of the last arrival."""
        return len(self._arrived) + self.pending_on_server

    @property
    def pending_on_server(self) -> int:
        """Messages that the server had and hadn't sent, as of the last arrival."""
        return self._newest.metadata.num_pending if self._newest is not None else 0

    async def fetch(self) -> list[Msg]:
        """What has arrived, in the stream's order; waits for the first.

        Empty if nothing came for ``poll_s``: then the stream has nothing for this consumer.

        Raises:
            PullEnded: the consumer is gone, or the server doesn't answer.
        """
        while not self._arrived:
            if self._failure is not None:
                raise self._failure
            if not self._outstanding:
                await self._request()
            if not await self._wait():
                return []
        taken, self._arrived = self._arrived, []
        if not self._outstanding:
            await self._request()
        return taken

    async def _wait(self) -> bool:
        """False: the request ended and had brought nothing."""
        self._changed.clear()
        try:
            async with asyncio.timeout_at(self._ends_at + _GRACE_S):
                await self._changed.wait()
        except TimeoutError:
            raise PullEnded("the stream does not answer") from None
        return bool(self._arrived) or self._failure is not None

    async def _request(self) -> None:
        self._number += 1
        self._reply = f"{self._inbox}.{self._number}"
        self._outstanding = self._batch_max
        self._ends_at = asyncio.get_running_loop().time() + self._poll_s
        request = _Request(self._batch_max, int(self._poll_s * 1e9))
        await self._client.publish(self._request_subject, msgspec.json.encode(request), self._reply)

    async def _on_message(self, message: Msg) -> None:
        status = message.headers.get("Status") if message.headers else None
        if status is None:
            self._arrived.append(message)
            self._newest = message
            self._outstanding = max(self._outstanding - 1, 0)
        elif status == _HEARTBEAT or message.subject != self._reply:
            return
        elif status in _NO_MESSAGES:
            self._outstanding = 0
        else:
            description = (message.headers or {}).get("Description", "")
            self._failure = PullEnded(f"the stream says {status} {description}")
        self._changed.set()
