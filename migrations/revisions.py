"""Whether this release can use a database that a newer release has migrated.

A deployment that is rolled back finds such a database. Migrations are written so that the previous
release works with them, so this is a note. A migration that breaks older releases says so in the
database, as the comment of the table `alembic_version`, which every release since 0012 reads.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncpg

_VERSIONS: Final = Path(__file__).parent / "versions"
_OLDEST: Final = "oldest compatible revision: "

STATE: Final = """
SELECT max(version_num), obj_description('alembic_version'::regclass, 'pg_class')
FROM alembic_version
"""
EXISTS: Final = "SELECT to_regclass('alembic_version') IS NOT NULL"


class IncompatibleDatabase(Exception):
    """The database was migrated by a newer release, and this one must not use it."""


def newest_known() -> str:
    """The newest revision of this release. Reads file names; doesn't load Alembic."""
    return max(path.name[:4] for path in _VERSIONS.glob("[0-9][0-9][0-9][0-9]_*.py"))


def newer_revision(state: Sequence[str | None] | None, known: str) -> str | None:
    """The database's revision if it is newer than ``known``; None if it is not.

    ``state``: the row of `STATE`; None if there is no such table.

    Raises:
        IncompatibleDatabase: it is newer, and needs a newer release.
    """
    revision, comment = state or (None, None)
    if revision is None or revision <= known:
        return None
    oldest = re.fullmatch(rf"{_OLDEST}(\d+)", comment or "")
    if oldest is not None and oldest[1] > known:
        raise IncompatibleDatabase(
            f"The database is at revision {revision} and needs a release that knows revision "
            f"{oldest[1]}; this one knows {known}. Deploy the newer release again."
        )
    return revision


async def newer_revision_of(connection: "asyncpg.Connection[asyncpg.Record]") -> str | None:
    """`newer_revision` of a database, for this release."""
    exists = await connection.fetchval(EXISTS)
    state = await connection.fetchrow(STATE) if exists else None
    return newer_revision(tuple(state) if state is not None else None, newest_known())


def note_on(revision: str) -> str:
    """What to tell the operator about a newer database."""
    return (
        f"The database is at revision {revision}, newer than this release ({newest_known()}), "
        "which can use it"
    )


def oldest_compatible(revision: str | None) -> str:
    """The statement of a migration that breaks releases which don't know ``revision``.

    None: no release is too old. Its `downgrade` sets what was valid before.
    """
    comment = f"'{_OLDEST}{revision}'" if revision is not None else "NULL"
    return f"COMMENT ON TABLE alembic_version IS {comment}"
