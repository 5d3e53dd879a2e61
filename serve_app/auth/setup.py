"""The parts of a replica that ask for keys, put together from the settings."""

import asyncio

import asyncpg

from runtime.settings import Settings
from serve_app.auth.authenticator import Authenticator, RateLimit
from serve_app.auth.cache import CacheLimits, KeyCache
from serve_app.auth.last_used import flush_last_used_periodically
from serve_app.auth.store import KeyStore

_CONNECTIONS_MAX = 2
"""One for the query that is under way, one for last uses. Of their own: reads that wait for
Postgres must not keep the keys waiting."""


class AuthenticatorFactory:
    """Owns what the gate works with. Made and closed by the composition root."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> Authenticator:
        """The gate, at work. Postgres need not answer yet: until it does, nobody is let in."""
        settings = self._settings
        pool = asyncpg.create_pool(
            settings.database_url,
            min_size=0,
            max_size=_CONNECTIONS_MAX,
            timeout=settings.database_connect_timeout_s,
            server_settings={"application_name": "wallet-keys", "timezone": "UTC", "jit": "off"},
        )
        await pool
        # An answer that took longer than it counts for would be of no use.
        store = KeyStore(
            pool, timeout_s=min(settings.database_timeout_s, settings.api_key_cache_ttl_s)
        )
        limits = CacheLimits(
            staleness_s=settings.api_key_cache_ttl_s, keys_max=settings.api_keys_cached_max
        )
        clock = asyncio.get_running_loop().time
        cache = KeyCache(store, limits, clock=clock)
        self._task = asyncio.create_task(
            flush_last_used_periodically(
                cache, store, period_s=settings.api_key_last_used_flush_interval_s
            )
        )
        rate = RateLimit(rate_per_s=settings.api_key_rate_per_s, burst_s=settings.api_key_burst_s)
        return Authenticator(cache, rate, clock=clock)
