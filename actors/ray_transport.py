"""How an ingress replica reaches the shards: addresses from Ray, calls over TCP connections."""

import asyncio
import ssl
from concurrent.futures import ThreadPoolExecutor

import msgspec
import ray
from ray import serve
from ray.exceptions import RayActorError, RayError

from actors.rpc.client import RpcClient, connect
from actors.rpc.failover import FailoverTransport
from actors.rpc.keepalive import Heartbeat
from actors.rpc.server import RpcEndpoint
from actors.rpc.tls import TlsFiles
from actors.rpc.transport import ShardUnreachable
from actors.shard.statistics import ShardStatistics
from actors.shard_actor import actor_name


class RayShardTransport:
    """Implements `ShardTransport` from within a replica of the deployment that has the shards."""

    def __init__(self, shard_count: int, heartbeat: Heartbeat, files: TlsFiles) -> None:
        self._heartbeat = heartbeat
        self._tls = files.context(ssl.Purpose.SERVER_AUTH)
        self._handles: dict[int, ray.actor.ActorHandle] = {}
        # Looking up an actor's name blocks while Ray's head can't be reached, for as long as Ray
        # retries. In the event loop it would stop every request of this process.
        self._lookups = ThreadPoolExecutor(shard_count, "shard-lookup")
        self._shards = FailoverTransport(self._open, shard_count=shard_count)

    async def call(self, shard: int, payload: bytes) -> bytes:
        return await self._shards.call(shard, payload)

    async def warm_up(self) -> None:
        """Connect to the shards that answer in time. Call it before the first request."""
        await self._shards.warm_up()

    async def writing_problem(self, shard: int) -> str | None:
        """Why a command for ``shard`` would not be written now, whichever shard takes it.

        Raises:
            ShardUnreachable: no shard can be reached.
        """
        return await self._shards.writing_problem(shard)

    def connect(self) -> None:
        """Begin to connect to every shard that has no connection; doesn't wait for any."""
        self._shards.connect()

    def reaches_a_shard(self) -> bool:
        """Whether commands reach any shard, as of the latest pings."""
        return self._shards.reaches_a_shard()

    async def statistics(self, shard: int) -> ShardStatistics:
        """The statistics of ``shard``.

        Raises:
            ShardUnreachable: it does not answer.
        """
        try:
            handle = await self._handle(shard)
            answer: bytes = await handle.statistics.remote()
        except RayError as error:
            raise self._unreachable(shard, error) from error
        return msgspec.json.decode(answer, type=ShardStatistics)

    async def _open(self, shard: int) -> RpcClient:
        try:
            handle = await self._handle(shard)
            answer: bytes = await handle.address.remote()
        except RayActorError as error:
            raise self._unreachable(shard, error) from error
        try:
            address = msgspec.json.decode(answer, type=RpcEndpoint)
            return await connect(address, self._heartbeat, self._tls)
        except ShardUnreachable:
            self._handles.pop(shard, None)
            raise

    def _unreachable(self, shard: int, error: RayError) -> ShardUnreachable:
        self._handles.pop(shard, None)
        return ShardUnreachable(str(error).splitlines()[0], delivered=False)

    async def _handle(self, shard: int) -> "ray.actor.ActorHandle":
        handle = self._handles.get(shard)
        if handle is None:
            try:
                handle = await asyncio.get_running_loop().run_in_executor(
                    self._lookups, serve.get_deployment_actor, actor_name(shard)
                )
            except ValueError as error:
                # The actor is being replaced: its name is unused until the successor registers.
                raise ShardUnreachable("no actor of this name yet", delivered=False) from error
            self._handles[shard] = handle
        return handle
