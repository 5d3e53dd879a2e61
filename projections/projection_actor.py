"""A projection as a Ray actor: nothing but the wrapping.

Serve copies this module's classes by value into the actor's process, so nothing else may be
defined here: two copies of one class are not the same class.
"""

import ray

from projections.projection_process import ProjectionProcess
from wallet.settings import Settings


def actor_name(group: int) -> str:
    """Name of a group's actor among its deployment's actors."""
    return f"projection-{group}"


@ray.remote
class ProjectionActor:
    """One group of partitions. See `ProjectionProcess`."""

    def __init__(self, group: int, settings: Settings) -> None:
        self._process = ProjectionProcess(group, settings)

    async def statistics(self) -> bytes:
        """JSON of `ProjectionStatistics`."""
        return self._process.statistics()
