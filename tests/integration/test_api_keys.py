"""API keys on a real Postgres: stored, found, revoked, and refused while Postgres is down."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from urllib.parse import urlsplit

import asyncpg
import pytest

from serve_app.auth.api_key import NewApiKey, generate
from serve_app.auth.authenticated_request import AuthenticatedRequest
from serve_app.auth.authenticator import Authenticator, RateLimit
from serve_app.auth.cache import RETRY_S, CacheLimits, KeyCache
from serve_app.auth.last_used import flush_last_used
from serve_app.auth.store import KeyStore, KeysUnavailable
from serve_app.http.problems import ProblemError
from tests.support.keys import with_key
from tests.support.write_side import debit, running_shard

STALENESS_S = 0.5


@asynccontextmanager
async def open_store(database: str) -> AsyncIterator[KeyStore]:
    async with asyncpg.create_pool(database, min_size=0, max_size=2, timeout=2) as pool:
        yield KeyStore(pool, timeout_s=2.0)


def make_authenticator(store: KeyStore) -> tuple[Authenticator, KeyCache]:
    clock = asyncio.get_running_loop().time
    cache = KeyCache(store, CacheLimits(staleness_s=STALENESS_S, keys_max=100), clock=clock)
    return Authenticator(cache, RateLimit(rate_per_s=0.0, burst_s=1.0), clock=clock), cache


async def made(store: KeyStore, *scopes: str) -> NewApiKey:
    key = generate()
    await store.add(key, name="a test's", scopes=scopes or ("wallets:read",))
    return key


async def test_what_is_kept_of_a_key_is_what_was_asked_for(database: str) -> None:
    ends = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
    async with open_store(database) as store:
        key = generate()
        await store.add(
            key, name="payouts", scopes=["wallets:write"], rate_per_s=12.5, expires_at=ends
        )
        (found,) = await store.all()

        assert (await store.find([key.key_id, "0" * 16])) == {key.key_id: found}
    assert (found.key_id, found.name, found.secret_hash) == (key.key_id, "payouts", key.secret_hash)
    assert (found.scopes, found.rate_per_s, found.expires_at) == (("wallets:write",), 12.5, ends)
    assert found.revoked_at is None
    assert found.last_used_at is None


async def test_the_database_holds_no_secret(database: str) -> None:
    async with open_store(database) as store:
        key = await made(store)
    connection = await asyncpg.connect(database)
    rows = await connection.fetch("SELECT k::text FROM api_keys k")
    await connection.close()

    secret = key.text.rpartition("_")[2]
    assert len(rows) == 1
    assert secret not in rows[0][0]
    assert key.secret_hash.hex() in rows[0][0]


@pytest.mark.parametrize("scopes", [[], ["wallets:everything"], ["admin", "root"]])
async def test_the_database_refuses_scopes_that_do_not_exist(
    database: str, scopes: list[str]
) -> None:
    async with open_store(database) as store:
        with pytest.raises(KeysUnavailable, match="CheckViolation"):
            await store.add(generate(), name="x", scopes=scopes)
        assert await store.all() == []


async def test_a_key_is_revoked_once_and_permanently(database: str) -> None:
    async with open_store(database) as store:
        key = await made(store)

        assert await store.revoke(key.key_id)
        revoked_at = (await store.find([key.key_id]))[key.key_id].revoked_at
        assert not await store.revoke(key.key_id)
        assert not await store.revoke("0" * 16)

        assert revoked_at is not None
        assert (await store.find([key.key_id]))[key.key_id].revoked_at == revoked_at


async def test_a_revoked_key_stops_within_the_staleness(database: str) -> None:
    async with open_store(database) as store:
        gate, _ = make_authenticator(store)
        key = await made(store)
        await gate.authenticate(with_key(key), "wallets:read")

        await store.revoke(key.key_id)
        clock = asyncio.get_running_loop().time
        deadline = clock() + STALENESS_S
        passed = 0
        while clock() < deadline:  # also for a key in constant use
            with suppress(ProblemError):
                await gate.authenticate(with_key(key), "wallets:read")
                passed += 1
        with pytest.raises(ProblemError, match="key_invalid: This key was revoked"):
            await gate.authenticate(with_key(key), "wallets:read")
        assert passed > 0, "the key must have been cached for this test"


async def test_last_uses_are_written_together_and_never_set_back(database: str) -> None:
    async with open_store(database) as store:
        gate, cache = make_authenticator(store)
        used, unused = await made(store), await made(store)
        await gate.authenticate(with_key(used), "wallets:read")
        with pytest.raises(ProblemError):
            await gate.authenticate(with_key(unused), "wallets:write")

        assert await flush_last_used(cache, store) == 1
        assert await flush_last_used(cache, store) == 0
        found = await store.find([used.key_id, unused.key_id])
        written = found[used.key_id].last_used_at
        assert written is not None
        assert abs(datetime.now(UTC) - written) < timedelta(minutes=1)
        assert found[unused.key_id].last_used_at is None

        await store.touch({used.key_id: written.timestamp() - 60})
        assert (await store.find([used.key_id]))[used.key_id].last_used_at == written


async def test_last_uses_are_written_in_the_order_of_the_keys() -> None:
    # Otherwise two replicas that write the same keys at once could deadlock.
    sent: list[list[object]] = []

    class Pool:
        async def execute(self, _statement: str, *values: list[object]) -> None:
            sent.extend(values)

    store = KeyStore(cast("Any", Pool()), timeout_s=2.0)
    await store.touch({"b": 2.0, "c": 3.0, "a": 1.0})

    assert sent == [["a", "b", "c"], [datetime.fromtimestamp(at, UTC) for at in (1, 2, 3)]]


@asynccontextmanager
async def away(server: str, database: str) -> AsyncIterator[None]:
    """Postgres terminates every connection to the database and accepts none."""
    name = urlsplit(database).path.removeprefix("/")
    connection = await asyncpg.connect(server)
    try:
        await connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name
        )
        yield
        await connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    finally:
        await connection.close()


async def test_while_postgres_is_away_nobody_is_let_in_on_an_old_promise(
    postgres_server: str, database: str
) -> None:
    async with open_store(database) as store:
        gate, _ = make_authenticator(store)
        key, client = await made(store), generate()
        await gate.authenticate(with_key(key), "wallets:read")

        async with away(postgres_server, database):
            with pytest.raises(ProblemError, match="unavailable"):
                await gate.authenticate(with_key(client), "wallets:read")
            await asyncio.sleep(STALENESS_S)  # the cached key expires
            with pytest.raises(ProblemError, match="unavailable"):
                await gate.authenticate(with_key(key), "wallets:read")

        await asyncio.sleep(RETRY_S)
        await gate.authenticate(with_key(key), "wallets:read")


async def test_the_journal_says_which_key_made_what(database: str) -> None:
    async with open_store(database) as store, running_shard(database) as shard:
        gate, _ = make_authenticator(store)
        key = await made(store, "wallets:write")
        wallet = await shard.create_wallet()
        scope = with_key(key)
        await gate.authenticate(scope, "wallets:write")
        admission = scope["state"]["admission"]
        assert isinstance(admission, AuthenticatedRequest)

        await shard.request(wallet, debit("3"), api_key_id=admission.key_id)
        events = await store.attributed_events(wallet, None, limit=10)

    assert [(one.version, one.key_id, one.key_name) for one in events] == [
        (2, key.key_id, "a test's"),
        (1, None, None),
    ]
