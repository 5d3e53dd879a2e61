"""A shard's process without Ray: builds its components and starts its tasks."""

import asyncio
import os
import ssl
from collections.abc import Coroutine
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Final, TypeVar

import msgspec
import structlog

from actors.dispatch.ring import ring_of
from actors.history.guard import HistoryGuard
from actors.history.jetstream_tail import JetStreamTail
from actors.history.postgres import PostgresHistory
from actors.journal.ports import JournalError, JournalUnavailable, OutcomeUnknown, SessionLost
from actors.journal.postgres import CONNECTION_SETTINGS, PostgresJournal
from actors.journal.postgres_connection import ReconnectingConnection
from actors.journal.postgres_expiries import PostgresExpiries
from actors.journal.postgres_probe import PROBE_SETTINGS, PostgresWriteProbe
from actors.outbox.jetstream import JetStream, StreamOptions
from actors.outbox.postgres import PostgresOutbox
from actors.outbox.postgres_backfill import PostgresBackfill
from actors.outbox.relay import OutboxRelay, RelayLimits
from actors.rpc.messages import serve_call
from actors.rpc.server import RpcEndpoint, RpcServer
from actors.rpc.tls import TlsFiles
from actors.shard.background_tasks import BackgroundTasks
from actors.shard.shard import Shard, ShardLimits
from actors.shard.statistics import ShardStatistics
from actors.shard.write_health import MonitoredJournal, WriteHealth, WriteHealthLimits
from runtime.gc_tuning import freeze_startup_objects
from runtime.logging import configure_logging
from runtime.settings import Settings
from runtime.tracing import configure_tracing

_log = structlog.get_logger(__name__)

BACKGROUND_TASKS: Final = ("watch", "relay", "forget", "sweep", "probe", "history", "expiry")
"""Background tasks of a shard, by their metric label."""

_WARM_UP_TIMEOUT_S: Final = 2.0
"""It takes 0.1 s on an idle machine. Without a database the shard listens anyway: it answers why
it can't write."""

T = TypeVar("T", bound=msgspec.Struct)


class ShardProcess:
    """Composition root of a shard's process."""

    def __init__(self, shard: int, settings: Settings) -> None:
        configure_logging(settings)
        configure_tracing("shard")
        self._shard_number = shard
        self._stream = JetStream(stream_options(settings))
        outbox = _connection(settings, PostgresOutbox.SETTINGS)
        chores = _connection(settings, PostgresOutbox.SETTINGS)
        slots = ring_of(settings.shard_count).slots_of(shard)
        self._relay = OutboxRelay(
            outbox=PostgresOutbox(
                outbox,
                chores=chores,
                stream=settings.stream_name,
                stream_max_age_s=settings.stream_max_age_s,
            ),
            backfill=PostgresBackfill(
                outbox, stream=settings.stream_name, max_age_s=settings.stream_max_age_s
            ),
            stream=self._stream,
            limits=limits_from(RelayLimits, settings, partitions=settings.stream_partitions),
            slots=slots,
        )
        loop = asyncio.get_event_loop()
        probe = PostgresWriteProbe(_connection(settings, PROBE_SETTINGS))
        self._writes = WriteHealth(probe, limits_from(WriteHealthLimits, settings), loop.time)
        self._outbox_max = settings.outbox_events_max
        connection = _connection(settings, CONNECTION_SETTINGS)
        self._journal = journal = PostgresJournal(connection)
        self._history = HistoryGuard(
            PostgresHistory(connection),
            JetStreamTail(settings.nats_url, settings.stream_name),
            forked_stops_all=settings.forked_wallets_stop == "all",
        )
        self._shard = Shard(
            journal=MonitoredJournal(journal, self._writes, loop.time),
            relay=self._relay,
            limits=limits_from(ShardLimits, settings),
            now=lambda: datetime.now(UTC),
            history=self._history,
            expiries=PostgresExpiries(chores),
            slots=slots,
        )
        assert self._shard.expiry is not None, "it has a table to look into"
        self._background = BackgroundTasks()
        check_history = partial(self._history.run, self._shard.enter_session)
        self._listener = RpcServer(
            self._submit,
            self.writing_problem,
            limits_from(TlsFiles, settings).context(ssl.Purpose.CLIENT_AUTH),
        )
        self._warm_up = loop.create_task(self._warmed_up(), name="warm-up")
        self._listening = asyncio.Lock()
        self._address: RpcEndpoint | None = None
        self._tasks = [
            loop.create_task(task, name=name)
            for name, task in (
                ("shard", self._supervise(self._shard.run())),
                ("watch", self._background.supervise("watch", self._shard.reject_while_stalled)),
                ("relay", self._background.supervise("relay", self._relay.run)),
                ("forget", self._background.supervise("forget", self._relay.prune)),
                ("sweep", self._background.supervise("sweep", self._relay.sweep)),
                ("probe", self._background.supervise("probe", self._writes.run)),
                ("history", self._background.supervise("history", check_history)),
                ("expiry", self._background.supervise("expiry", self._shard.expiry.run)),
            )
        ]
        freeze_startup_objects()
        _log.info("shard active", shard=shard, shards=settings.shard_count, pid=os.getpid())

    async def _supervise(self, task: Coroutine[None, None, None]) -> None:
        """The shard's task must never finish. If it does, exit: Serve restarts the actor."""
        try:
            await task
        except asyncio.CancelledError:
            raise
        except Exception:  # noqa: BLE001 - any error ends this process
            _log.critical("shard task failed", exc_info=True)
            os._exit(1)

    async def _warmed_up(self) -> None:
        """Connect, and run what batches run, so that the first one doesn't wait for it."""
        with suppress(JournalUnavailable, JournalError, SessionLost, OutcomeUnknown):
            await self._shard.enter_session()
            await self._journal.warm_up()

    async def listen(self, host: str) -> RpcEndpoint:
        """Listen for commands on a port of ``host``; returns the endpoint and its secret.

        The first call waits until the shard is warm, at most `_WARM_UP_TIMEOUT_S`.
        """
        await asyncio.wait({self._warm_up}, timeout=_WARM_UP_TIMEOUT_S)
        async with self._listening:
            if self._address is None:
                self._address = await self._listener.start(host)
        return self._address

    async def _submit(self, payload: bytes) -> bytes:
        """Encoded requests in, encoded replies out, once all of them are answered."""
        return await serve_call(payload, self._shard.submit)

    def writing_problem(self) -> str | None:
        """Why this shard can't write now; None if it can."""
        if self._relay.backlog >= self._outbox_max:
            return "too many events wait for the event stream"
        return self._history.problem or self._writes.problem()

    async def close(self) -> None:
        """Cancel all tasks and close the stream. For a process that outlives its shard."""
        tasks = [self._warm_up, *self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._history.close()
        await self._stream.close()

    def statistics(self) -> ShardStatistics:
        """A snapshot of this shard's statistics."""
        shard, relay, counts = self._shard, self._relay, self._shard.counts
        timings = shard.timings
        expiry = shard.expiry
        assert expiry is not None, "it has a table to look into"
        own = {"expiry": expiry.failures}
        timings.hot.roll_window(asyncio.get_event_loop().time())
        return ShardStatistics(
            shard=self._shard_number,
            pid=os.getpid(),
            mailbox_items=shard.mailbox_items,
            wallets_active=shard.wallets_active,
            activations=shard.activations,
            batches=counts["batches"],
            commands=counts["commands"],
            events=counts["events"],
            replays=counts["replays"],
            refusals=dict(shard.refusals),
            conflicts=counts["conflicts"],
            outcomes_unknown=counts["outcomes_unknown"],
            overloaded=counts["overloaded"],
            expired=expiry.expired,
            commands_per_s=timings.hot.commands_per_s,
            hot_wallets=timings.hot.hottest,
            hot_commands=dict(timings.hot.labelled_commands),
            distributions={
                **timings.snapshots(),
                "publish_seconds": relay.publish_seconds.snapshot(),
            },
            outbox_events=relay.backlog,
            outbox_age_s=relay.age_s,
            published=relay.published,
            publish_failures=relay.publish_failures,
            chore_failures={
                name: self._background.failures[name] + relay.failures[name] + own.get(name, 0)
                for name in BACKGROUND_TASKS
            },
            journal_ready=shard.journal_ready
            and (self._history.problem or self._writes.problem()) is None,
            stream_ready=relay.stream_ready and self._stream.connected,
            stream_refilling=relay.stream_refilling,
            stream_fills={loss.value: count for loss, count in relay.stream_fills.items()},
            batch_commands_max_seen=shard.batch_commands_max_seen,
        )


def stream_options(settings: Settings) -> StreamOptions:
    return StreamOptions(
        url=settings.nats_url,
        name=settings.stream_name,
        max_age_s=settings.stream_max_age_s,
        duplicate_window_s=settings.stream_duplicate_window_s,
        replicas=settings.stream_replicas,
        publish_timeout_s=settings.publish_timeout_s,
    )


def _connection(settings: Settings, server_settings: dict[str, str]) -> ReconnectingConnection:
    return ReconnectingConnection(
        settings.database_url,
        statement_timeout_s=settings.database_timeout_s,
        connect_timeout_s=settings.database_connect_timeout_s,
        settings=server_settings,
    )


def limits_from(kind: type[T], settings: Settings, **more: float) -> T:
    """The limits of ``kind``: each field from the setting of the same name, or from ``more``."""
    names = (field.name for field in msgspec.structs.fields(kind))
    return kind(**{name: getattr(settings, name) for name in names if name not in more}, **more)
