"""How a dispatcher calls shards: the port that `actors.ray_transport` and fakes implement."""

from typing import Protocol


class ShardUnreachable(Exception):
    """The call to a shard failed. Its commands may or may not have been applied."""

    def __init__(self, message: str, *, delivered: bool) -> None:
        super().__init__(message)
        self.delivered = delivered
        """False: the shard certainly never received it."""


class ShardTransport(Protocol):
    """How a shard is called."""

    async def call(self, shard: int, payload: bytes) -> bytes:
        """Send encoded requests to ``shard`` and return its encoded replies.

        Raises:
            ShardUnreachable: no such actor now, or it died during the call.
        """
