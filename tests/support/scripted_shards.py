"""A shard transport whose calls stay open until the test answers or fails them."""

import asyncio
from collections.abc import Sequence

from actors.rpc.messages import Applied, RequestResult, decode_submissions, encode_replies
from actors.rpc.transport import ShardUnreachable
from wallet.commands import CommandRequest


class OpenCall:
    """One call received by a shard."""

    def __init__(self, shard: int, payload: bytes) -> None:
        self.shard = shard
        self.requests: list[CommandRequest] = decode_submissions(payload)
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    @property
    def names(self) -> list[str]:
        """The request ids of the call."""
        return [request.request_id for request in self.requests]

    def reply(self, replies: Sequence[RequestResult] | None = None) -> None:
        """Answer the call; by default each request with its own request id."""
        if replies is None:
            replies = [reply_to(name) for name in self.names]
        self.answer.set_result(encode_replies(list(replies)))

    def die(self, *, delivered: bool = True) -> None:
        self.answer.set_exception(ShardUnreachable("injected: disconnected", delivered=delivered))

    def fail(self, error: Exception) -> None:
        self.answer.set_exception(error)


def reply_to(name: str) -> Applied:
    return Applied(id="", version=1, body=name.encode())


class ScriptedShards:
    """Implements `ShardTransport`. Tests wait for the dispatcher with ``next_call``."""

    def __init__(self) -> None:
        self._arrived: asyncio.Queue[OpenCall] = asyncio.Queue()
        self.open: list[OpenCall] = []
        self.most_open = 0

    async def call(self, shard: int, payload: bytes) -> bytes:
        call = OpenCall(shard, payload)
        self.open.append(call)
        self.most_open = max(self.most_open, len(self.open))
        self._arrived.put_nowait(call)
        try:
            return await call.answer
        finally:
            self.open.remove(call)

    async def next_call(self) -> OpenCall:
        async with asyncio.timeout(5):
            return await self._arrived.get()

    def no_calls(self) -> bool:
        return self._arrived.empty()
