"""A replica's check of the database when it starts."""

import structlog

from migrations.revisions import IncompatibleDatabase, newer_revision_of, note_on
from runtime.postgres.connect import CONNECT_ERRORS, Connector
from runtime.postgres.errors import PoolerRefused

_log = structlog.get_logger(__name__)


async def check_database(connector: Connector) -> None:
    """Refuse a database that this release can't work with. One that is unreachable is not refused.

    Raises:
        PoolerRefused: it is behind a pooler that doesn't keep sessions.
        IncompatibleDatabase: a newer release has migrated it, and this one must not use it.
    """
    newer = None
    try:
        connection = await connector.connect()
        try:
            newer = await newer_revision_of(connection)
        finally:
            connection.terminate()
    except (PoolerRefused, IncompatibleDatabase):
        raise
    except CONNECT_ERRORS as error:
        _log.warning("database not checked", error=f"{type(error).__name__}: {error}")
    if newer is not None:
        _log.warning("database is newer than this release", revision=newer, detail=note_on(newer))
