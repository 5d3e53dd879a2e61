"""How fast a backlog is published: `python -m bench.backlog`, on servers of its own.

One relay and nothing else. First a backlog, by default with one event per outbox row (the worst
case), then a lost stream that is backfilled from the same journal. Postgres and NATS are those of
the tests.
"""

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable
from time import perf_counter, process_time
from typing import Final

import asyncpg
import nats

from actors.outbox.jetstream import JetStream
from actors.outbox.postgres import PostgresOutbox
from actors.outbox.postgres_backfill import PostgresBackfill
from actors.outbox.relay import OutboxRelay, RelayLimits
from actors.shard.process import limits_from, stream_options
from migrations.migrate import upgrade
from runtime.gc_tuning import freeze_startup_objects
from runtime.settings import Settings
from tests.support.servers import nats_server, postgres_server
from tests.support.write_side import connection
from wallet.slots import ALL_SLOTS

_POLL_S: Final = 0.05

_FILL: Final = """
WITH w AS (
    SELECT ('01900000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid AS id
    FROM generate_series(1, $1::integer) AS n
), made AS (
    INSERT INTO wallets (id, currency, scale, balance, pending_debit, pending_credit, version,
        created_at, updated_at)
    SELECT id, 'USD', 2, 100 * ($2::bigint - 1), 0, 0, $2, now(), now() FROM w
), noted AS (
    INSERT INTO wallet_events (wallet_id, version, type, occurred_at, balance, pending_debit,
        pending_credit, transfer_id, transfer_type, amount)
    SELECT id, v, CASE WHEN v = 1 THEN 'wallet.created' ELSE 'transfer.completed' END, now(),
        100 * (v - 1), 0, 0, CASE WHEN v > 1 THEN gen_random_uuid() END,
        CASE WHEN v > 1 THEN 'debit' END, CASE WHEN v > 1 THEN 100 END
    FROM generate_series(1, $2) AS v, w
)
INSERT INTO outbox (wallet_id, first_version, last_version)
SELECT id, v, least(v + $3 - 1, $2) FROM generate_series(1, $2, $3) AS v, w
"""


async def _measure(
    database: str, nats_url: str, wallets: int, events: int, events_per_row: int
) -> None:
    settings = Settings(_env_file=None, database_url=database, nats_url=nats_url)
    pool = await asyncpg.create_pool(database, min_size=1, max_size=1)
    await pool.execute(_FILL, wallets, events, events_per_row)
    total = wallets * events
    client = await nats.connect(nats_url)

    async def stored() -> bool:
        info = await client.jetstream().stream_info(settings.stream_name)
        return int(info.state.messages) >= total

    async def empty() -> bool:
        return not await pool.fetchval("SELECT EXISTS (SELECT FROM outbox)")

    await pool.execute(
        "INSERT INTO stream_incarnations (stream, created) VALUES ($1, $2)",
        settings.stream_name,
        await _create_stream(settings),
    )
    took_s, cpu_s = await _until(settings, stored, then=empty)
    print(f"{total} events of {wallets} wallets, {events_per_row} per outbox row")
    print(f"backlog: {total / took_s:,.0f} events/s, {cpu_s / total * 1e6:.0f} µs of CPU each")
    await client.jetstream().delete_stream(settings.stream_name)
    took_s, cpu_s = await _until(settings, stored, then=empty)
    print(
        f"backfill: {total / took_s:,.0f} events/s, {wallets / took_s:,.0f} wallets/s, "
        f"{cpu_s / total * 1e6:.0f} µs of CPU each event"
    )
    await client.close()
    await pool.close()


async def _create_stream(settings: Settings) -> str:
    stream = JetStream(stream_options(settings))
    incarnation = (await stream.ensure_ready()).incarnation
    await stream.close()
    assert incarnation is not None
    return incarnation


async def _until(
    settings: Settings,
    is_done: Callable[[], Awaitable[bool]],
    *,
    then: Callable[[], Awaitable[bool]],
) -> tuple[float, float]:
    """Seconds and CPU of a relay until ``is_done``; it then runs on until ``then``."""
    outbox, background = (
        connection(settings.database_url, **PostgresOutbox.SETTINGS) for _ in range(2)
    )
    stream = JetStream(stream_options(settings))
    relay = OutboxRelay(
        outbox=PostgresOutbox(outbox, chores=background, stream=settings.stream_name),
        backfill=PostgresBackfill(outbox, stream=settings.stream_name),
        stream=stream,
        limits=limits_from(RelayLimits, settings, partitions=settings.stream_partitions),
        slots=ALL_SLOTS,
    )
    freeze_startup_objects()  # As a shard does.
    started, cpu_started = perf_counter(), process_time()
    tasks = [asyncio.create_task(one()) for one in (relay.run, relay.prune, relay.sweep)]
    took_s = cpu_s = 0.0
    for condition in (is_done, then):
        while True:
            try:
                if await condition():
                    break
            except nats.js.errors.NotFoundError:
                pass
            await asyncio.sleep(_POLL_S)
        took_s = took_s or perf_counter() - started
        cpu_s = cpu_s or process_time() - cpu_started
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await stream.close()
    await outbox.close()
    await background.close()
    return took_s, cpu_s


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.backlog", description=__doc__)
    parser.add_argument("--wallets", type=int, default=5_000)
    parser.add_argument("--events", type=int, default=20, help="per wallet")
    parser.add_argument("--events-per-row", type=int, default=1, help="events per outbox row")
    options = parser.parse_args()
    with postgres_server(use_docker=False) as database, nats_server(use_docker=False) as nats_url:
        upgrade(database)
        asyncio.run(
            _measure(database, nats_url, options.wallets, options.events, options.events_per_row)
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
