"""How an ingress replica reaches the shards: Ray calls to the deployment's own actors."""

import msgspec
import ray
from ray import serve
from ray.exceptions import RayActorError, RayError

from actors.dispatcher import ShardUnreachable
from actors.shard_actor import actor_name
from actors.statistics import ShardStatistics


class RayShards:
    """Implements `ShardTransport` from within a replica of the deployment that has the shards."""

    def __init__(self) -> None:
        self._handles: dict[int, ray.actor.ActorHandle] = {}

    async def call(self, shard: int, payload: bytes) -> bytes:
        handle = self._handle(shard)
        try:
            answer: bytes = await handle.submit.remote(payload)
        except RayActorError as error:
            self._handles.pop(shard, None)
            raise ShardUnreachable(str(error).splitlines()[0], delivered=True) from error
        return answer

    async def statistics(self, shard: int) -> ShardStatistics:
        """How ``shard`` stands.

        Raises:
            ShardUnreachable: it does not answer.
        """
        try:
            answer: bytes = await self._handle(shard).statistics.remote()
        except RayError as error:
            self._handles.pop(shard, None)
            raise ShardUnreachable(str(error).splitlines()[0], delivered=False) from error
        return msgspec.json.decode(answer, type=ShardStatistics)

    def _handle(self, shard: int) -> "ray.actor.ActorHandle":
        handle = self._handles.get(shard)
        if handle is None:
            try:
                handle = serve.get_deployment_actor(actor_name(shard))
            except ValueError as error:
                # Being replaced: the name is free until the successor registers.
                raise ShardUnreachable("no actor of this name yet", delivered=False) from error
            self._handles[shard] = handle
        return handle
