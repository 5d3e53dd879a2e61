"""The shard as a Ray actor: only the wrapper.

Serve copies this module's classes by value into the actor's process, so nothing else may be
defined here: two copies of one class are not the same class. What the class names at module level
is loaded with it, so the shard itself is loaded in the constructor, in this process's turn.
"""

import asyncio
from typing import Any

import ray

from runtime.placement.ray_options import with_node
from runtime.start_turns import start_turn


def other_versions(name: str) -> list[str]:
    """Names of the shards that another version of the deployment of shard ``name`` runs now.

    Names are `SERVE_DEPLOYMENT_ACTOR::application::deployment::version::shard-N`. None are known
    for a name of another form, or if Ray can't say.
    """
    deployment, _, _ = name.rpartition("::")
    every_version, _, version = deployment.rpartition("::")
    if not version:
        return []
    try:
        every = [one["name"] for one in ray.util.list_named_actors(all_namespaces=True)]
    except ray.exceptions.RayError:
        return []
    return [
        one
        for one in every
        if one.startswith(f"{every_version}::") and not one.startswith(f"{deployment}::")
    ]


def actor_name(shard: int) -> str:
    """Name of a shard among its deployment's actors."""
    return f"shard-{shard}"


@ray.remote
class ShardActor:
    """One shard. See `ShardProcess`."""

    def __init__(self, shard: int, settings: Any) -> None:
        # In an upgrade the shards of the version before serve meanwhile: there is time. A shard
        # that takes the place of one that is gone has none.
        name = ray.get_runtime_context().get_actor_name() or ""
        with start_turn(politely=bool(other_versions(name))):
            from actors.shard.process import ShardProcess
            from runtime.settings import Settings
        # A dict, if serve.yaml overrides an option of the deployment: Serve dumps its models then.
        self._process = ShardProcess(shard, Settings.model_validate(settings))
        self._metrics = asyncio.get_event_loop().create_task(self._export())

    async def address(self) -> bytes:
        """JSON of the `RpcEndpoint` at which this shard accepts commands."""
        return self._encode(await self._process.listen(ray.util.get_node_ip_address()))

    async def statistics(self) -> bytes:
        """JSON of `ShardStatistics`."""
        return self._encode(self._process.statistics())

    def _encode(self, what: Any) -> bytes:
        import msgspec

        return msgspec.json.encode(what)

    async def _export(self) -> None:
        from actors.shard import metrics
        from runtime.metrics.exporter import EXPORT_PERIOD_S, Exporter

        exporter = Exporter()
        while True:
            exporter.export(metrics.samples(self._process.statistics()))
            await asyncio.sleep(EXPORT_PERIOD_S)


class SpreadShardActor:
    """`ShardActor` as Serve's controller creates it: on the node that has the fewest shards.

    It takes the place of Ray's actor class, of which Serve uses only `options`.
    """

    __ray_actor_class__ = ShardActor.__ray_actor_class__  # type: ignore[attr-defined]  # by ray.remote

    @staticmethod
    def options(**options: Any) -> Any:
        """The actor class with these options; see `with_node`."""
        return ShardActor.options(**with_node(options))  # type: ignore[attr-defined]
