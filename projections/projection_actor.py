"""The projection's Ray actor: a thin wrapper.

Serve pickles this module's classes by value into the actor's process. Define nothing else here:
two copies of a class are not the same class.
"""

import asyncio
from typing import Any

import msgspec
import ray

from projections import projection_metrics
from projections.projection_process import ProjectionProcess
from runtime.metrics.exporter import EXPORT_PERIOD_S, Exporter
from runtime.placement.ray_options import with_node
from runtime.settings import Settings


def actor_name(group: int) -> str:
    """Name of a group's actor within its deployment."""
    return f"projection-{group}"


@ray.remote
class ProjectionActor:
    """One group of partitions. See `ProjectionProcess`."""

    def __init__(self, group: int, settings: Settings) -> None:
        # If serve.yaml overrides a deployment option, Serve passes the settings as a dict.
        self._process = ProjectionProcess(group, Settings.model_validate(settings))
        self._metrics = asyncio.get_event_loop().create_task(self._export())

    async def statistics(self) -> bytes:
        """JSON of `ProjectionStatistics`."""
        return msgspec.json.encode(self._process.statistics())

    async def _export(self) -> None:
        exporter = Exporter()
        while True:
            exporter.export(projection_metrics.samples(self._process.statistics()))
            await asyncio.sleep(EXPORT_PERIOD_S)


class SpreadProjectionActor:
    """`ProjectionActor` as Serve's controller creates it: on the node that has the fewest.

    It takes the place of Ray's actor class, of which Serve uses only `options`.
    """

    __ray_actor_class__ = ProjectionActor.__ray_actor_class__  # type: ignore[attr-defined]  # by ray.remote

    @staticmethod
    def options(**options: Any) -> Any:
        """The actor class with these options; see `with_node`."""
        return ProjectionActor.options(**with_node(options))  # type: ignore[attr-defined]
