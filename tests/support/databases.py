"""Databases for tests: one migrated template a run, a copy of it for each test that asks."""

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
    """Run a coroutine in an event loop of its own thread: a test's loop is left alone."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(asyncio.run, work).result()


def with_database(url: str, name: str) -> str:
    """The same server's DSN, another database."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


@contextmanager
def empty_database(server_url: str) -> Iterator[str]:
    """A database with nothing in it, dropped at the end."""
    with _database(server_url, "") as url:
        yield url


@contextmanager
def copied_database(server_url: str) -> Iterator[str]:
    """A copy of the template, dropped at the end."""
    with _database(server_url, f"TEMPLATE {TEMPLATE}") as url:
        yield url


def make_template(server_url: str) -> None:
    """Create the template and migrate it as a deployment would."""
    from migrations.migrate import upgrade

    execute(server_url, f"CREATE DATABASE {TEMPLATE}")
    upgrade(with_database(server_url, TEMPLATE))


def execute(url: str, statement: str) -> None:
    """Run one statement on a connection of its own, outside a transaction."""
    in_own_loop(_execute(url, statement))


async def outbox_rows(url: str) -> int:
    connection = await asyncpg.connect(url, timeout=10)
    try:
        return int(await connection.fetchval("SELECT count(*) FROM outbox"))
    finally:
        await connection.close(timeout=10)


async def until_outbox_is_empty(url: str) -> None:
    """A row is deleted once its events are on the stream's disk, or must be."""

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
