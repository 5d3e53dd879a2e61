"""How a dispatcher reaches shards: the port that `actors.ray_transport` and fakes implement."""

from typing import Protocol


class ShardUnreachable(Exception):
    """The call to a shard failed. What it carried may or may not have been applied."""

    def __init__(self, message: str, *, delivered: bool) -> None:
        super().__init__(message)
        self.delivered = delivered
        """False: the shard surely never got it."""


class ShardTransport(Protocol):
    """How a shard is called."""

    async def call(self, shard: int, payload: bytes) -> bytes:
        """Hand encoded submissions to ``shard`` and return its encoded replies.

        Raises:
            ShardUnreachable: no such actor now, or it died meanwhile.
        """
