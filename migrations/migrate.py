"""Upgrade or downgrade a database to a revision. Idempotent, safe to run concurrently."""

import re
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

_HERE = Path(__file__).parent


def _config(database_url: str) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_HERE))
    config.attributes["database_url"] = re.sub(
        r"^postgres(ql)?(\+\w+)?://", "postgresql+asyncpg://", database_url
    )
    return config


def upgrade(database_url: str, revision: str = "head") -> None:
    """Migrate up to ``revision``. Runs an event loop of its own: not for use inside one."""
    command.upgrade(_config(database_url), revision)


def downgrade(database_url: str, revision: str) -> None:
    """Migrate down to ``revision`` (``base`` removes everything, data included)."""
    command.downgrade(_config(database_url), revision)


def head_revision() -> str:
    """The newest revision that this code knows."""
    head = ScriptDirectory.from_config(_config("")).get_current_head()
    assert head is not None, "there is at least one migration"
    return head
