"""Collects the statistics of a running service's shards, replicas and projections.

It connects to the Ray cluster, so only users with access to the cluster can use it (the token of
the local stack is readable by its owner only). Ray is imported only when a source is created,
because it reads its environment at import.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import msgspec

from actors.shard.statistics import ShardStatistics
from deploy.local.errors import StackError
from projections.statistics import ProjectionStatistics
from serve_app.applications import API, PROJECTIONS
from serve_app.asgi.statistics import ReplicaStatistics

_RESPONSE_TIMEOUT_S: Final = 5.0


class StatusSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """Statistics at one moment. Processes that don't respond are missing."""

    at_s: float
    """Time of the monotonic clock."""
    shards: list[ShardStatistics]
    replicas: list[ReplicaStatistics]
    projections: list[ProjectionStatistics]


class StatusSource:
    """Created by `status_source`. Serve's handles need an event loop that runs permanently."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def snapshot(self) -> StatusSnapshot:
        """Request the statistics of all processes at the same time."""
        return asyncio.run_coroutine_threadsafe(self._collect(), self._loop).result()

    async def _collect(self) -> StatusSnapshot:
        shards, replicas, projections = await asyncio.gather(
            _request(API, "statistics"),
            _request(API, "replica_statistics", all_replicas=True),
            _request(PROJECTIONS, "statistics"),
        )
        return StatusSnapshot(
            at_s=time.monotonic(),
            shards=msgspec.convert(shards, list[ShardStatistics]),
            replicas=msgspec.convert(replicas, list[ReplicaStatistics]),
            projections=[
                msgspec.convert(found, ProjectionStatistics)
                for found in projections
                if "pid" in found
            ],
        )


async def _request(
    application: str, method: str, *, all_replicas: bool = False
) -> list[dict[str, Any]]:
    """The response of one replica (or of all) of an application; empty if it can't be reached."""
    from ray import serve
    from ray.exceptions import RayError
    from ray.serve.exceptions import RayServeException

    try:
        async with asyncio.timeout(_RESPONSE_TIMEOUT_S):
            handle: Any = serve.get_app_handle(application)
            if all_replicas:
                found: list[dict[str, Any]] = await handle.broadcast(method).results_async()
            else:
                found = await getattr(handle, method).remote()
    except (RayServeException, RayError, TimeoutError):
        return []
    return found


@contextmanager
def status_source(address: str) -> Iterator[StatusSource]:
    """A source for the cluster at ``address``. Ray's environment variables must be set already.

    Raises:
        StackError: can't connect to the cluster.
    """
    import ray

    logging.disable(logging.ERROR)  # Ray's own log lines would disturb the page.
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as failure:
        raise StackError(f"Can't connect to a Ray cluster at {address} ({failure}).") from failure
    with open_source() as source:
        yield source


@contextmanager
def open_source() -> Iterator[StatusSource]:
    """A source for the cluster that this process is connected to; disconnects at the end."""
    import ray

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield StatusSource(loop)
    finally:
        # In this order: Ray's last calls to the loop would block permanently on a closed one.
        ray.shutdown()
        loop.call_soon_threadsafe(loop.stop)
        thread.join(_RESPONSE_TIMEOUT_S)
