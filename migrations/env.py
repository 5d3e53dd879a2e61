"""Alembic environment: one connection, one advisory lock, one transaction.

The connection is opened as all others are (`runtime.postgres.connect`), so every DSN works here.
"""

import asyncio
from typing import Any

from alembic import context
from sqlalchemy import Connection, pool, text
from sqlalchemy.ext.asyncio import create_async_engine

from migrations.revisions import EXISTS, STATE, newer_revision, newest_known
from runtime.postgres.connect import Connector
from runtime.postgres.session import Session

# Concurrent migrations (a rolling deploy) wait for this lock and run one after another.
_MIGRATION_LOCK = 8_089_001

_CONNECT_TIMEOUT_S = 10.0


def _migrate(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=None, transactional_ddl=True)
    with context.begin_transaction():
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
        exists = connection.execute(text(EXISTS)).scalar()
        state = connection.execute(text(STATE)).one() if exists else None
        newer = newer_revision(tuple(state) if state is not None else None, newest_known())
        context.config.attributes["newer_revision"] = newer
        if newer is None:
            context.run_migrations()


async def _run() -> None:
    connector = Connector(context.config.attributes["database_url"], timeout_s=_CONNECT_TIMEOUT_S)

    async def open_session(*_arguments: Any, **_options: Any) -> Session:
        return await connector.connect()

    engine = create_async_engine(
        "postgresql+asyncpg://", poolclass=pool.NullPool, async_creator=open_session
    )
    try:
        async with engine.connect() as connection:
            await connection.run_sync(_migrate)
            await connection.commit()
    finally:
        await engine.dispose()


asyncio.run(_run())
