"""The proxy injects the configured faults and nothing else."""

import time

import asyncpg
import pytest

from tests.support.postgres_proxy import DISK_FULL, proxy_before

_MADE = """
CREATE TABLE made (number int);
CREATE FUNCTION commit_batch(number int) RETURNS int LANGUAGE sql
    AS 'INSERT INTO made VALUES (number) RETURNING number';
"""
_COMMIT = "SELECT commit_batch($1)"


async def test_a_lost_answer_is_that_of_a_commit_which_was_done(empty_database: str) -> None:
    async with proxy_before(empty_database) as (proxy, url):
        connection = await asyncpg.connect(url)
        await connection.execute(_MADE)
        assert await connection.fetchval(_COMMIT, 1) == 1
        proxy.lose_answers = 1
        assert await connection.fetchval("SELECT count(*) FROM made") == 1
        with pytest.raises((asyncpg.PostgresConnectionError, ConnectionError)):
            await connection.fetchval(_COMMIT, 2)
        assert (proxy.lost, proxy.lose_answers) == (1, 0)

        again = await asyncpg.connect(url)
        assert await again.fetchval("SELECT max(number) FROM made") == 2
        assert await again.fetchval(_COMMIT, 3) == 3
        await again.close()


async def test_a_full_disk_refuses_commits_and_leaves_the_connection(empty_database: str) -> None:
    async with proxy_before(empty_database) as (proxy, url):
        connection = await asyncpg.connect(url)
        await connection.execute(_MADE)
        await connection.fetchval(_COMMIT, 1)
        proxy.refuse_with = DISK_FULL
        with pytest.raises(asyncpg.DiskFullError):
            await connection.fetchval(_COMMIT, 2)
        assert await connection.fetchval("SELECT count(*) FROM made") == 1
        proxy.refuse_with = ""
        assert await connection.fetchval(_COMMIT, 3) == 3
        assert proxy.refused == 1
        await connection.close()


async def test_a_slow_server_takes_its_time(empty_database: str) -> None:
    async with proxy_before(empty_database) as (proxy, url):
        connection = await asyncpg.connect(url)
        proxy.slow_s = 0.2
        began = time.monotonic()
        assert await connection.fetchval("SELECT 1") == 1
        assert time.monotonic() - began >= 0.2
        proxy.slow_s = 0.0
        await connection.close()
