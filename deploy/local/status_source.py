"""Looks into a running service: what its shards, replicas and projections say of themselves.

It connects to the Ray cluster, so it may ask whoever may use the cluster (the token of the local
stack is readable by its owner alone). Ray is imported when an observer is made, never before: it
reads its environment at import.
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

_ANSWER_TIMEOUT_S: Final = 5.0


class StatusSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """How the service stood at a moment. What doesn't answer is missing."""

    at_s: float
    """A monotonic clock's."""
    shards: list[ShardStatistics]
    replicas: list[ReplicaStatistics]
    projections: list[ProjectionStatistics]


class StatusSource:
    """Made by `observer`. Serve's handles want an event loop that runs all the time."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def snapshot(self) -> StatusSnapshot:
        """Ask everybody, all at once."""
        return asyncio.run_coroutine_threadsafe(self._look(), self._loop).result()

    async def _look(self) -> StatusSnapshot:
        shards, replicas, projections = await asyncio.gather(
            _answers_of(API, "statistics"),
            _answers_of(API, "replica_statistics", everybody=True),
            _answers_of(PROJECTIONS, "statistics"),
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


async def _answers_of(
    application: str, method: str, *, everybody: bool = False
) -> list[dict[str, Any]]:
    """What one replica (or every one) of an application answers; nothing if it can't be asked."""
    from ray import serve
    from ray.exceptions import RayError
    from ray.serve.exceptions import RayServeException

    try:
        async with asyncio.timeout(_ANSWER_TIMEOUT_S):
            handle: Any = serve.get_app_handle(application)
            if everybody:
                found: list[dict[str, Any]] = await handle.broadcast(method).results_async()
            else:
                found = await getattr(handle, method).remote()
    except (RayServeException, RayError, TimeoutError):
        return []
    return found


@contextmanager
def status_source(address: str) -> Iterator[StatusSource]:
    """An observer of the cluster at ``address``, whose environment must be in place already.

    Raises:
        StackError: no cluster answers there.
    """
    import ray

    logging.disable(logging.ERROR)  # The page is for a person; Ray's own remarks are not on it.
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as failure:
        raise StackError(f"No Ray cluster answers at {address} ({failure}).") from failure
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield StatusSource(loop)
    finally:
        # In this order: what Ray still has to tell the loop would wait for ever on a closed one.
        ray.shutdown()
        loop.call_soon_threadsafe(loop.stop)
        thread.join(_ANSWER_TIMEOUT_S)
