"""The two Serve applications.

`api`: ingress replicas, and the shards as deployment-scoped actors of the same deployment, so
that the Serve controller starts, monitors, replaces and removes them together. `projections`:
the projection actors, with one small replica that reports their statistics.
"""

import asyncio
import sys
from typing import Any, Final

import asyncpg
import msgspec
import structlog
from ray import serve
from ray.exceptions import RayError
from ray.serve.config import DeploymentActorConfig
from ray.serve.schema import LoggingConfig

from actors.dispatch.dispatcher import Dispatcher, DispatcherLimits
from actors.ray_transport import RayShardTransport
from actors.rpc.keepalive import Heartbeat
from actors.rpc.tls import TlsFiles
from actors.shard.process import limits_from
from actors.shard.statistics import ShardStatistics
from actors.shard_actor import SpreadShardActor
from actors.shard_actor import actor_name as shard_name
from projections.projection_actor import SpreadProjectionActor
from projections.projection_actor import actor_name as projection_name
from projections.queries import PLANNER_SETTINGS, Queries
from projections.statistics import ProjectionStatistics
from runtime.gc_tuning import freeze_startup_objects
from runtime.logging import configure_logging
from runtime.metrics.exporter import EXPORT_PERIOD_S, Exporter
from runtime.placement.ray_options import GROUP_SIZE, nodes_accepting_actors
from runtime.placement.spread import per_node_max
from runtime.postgres.connect import Connector, Role
from runtime.settings import Settings
from runtime.tracing import configure_tracing
from serve_app.app import create_application
from serve_app.arguments import ApplicationArguments
from serve_app.asgi import request_metrics, serve_middleware
from serve_app.asgi.access_log import AccessLog
from serve_app.asgi.router import FastPathApplication
from serve_app.auth.bind_policy import check_bind_policy, is_exposed_unauthenticated
from serve_app.auth.setup import AuthenticatorFactory
from serve_app.autoscaling import CPU_METRIC, CpuUsage
from serve_app.bind_address import serve_bind_host
from serve_app.database_check import check_database
from serve_app.dependencies import Dependencies
from serve_app.readiness import ReadinessChecks, collect_shard_statistics
from serve_app.single_flight import SingleFlight
from serve_app.stoppable_replica import StoppableReplica

_log = structlog.get_logger(__name__)

API: Final = "api"

_MAX_ONGOING_REQUESTS: Final = 1_000_000
"""Effectively disables Serve's limit: our own bounded queues reject with a problem document and a
Retry-After."""

_MIN_CPUS_FOR_SPREAD: Final = 0.01
"""CPU reservation of a process that needs none. With a reservation of 0 Ray starts at a random node
each time, so several replicas can share one node while another has none."""

_SURGE_PERCENT: Final = 25
"""How many replicas an upgrade may add. Otherwise Serve stops an old replica at once, and starts
its successor when all shards have started: one of two replicas is missing for that long."""

_CONNECT_PERIOD_S: Final = 0.5
"""How often an ingress replica tries to connect to the shards that it has no connection to."""

_SERVE_LOGGING: Final = LoggingConfig(enable_access_log=False, log_level="WARNING")
"""At a lower level Serve formats a line per request and then drops it."""


async def _skip_reset(_connection: object) -> None:
    """Reads leave no session state; asyncpg's default reset costs a round trip."""


@serve.ingress()
class Ingress(StoppableReplica):
    """An ingress replica: composition root of the HTTP process."""

    def __init__(self, settings: Settings) -> None:
        # A replica's `sys.stdout` is Serve's, which drops what is below its own level.
        configure_logging(settings, to=sys.__stdout__)
        AccessLog.enable_for(settings.log_level)
        configure_tracing("ingress")
        self._settings = settings
        self._shards = RayShardTransport(
            settings.shard_count,
            limits_from(Heartbeat, settings),
            limits_from(TlsFiles, settings),
        )
        self._dispatcher = Dispatcher(self._shards, limits_from(DispatcherLimits, settings))
        self._pool: asyncpg.Pool | None = None
        self._cpu_usage = CpuUsage()
        self._authenticator_factory = AuthenticatorFactory(settings)

    async def __serve_build_asgi_app__(self) -> FastPathApplication:
        settings, host = self._settings, await serve_bind_host()
        check_bind_policy(settings, host)
        is_exposed = is_exposed_unauthenticated(settings, host)
        if is_exposed:
            _log.warning("authentication is off on a non-loopback address", host=host)
        connector = Connector(
            settings.database_url,
            timeout_s=settings.database_connect_timeout_s,
            role=Role.READER,
            settings={
                "application_name": "wallet-ingress",
                "timezone": "UTC",
                **PLANNER_SETTINGS,
            },
            command_timeout_s=settings.database_timeout_s,
        )
        await check_database(connector)
        self._pool = connector.pool(max_size=settings.read_pool_max, reset=_skip_reset)
        await self._pool
        queries = Queries(self._pool, timeout_s=settings.database_timeout_s)
        probes = ReadinessChecks(settings, queries, self._shards)
        application = create_application(
            Dependencies(
                settings=settings,
                dispatcher=self._dispatcher,
                queries=queries,
                probes={
                    name: SingleFlight(probe, timeout_s=settings.ready_timeout_s)
                    for name, probe in probes.by_name.items()
                },
                authenticator=await self._authenticator_factory.open()
                if settings.auth == "required"
                else None,
                reaches_a_shard=self._shards.reaches_a_shard,
                is_exposed_unauthenticated=is_exposed,
            )
        )
        serve_middleware.register(application)
        # Ready only with connections: the first requests would wait for them.
        await self._shards.warm_up()
        self._metrics = asyncio.create_task(self._export())
        self._connections = asyncio.create_task(self._keep_connected())
        freeze_startup_objects()
        return application

    async def _keep_connected(self) -> None:
        """So that a shard's failure is known before a command waits for it."""
        while True:
            self._shards.connect()
            await asyncio.sleep(_CONNECT_PERIOD_S)

    async def _export(self) -> None:
        exporter, replica = Exporter(), serve.get_replica_context().replica_tag
        while True:
            exporter.export(request_metrics.samples(replica, self._dispatcher.queued, self._pool))
            await asyncio.sleep(EXPORT_PERIOD_S)

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Called by Serve, for the policy in autoscaling.py."""
        return {CPU_METRIC: self._cpu_usage.share()}

    async def statistics(self) -> list[dict[str, Any]]:
        """The shards' statistics, for `wallet status`; shards that don't respond are left out."""
        found = await collect_shard_statistics(self._settings, self._shards)
        return [msgspec.to_builtins(one) for one in found if isinstance(one, ShardStatistics)]

    async def replica_statistics(self) -> dict[str, Any]:
        """This replica's own statistics, for `wallet status`."""
        replica = serve.get_replica_context().replica_tag
        found = request_metrics.statistics(replica, self._dispatcher.queued, self._pool)
        return dict(msgspec.to_builtins(found))


class Projections(StoppableReplica):
    """The single replica of `projections`: reports the actors' statistics."""

    def __init__(self, settings: Settings) -> None:
        # A replica's `sys.stdout` is Serve's, which drops what is below its own level.
        configure_logging(settings, to=sys.__stdout__)
        serve_middleware.disable()
        self._groups = settings.projection_groups

    async def statistics(self) -> list[dict[str, Any]]:
        """Every projection actor's statistics; one that doesn't respond is not ready."""
        return [await self._statistics(group) for group in range(self._groups)]

    async def _statistics(self, group: int) -> dict[str, Any]:
        try:
            actor = serve.get_deployment_actor(projection_name(group))
            answer: bytes = await actor.statistics.remote()
        except (ValueError, RayError) as error:
            return {"group": group, "ready": False, "detail": str(error)[:200]}
        found = msgspec.json.decode(answer, type=ProjectionStatistics)
        return dict(msgspec.to_builtins(found))


def api_application(
    settings: Settings, *, shown: Settings | dict[str, Any] | None = None
) -> serve.Application:
    """The `api` application, as `serve run` and `serve deploy` take it.

    ``shown``: the settings for the shards, which Serve's API shows; None: all of them.
    """
    shards = [
        DeploymentActorConfig(
            name=shard_name(shard),
            actor_class=SpreadShardActor,
            # No model: its class would be loaded before the actor has its turn.
            init_kwargs={"shard": shard, "settings": _dumped(settings if shown is None else shown)},
            actor_options={
                "num_cpus": max(settings.shard_num_cpus, _MIN_CPUS_FOR_SPREAD),
                "scheduling_strategy": "SPREAD",
                GROUP_SIZE: settings.shard_count,
            },
        )
        for shard in range(settings.shard_count)
    ]
    deployment = serve.deployment(
        Ingress,
        name="Ingress",
        num_replicas=settings.ingress_replicas,
        max_ongoing_requests=_MAX_ONGOING_REQUESTS,
        graceful_shutdown_wait_loop_s=0.2,
        graceful_shutdown_timeout_s=settings.drain_timeout_s,
        health_check_period_s=2,
        health_check_timeout_s=10,
        ray_actor_options={"num_cpus": _MIN_CPUS_FOR_SPREAD},
        max_replicas_per_node=_replicas_per_node_max(settings.ingress_replicas),
        logging_config=_SERVE_LOGGING,
        deployment_actors=shards,
    )
    return _with_surge(deployment).bind(settings)


def _dumped(settings: Settings | dict[str, Any]) -> dict[str, Any]:
    return settings.model_dump() if isinstance(settings, Settings) else settings


def _with_surge(deployment: serve.Deployment) -> serve.Deployment:
    """``deployment``, of which an upgrade may add replicas, unless nodes have a limit of them.

    A node at its limit gets no other replica, so the upgrade would wait for ever.
    """
    if deployment._replica_config.max_replicas_per_node is not None:
        return deployment
    return deployment.options(max_surge_percent=_SURGE_PERCENT)


def _replicas_per_node_max(replicas: int) -> int | None:
    """The share of a node, so that no other has fewer; None on one node, which has them all.

    Serve keeps the cap for as long as the version runs: a replica of a lost node waits for another
    node rather than share the CPUs of the remaining ones.
    """
    nodes = nodes_accepting_actors()
    return per_node_max(replicas, nodes) if nodes > 1 else None


def projections_application(
    settings: Settings, *, shown: Settings | dict[str, Any] | None = None
) -> serve.Application:
    """The `projections` application. ``shown``: as in `api_application`."""
    actors = [
        DeploymentActorConfig(
            name=projection_name(group),
            actor_class=SpreadProjectionActor,
            init_kwargs={"group": group, "settings": settings if shown is None else shown},
            actor_options={
                "num_cpus": _MIN_CPUS_FOR_SPREAD,
                "scheduling_strategy": "SPREAD",
                GROUP_SIZE: settings.projection_groups,
            },
        )
        for group in range(settings.projection_groups)
    ]
    deployment = serve.deployment(
        Projections,
        name="Projections",
        num_replicas=1,
        ray_actor_options={"num_cpus": _MIN_CPUS_FOR_SPREAD},
        logging_config=_SERVE_LOGGING,
        deployment_actors=actors,
    )
    return deployment.bind(settings)


def api(arguments: ApplicationArguments) -> serve.Application:
    """`serve_app.deployment:api`, for `serve deploy` and KubeRay."""
    return api_application(arguments.settings(), shown=arguments.without_inherited_secrets())


def projections(arguments: ApplicationArguments) -> serve.Application:
    """`serve_app.deployment:projections`, for `serve deploy` and KubeRay."""
    return projections_application(
        arguments.settings(), shown=arguments.without_inherited_secrets()
    )
