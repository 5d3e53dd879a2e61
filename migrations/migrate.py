"""Upgrade or downgrade a database to a revision. Idempotent, safe to run concurrently."""

import asyncio
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from migrations.online_indexes import build_missing
from migrations.revisions import IncompatibleDatabase

_HERE = Path(__file__).parent


def _config(database_url: str) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_HERE))
    config.attributes["database_url"] = database_url
    return config


def upgrade(database_url: str, revision: str = "head") -> str | None:
    """Migrate up to ``revision``, then build its indexes beside the running service.

    Runs event loops of its own: not for use inside one.

    Returns the database's revision if a newer release has migrated it: nothing is changed then.

    Raises:
        IncompatibleDatabase: such a database, which this release must not use.
        InvalidDsn, and what `Connector.connect` raises.
    """
    config = _config(database_url)
    command.upgrade(config, revision)
    newer: str | None = config.attributes["newer_revision"]
    if newer is None:
        asyncio.run(build_missing(database_url))
    return newer


def downgrade(database_url: str, revision: str) -> None:
    """Migrate down to ``revision`` (``base`` removes everything, data included).

    Raises:
        IncompatibleDatabase: only a newer release knows how to.
    """
    config = _config(database_url)
    command.downgrade(config, revision)
    newer = config.attributes["newer_revision"]
    if newer is not None:
        raise IncompatibleDatabase(f"Only a release that knows revision {newer} can downgrade it.")


def head_revision() -> str:
    """The newest revision that this code knows."""
    head = ScriptDirectory.from_config(_config("")).get_current_head()
    assert head is not None, "there is at least one migration"
    return head
