"""A database that a newer release has migrated, as a rolled back deployment finds it."""

from collections.abc import Iterator

import pytest
import structlog

from migrations.migrate import downgrade, head_revision, upgrade
from migrations.revisions import (
    IncompatibleDatabase,
    newer_revision,
    newest_known,
    oldest_compatible,
)
from runtime.postgres.connect import Connector
from serve_app.database_check import check_database
from tests.support.databases import execute
from tests.support.hosts import dsn_of, refusing_host

NEWER = "9001"


@pytest.fixture
def newer(database: str) -> Iterator[str]:
    execute(database, f"UPDATE alembic_version SET version_num = '{NEWER}'")
    yield database
    execute(database, oldest_compatible(None))


def test_file_names_and_alembic_agree_on_the_newest_revision() -> None:
    assert newest_known() == head_revision()


@pytest.mark.parametrize(
    ("state", "newer"),
    [
        (None, None),
        ((None, None), None),
        (("0007", None), None),
        (("0012", None), None),
        (("0013", None), "0013"),
        (("0013", "a comment of somebody"), "0013"),
        (("0014", "oldest compatible revision: 0012"), "0014"),
    ],
)
def test_a_newer_revision_is_told(
    state: tuple[str | None, str | None] | None, newer: str | None
) -> None:
    assert newer_revision(state, "0012") == newer


def test_one_that_needs_a_newer_release_is_refused() -> None:
    with pytest.raises(IncompatibleDatabase, match="knows revision 0013; this one knows 0012"):
        newer_revision(("0014", "oldest compatible revision: 0013"), "0012")


def test_migrating_a_newer_database_changes_nothing(newer: str) -> None:
    assert upgrade(newer) == NEWER
    assert upgrade(newer) == NEWER


def test_a_newer_database_that_needs_a_newer_release_is_not_migrated(newer: str) -> None:
    execute(newer, oldest_compatible("9000"))
    with pytest.raises(IncompatibleDatabase, match="needs a release that knows revision 9000"):
        upgrade(newer)


def test_an_older_release_can_not_downgrade_it(newer: str) -> None:
    with pytest.raises(IncompatibleDatabase, match=f"knows revision {NEWER} can downgrade"):
        downgrade(newer, "base")


async def test_a_replica_starts_with_a_newer_database_and_says_so(newer: str) -> None:
    with structlog.testing.capture_logs() as logs:
        await check_database(Connector(newer, timeout_s=5.0))
    assert [(log["event"], log["revision"]) for log in logs] == [
        ("database is newer than this release", NEWER)
    ]


async def test_a_replica_does_not_start_with_an_incompatible_one(newer: str) -> None:
    execute(newer, oldest_compatible("9000"))
    with pytest.raises(IncompatibleDatabase):
        await check_database(Connector(newer, timeout_s=5.0))


async def test_a_replica_starts_without_a_database_or_its_schema(empty_database: str) -> None:
    with structlog.testing.capture_logs() as logs, refusing_host() as dead:
        await check_database(Connector(empty_database, timeout_s=5.0))
        assert logs == []
        await check_database(Connector(dsn_of(dead, of=empty_database), timeout_s=1.0))
    assert [log["event"] for log in logs] == ["database not checked"]
