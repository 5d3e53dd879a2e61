"""Readiness checks of this replica and of the components it needs."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, Protocol

from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from actors.rpc.transport import ShardUnreachable
from actors.shard.statistics import ShardStatistics
from projections.queries import Queries
from runtime.postgres.reads import ReadUnavailable
from runtime.settings import Settings
from serve_app.http.models import Component
from serve_app.shard_view import SharedView

PROJECTIONS: Final = "projections"
"""Name of the application that the projections run in."""


_NO_SHARD: Final = Component(ready=False, detail="no shard can be reached")


class Shards(Protocol):
    """The calls to shards that the checks need."""

    async def statistics(self, shard: int) -> ShardStatistics:
        """Raises: ShardUnreachable: the shard doesn't respond."""

    def reaches_a_shard(self) -> bool:
        """Whether commands reach any shard, as of the latest pings."""

    async def writing_problem(self, shard: int) -> str | None:
        """Why a command for ``shard`` can't be written now, on it or on its failover shard.

        Raises:
            ShardUnreachable: no shard can be reached.
        """


async def collect_shard_statistics(
    settings: Settings, shards: Shards
) -> list[ShardStatistics | BaseException]:
    """Each shard's statistics, or the error.

    A hanging or starting shard is waited for a quarter of the timeout of a readiness check.
    """

    async def statistics_of(shard: int) -> ShardStatistics:
        async with asyncio.timeout(settings.ready_timeout_s / 4):
            return await shards.statistics(shard)

    return await asyncio.gather(
        *map(statistics_of, range(settings.shard_count)), return_exceptions=True
    )


class ReadinessChecks:
    """The components of /readyz."""

    def __init__(self, settings: Settings, queries: Queries, shards: Shards) -> None:
        self._settings = settings
        self._queries = queries
        self._shards = shards
        self._statistics = SharedView(
            partial(collect_shard_statistics, settings, shards), clock=time.monotonic
        )
        self._projections: DeploymentHandle | None = None

    @property
    def by_name(self) -> dict[str, Callable[[], Awaitable[Component]]]:
        """The check of each component."""
        return {
            "postgres": self.postgres,
            "nats": self.nats,
            "shards": self.shards,
            "projections": self.projections,
        }

    async def postgres(self) -> Component:
        """Ready with wallets in quarantine, too: the others can be written."""
        try:
            forked = await self._queries.forked_wallets()
        except ReadUnavailable as error:
            return Component(ready=False, detail=str(error))
        detail = f"answers, {forked} wallets in quarantine: see `wallet recover`"
        return Component(ready=True, detail=detail if forked else "answers")

    async def shards(self) -> Component:
        """Ready: commands of every wallet reach a shard whose writes succeed."""
        if not self._shards.reaches_a_shard():
            return _NO_SHARD
        found, problems = await asyncio.gather(self._statistics(), self._writing_problems())
        if not self._shards.reaches_a_shard():  # any more: noticed while it was waited for
            return _NO_SHARD
        responding = [one for one in found if isinstance(one, ShardStatistics)]
        queued = sum(one.mailbox_items for one in responding)
        detail = f"{len(responding)} of {len(found)}, {queued} commands queued"
        if problems:
            return Component(ready=False, detail=f"{detail}; no writes: {problems[0]}")
        unreachable = [n for n, one in enumerate(found) if isinstance(one, BaseException)]
        if unreachable:
            detail += f"; shards {unreachable} are failed over to the next"
        return Component(ready=True, detail=detail)

    async def _writing_problems(self) -> list[str]:
        shards = range(self._settings.shard_count)
        found = await asyncio.gather(*map(self._writing_problem, shards))
        return [problem for problem in found if problem is not None]

    async def _writing_problem(self, shard: int) -> str | None:
        try:
            return await self._shards.writing_problem(shard)
        except ShardUnreachable as failure:
            return f"no shard can be reached ({failure})"

    async def nats(self) -> Component:
        found = [one for one in await self._statistics() if isinstance(one, ShardStatistics)]
        if not found:
            return Component(ready=False, detail="no shard responds")
        ready = all(one.stream_ready for one in found)
        queued = sum(one.outbox_events for one in found)
        state = "publishing" if ready else "unreachable, writes continue"
        if any(one.stream_refilling for one in found):
            ready, state = False, "stream behind: refilling, writes continue"
        return Component(ready=ready, detail=f"{state}, {queued} events in the outbox")

    async def projections(self) -> Component:
        try:
            # The lookup blocks while the Serve controller can't be reached.
            handle: DeploymentHandle = self._projections or await asyncio.to_thread(
                serve.get_app_handle, PROJECTIONS
            )
            self._projections = handle
            found: list[dict[str, Any]] = await handle.statistics.remote()
        except (RayServeException, RayError) as error:
            self._projections = None
            return Component(ready=False, detail=str(error).splitlines()[0][:200])
        missing = [one["group"] for one in found if not one["ready"]]
        if missing:
            return Component(ready=False, detail=f"not following the stream: groups {missing}")
        lag = sum(one["pending"] for one in found)
        dead_letters = await self._queries.dead_letters()
        detail = f"{len(found)} of {len(found)}, lag {lag} events"
        return Component(
            ready=True, detail=f"{detail}, {dead_letters} dead letters" if dead_letters else detail
        )
