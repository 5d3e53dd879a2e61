"""Databases for tests: one migrated template per run, and a copy of it per test."""

import asyncio
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from typing import TypeVar
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from tests.support.waiting import until_true

Result = TypeVar("Result")

TEMPLATE = "wallet_template"

_numbers = count(1)


def in_own_loop(work: Coroutine[object, object, Result]) -> Result:
    """Run a coroutine in another thread's event loop, so that the test's own loop is not used."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(asyncio.run, work).result()


def with_database(url: str, name: str) -> str:
    """The DSN of another database on the same server."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


@contextmanager
def empty_database(server_url: str) -> Iterator[str]:
    """An empty database, dropped on exit."""
    with _database(server_url, "") as url:
        yield url


@contextmanager
def copied_database(server_url: str) -> Iterator[str]:
    """A copy of the template, dropped on exit."""
    with _database(server_url, f"TEMPLATE {TEMPLATE}") as url:
        yield url


def make_template(server_url: str) -> None:
    """Create the template and run the migrations on it."""
    from migrations.migrate import upgrade

    execute(server_url, f"CREATE DATABASE {TEMPLATE}")
    upgrade(with_database(server_url, TEMPLATE))


def execute(url: str, statement: str) -> None:
    """Run one statement on a new connection, outside a transaction."""
    in_own_loop(_execute(url, statement))


async def outbox_rows(url: str) -> int:
    connection = await asyncpg.connect(url, timeout=10)
    try:
        return int(await connection.fetchval("SELECT count(*) FROM outbox"))
    finally:
        await connection.close(timeout=10)


async def until_outbox_is_empty(url: str) -> None:
    """Wait until the outbox is empty: rows are deleted once the stream has synced their events."""

    async def is_empty() -> bool:
        return await outbox_rows(url) == 0

    await until_true(is_empty)


@contextmanager
def _database(server_url: str, options: str) -> Iterator[str]:
    name = f"wallet_test_{next(_numbers)}"
    execute(server_url, f"CREATE DATABASE {name} {options}")
    try:
        yield with_database(server_url, name)
    finally:
        # FORCE: a test that failed may have left a connection open.
        execute(server_url, f"DROP DATABASE {name} WITH (FORCE)")


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url, timeout=10)
    try:
        await connection.execute(statement, timeout=60)
    finally:
        await connection.close(timeout=10)
