"""Whether what the service needs is there, asked anew each time, and how it stands."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from actors.ray_shards import RayShards
from actors.statistics import ShardStatistics
from projections.queries import Queries, ReadsUnavailable
from serve_app.schemas import Component
from wallet.settings import Settings

PROJECTIONS: Final = "projections"
"""Name of the application that the projections run in."""


async def statistics_of(
    settings: Settings, shards: RayShards
) -> list[ShardStatistics | BaseException]:
    """Each shard's statistics, or why there are none."""
    return await asyncio.gather(
        *(shards.statistics(shard) for shard in range(settings.shard_count)),
        return_exceptions=True,
    )


class Probes:
    """The components of /readyz."""

    def __init__(self, settings: Settings, queries: Queries, shards: RayShards) -> None:
        self._settings = settings
        self._queries = queries
        self._shards = shards

    @property
    def all(self) -> dict[str, Callable[[], Awaitable[Component]]]:
        """Every probe by the name of its component."""
        return {
            "postgres": self.postgres,
            "nats": self.nats,
            "shards": self.shards,
            "projections": self.projections,
        }

    async def postgres(self) -> Component:
        try:
            await self._queries.ping()
        except ReadsUnavailable as error:
            return Component(ready=False, detail=str(error))
        return Component(ready=True, detail="answers")

    async def shards(self) -> Component:
        found = await statistics_of(self._settings, self._shards)
        missing = [n for n, one in enumerate(found) if isinstance(one, BaseException)]
        if missing:
            return Component(ready=False, detail=f"not answering: {missing}")
        queued = sum(one.mailbox_items for one in found if isinstance(one, ShardStatistics))
        detail = f"{len(found)} of {len(found)}, {queued} commands queued"
        return Component(ready=True, detail=detail)

    async def nats(self) -> Component:
        everyone = await statistics_of(self._settings, self._shards)
        found = [one for one in everyone if isinstance(one, ShardStatistics)]
        if not found:
            return Component(ready=False, detail="no shard to ask")
        ready = all(one.stream_ready for one in found)
        waiting = sum(one.outbox_events for one in found)
        state = "publishing" if ready else "not reachable: writing goes on"
        return Component(ready=ready, detail=f"{state}, {waiting} events wait in the outbox")

    async def projections(self) -> Component:
        try:
            handle: DeploymentHandle = serve.get_app_handle(PROJECTIONS)
            found: list[dict[str, Any]] = await handle.statistics.remote()
        except (RayServeException, RayError) as error:
            return Component(ready=False, detail=str(error).splitlines()[0][:200])
        missing = [one["group"] for one in found if not one["ready"]]
        if missing:
            return Component(ready=False, detail=f"not following the stream: groups {missing}")
        behind = sum(one["pending"] for one in found)
        aside = await self._queries.dead_letters()
        detail = f"{len(found)} of {len(found)}, {behind} events behind"
        return Component(ready=True, detail=f"{detail}, {aside} put aside" if aside else detail)
