"""A projection's process without Ray: its composition root."""

import asyncio
import os
from typing import Final

import nats
import structlog

from projections.auditor import Auditor
from projections.consumer import ConsumerOptions, ProjectionConsumer
from projections.statistics import ProjectionStatistics
from projections.store import ProjectionStore
from runtime.gc_tuning import freeze_startup_objects
from runtime.logging import configure_logging
from runtime.metrics.histogram import Histogram
from runtime.postgres.connect import Connector
from runtime.settings import Settings
from runtime.tracing import configure_tracing

_log = structlog.get_logger(__name__)

CONNECTION_SETTINGS: Final = {
    "application_name": "wallet-projection",
    "timezone": "UTC",
    # All look-ups are by primary key; statistics of a new table would suggest other plans.
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "plan_cache_mode": "force_generic_plan",
    "jit": "off",
}

_LAG_REFRESH_INTERVAL_S: Final = 2.0
"""How often the lag is read from the stream."""


class ProjectionProcess:
    """Composition root of a projection's process."""

    def __init__(self, group: int, settings: Settings) -> None:
        configure_logging(settings)
        configure_tracing("projection")
        self._group = group
        self._settings = settings
        self._consumer: ProjectionConsumer | None = None
        self._auditor: Auditor | None = None
        self._task = asyncio.get_event_loop().create_task(self._run())

    async def _run(self) -> None:
        try:
            await self._consume()
        except asyncio.CancelledError:
            raise
        except Exception:  # noqa: BLE001 - any error ends this process
            _log.critical("projection failed", group=self._group, exc_info=True)
            os._exit(1)

    async def _consume(self) -> None:
        settings = self._settings
        # On Linux a nice value belongs to a thread: this one runs the event loop.
        os.nice(settings.projection_niceness)
        # Retries the first connection too: NATS or Postgres may be unavailable at start.
        client = await nats.connect(
            settings.nats_url,
            name=f"projection-{self._group}",
            allow_reconnect=True,
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.25,
            error_cb=_log_client_error,
        )
        pool = await Connector(
            settings.database_url,
            timeout_s=settings.database_connect_timeout_s,
            settings=CONNECTION_SETTINGS,
            command_timeout_s=settings.projection_ack_wait_s,
        ).pool(max_size=2)
        freeze_startup_objects()
        self._consumer = ProjectionConsumer(
            client=client,
            store=ProjectionStore(pool),
            options=ConsumerOptions(
                stream=settings.stream_name,
                group=self._group,
                groups=settings.projection_groups,
                partitions=settings.stream_partitions,
                batch_max=settings.projection_batch_max,
                poll_s=settings.projection_pull_expires_s,
                interval_s=settings.projection_interval_s,
                ack_wait_s=settings.projection_ack_wait_s,
            ),
        )
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._consumer.run())
            tasks.create_task(_refresh_lag_periodically(self._consumer))
            if self._group == 0:  # One auditor for all groups: it checks every wallet.
                self._auditor = Auditor(pool)
                tasks.create_task(self._auditor.run())

    def statistics(self) -> ProjectionStatistics:
        """A snapshot; zeros until the consumer exists."""
        consumer = self._consumer
        return ProjectionStatistics(
            group=self._group,
            pid=os.getpid(),
            events=consumer.events if consumer else 0,
            batches=consumer.batches if consumer else 0,
            gaps=consumer.gaps if consumer else 0,
            lost_histories=consumer.lost_histories if consumer else 0,
            failures=consumer.failures if consumer else 0,
            dead_letters=consumer.dead_letters if consumer else 0,
            pending=consumer.pending if consumer else 0,
            lag_s=consumer.lag_s if consumer else 0.0,
            ready=consumer.ready if consumer else False,
            fold_seconds=(consumer.fold_seconds if consumer else Histogram()).snapshot(),
            audit=self._auditor.statistics() if self._auditor else None,
        )


async def _refresh_lag_periodically(consumer: ProjectionConsumer) -> None:
    while True:
        await asyncio.sleep(_LAG_REFRESH_INTERVAL_S)
        await consumer.refresh_lag()


async def _log_client_error(error: Exception) -> None:
    _log.warning("nats client error", error=f"{type(error).__name__}: {error}")
