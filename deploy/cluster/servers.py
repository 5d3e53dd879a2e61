"""Postgres and NATS before a deployment: reachable, migrated, and with enough connections."""

import asyncio
from collections.abc import Mapping
from typing import Final

import msgspec

from deploy.cluster.demand import Demand
from deploy.local.errors import StackError
from deploy.local.servers import check_nats
from migrations.revisions import (
    EXISTS,
    STATE,
    IncompatibleDatabase,
    newer_revision,
    newest_known,
    note_on,
)
from runtime.postgres.connect import CONNECT_ERRORS, connect
from runtime.postgres.dsn import PostgresDsn
from runtime.settings import Settings

_CONNECTIONS: Final = """
SELECT current_setting('max_connections')::int
         - current_setting('superuser_reserved_connections')::int
         - coalesce(current_setting('reserved_connections', true), '0')::int AS usable,
       count(*) FILTER (WHERE application_name IN ('wallet-shard', 'wallet-probe', 'wallet-relay'))
         AS shards,
       count(*) FILTER (WHERE application_name IN ('wallet-ingress', 'wallet-keys')) AS replicas,
       count(*) FILTER (WHERE application_name = 'wallet-projection') AS projections,
       count(*) FILTER (WHERE application_name NOT LIKE 'wallet-%' AND pid <> pg_backend_pid())
         AS others
FROM pg_stat_activity WHERE backend_type = 'client backend'
"""


class PostgresState(msgspec.Struct, frozen=True, kw_only=True):
    """What the database says."""

    revision: str | None
    """Of its schema; None: it has none."""
    compatibility: str | None
    """The comment in which a newer release may exclude this one."""
    connections: Mapping[str, int]
    """``usable`` by all, and in use by ``shards``, ``replicas``, ``projections``, ``others``."""


def read_postgres(settings: Settings) -> PostgresState:
    """What the database says. Raises StackError: it does not answer."""
    return asyncio.run(_read(settings))


def reach_nats(settings: Settings) -> None:
    """Raises StackError: there is no NATS server with JetStream."""
    asyncio.run(check_nats(settings, advice="Correct WALLET_NATS_URL, or start that server."))


def migration_problem(state: PostgresState) -> str | None:
    """Why this release can't use the database as it is; None if it can."""
    if state.revision is None:
        return "The database has no tables. Run `wallet migrate` first."
    if state.revision < newest_known():
        return (
            f"The database is at revision {state.revision}, and this release needs "
            f"{newest_known()}. Run `wallet migrate` first: the running release works with it."
        )
    try:
        newer_revision((state.revision, state.compatibility), newest_known())
    except IncompatibleDatabase as refused:
        return str(refused)
    return None


def migration_note(state: PostgresState) -> str | None:
    """What to tell about a database of a newer release that this one can use."""
    assert state.revision is not None, "migration_problem says so"
    return note_on(state.revision) if state.revision > newest_known() else None


def connections_needed(state: PostgresState, demand: Demand) -> int:
    """Connections at the most, while ``demand`` replaces what runs.

    New shards and projections run beside the old ones for a moment. Replicas are replaced one after
    the other, so old and new ones together are as many as there will be, or were.
    """
    used = state.connections
    return (
        max(demand.replica_connections, used["replicas"])
        + demand.connections
        - demand.replica_connections
        + used["shards"]
        + used["projections"]
        + used["others"]
    )


def connection_problem(state: PostgresState, demand: Demand) -> str | None:
    """Why Postgres does not accept as many connections; None if it does."""
    usable, needed = state.connections["usable"], connections_needed(state, demand)
    if needed <= usable:
        return None
    return (
        f"Postgres accepts {usable} connections, and the deployment may need {needed} while the "
        f"old version ends: {demand.replica_connections} of {demand.replicas} replicas, "
        f"{demand.shard_connections} of {demand.shards} shards, {demand.projection_connections} "
        f"of {demand.projections} projections, {needed - demand.connections} of what runs now. "
        f"Raise max_connections by {needed - usable}, or lower WALLET_READ_POOL_MAX or the "
        "replicas."
    )


async def _read(settings: Settings) -> PostgresState:
    try:
        connection = await connect(
            settings.database_url, timeout_s=settings.database_connect_timeout_s
        )
    except CONNECT_ERRORS as failure:
        reason = str(failure).strip().partition("\n")[0] or type(failure).__name__
        server = PostgresDsn.parse(settings.database_url)
        raise StackError(
            f"Can't connect to Postgres at {server} ({reason}). Correct WALLET_DATABASE_URL, or "
            "start that server."
        ) from failure
    try:
        exists = await connection.fetchval(EXISTS)
        state = await connection.fetchrow(STATE) if exists else None
        counted = await connection.fetchrow(_CONNECTIONS)
    finally:
        await connection.close(timeout=settings.database_connect_timeout_s)
    assert counted is not None, "an aggregate"
    return PostgresState(
        revision=state[0] if state else None,
        compatibility=state[1] if state else None,
        connections=dict(counted.items()),
    )
