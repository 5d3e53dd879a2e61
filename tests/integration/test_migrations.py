"""Migrations are reversible: up, down and up again gives the schema of the first up."""

import asyncio
from itertools import pairwise
from pathlib import Path

import asyncpg

from migrations import versions
from migrations.migrate import downgrade, upgrade
from migrations.online_indexes import ONLINE_INDEXES, build_missing
from tests.support.waiting import until_true

REVISIONS = sorted(
    path.name[:4] for path in Path(versions.__path__[0]).glob("[0-9][0-9][0-9][0-9]_*.py")
)

_COLUMNS = """
SELECT table_name, column_name, data_type, is_nullable, column_default
FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, 2
"""
_INDEXES = "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1"
_CONSTRAINTS = """
SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
WHERE connamespace = 'public'::regnamespace ORDER BY 1, 2
"""
_FUNCTIONS = """
SELECT proname, pg_get_functiondef(oid) FROM pg_proc
WHERE pronamespace = 'public'::regnamespace ORDER BY 1, pronargs
"""
_OPTIONS = """
SELECT relname, reloptions FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND reloptions IS NOT NULL ORDER BY 1
"""
_STATISTICS = """
SELECT attrelid::regclass::text, attname, attstattarget
FROM pg_attribute JOIN pg_class c ON c.oid = attrelid
WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND attnum > 0 AND NOT attisdropped
    AND attstattarget IS NOT NULL ORDER BY 1, 2
"""


def schema_of(database: str) -> list[list[tuple[object, ...]]]:
    async def ask() -> list[list[tuple[object, ...]]]:
        connection = await asyncpg.connect(database)
        try:
            return [
                [tuple(row.values()) for row in await connection.fetch(sql)]
                for sql in (_COLUMNS, _INDEXES, _CONSTRAINTS, _FUNCTIONS, _OPTIONS, _STATISTICS)
            ]
        finally:
            await connection.close()

    return asyncio.run(ask())


def test_up_down_up_ends_where_it_began(empty_database: str) -> None:
    upgrade(empty_database)
    first = schema_of(empty_database)
    downgrade(empty_database, "base")
    assert [row for row in schema_of(empty_database)[0] if row[0] != "alembic_version"] == []
    assert schema_of(empty_database)[3] == []
    upgrade(empty_database)
    assert schema_of(empty_database) == first


def test_each_step_down_and_up_again_changes_nothing(empty_database: str) -> None:
    for former, revision in pairwise(["base", *REVISIONS]):
        upgrade(empty_database, revision)
        here = schema_of(empty_database)
        downgrade(empty_database, former)
        upgrade(empty_database, revision)
        assert schema_of(empty_database) == here


def test_migrating_twice_is_no_error(empty_database: str) -> None:
    upgrade(empty_database)
    first = schema_of(empty_database)
    upgrade(empty_database)
    assert schema_of(empty_database) == first


_VALID = "SELECT indexrelid::regclass::text FROM pg_index WHERE indisvalid"


async def test_an_index_that_is_missing_or_broken_is_built_again(database: str) -> None:
    lost, broken = ONLINE_INDEXES[0].name, ONLINE_INDEXES[1].name
    connection = await asyncpg.connect(database)
    try:
        await connection.execute(f"DROP INDEX {lost}")
        # As a build that was interrupted leaves it.
        await connection.execute(
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = $1::text::regclass", broken
        )
        await asyncio.gather(*(build_missing(database) for _ in range(3)))
        valid = {row[0] for row in await connection.fetch(_VALID)}
    finally:
        await connection.close()
    assert {index.name for index in ONLINE_INDEXES} <= valid


async def test_indexes_are_built_while_a_writer_has_not_committed(database: str) -> None:
    name = ONLINE_INDEXES[0].name
    writer, other = [await asyncpg.connect(database) for _ in range(2)]
    try:
        await writer.execute(f"DROP INDEX {name}")
        writing = writer.transaction()
        await writing.start()
        await writer.execute(_WALLET)
        building = asyncio.create_task(build_missing(database))
        await until_true(lambda: _is_building(other, name))
        await other.execute(_WALLET)  # A plain build would block this write.
        await writing.commit()
        await building
        assert name in {row[0] for row in await other.fetch(_VALID)}
    finally:
        await writer.close()
        await other.close()


_WALLET = """
INSERT INTO wallets (id, currency, scale, balance, pending_debit, pending_credit, version,
    created_at, updated_at) VALUES (gen_random_uuid(), 'USD', 2, 0, 0, 0, 1, now(), now())
"""


async def _is_building(connection: asyncpg.Connection, name: str) -> bool:
    return bool(await connection.fetchval("SELECT to_regclass($1) IS NOT NULL", name))


# Every other table grows with wallets or transfers. A new table counts as one until listed here.
SMALL = [
    "alembic_version",
    "api_keys",
    "database_identities",
    "forked_wallets",
    "lost_events",
    "projection_dead_letters",
    "recovered_keys",
    "refused_deliveries",
    "stream_incarnations",
    "stream_marks",
]
_LARGE_SAMPLES = """
SELECT table_name, column_name FROM information_schema.columns
JOIN pg_attribute ON attrelid = table_name::regclass AND attname = column_name
WHERE table_schema = 'public' AND table_name <> ALL ($1) AND attstattarget IS DISTINCT FROM 10
"""


async def test_no_column_of_a_growing_table_needs_a_large_sample(database: str) -> None:
    connection = await asyncpg.connect(database)
    try:
        assert await connection.fetch(_LARGE_SAMPLES, SMALL) == []
    finally:
        await connection.close()
