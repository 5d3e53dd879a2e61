"""Builds a replica's authenticator from the settings."""

import asyncio

from runtime.postgres.connect import Connector
from runtime.settings import Settings
from serve_app.auth.authenticator import Authenticator, RateLimit
from serve_app.auth.cache import CacheLimits, KeyCache
from serve_app.auth.last_used import flush_last_used_periodically
from serve_app.auth.store import KeyStore

_CONNECTIONS_MAX = 2
"""One for the running look-up, one for last-used times. A separate pool: queued reads must not
delay key look-ups."""


class AuthenticatorFactory:
    """Creates the authenticator and owns its pool and background task."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> Authenticator:
        """Create the authenticator. Until Postgres responds, it rejects all requests with 503."""
        settings = self._settings
        pool = Connector(
            settings.database_url,
            timeout_s=settings.database_connect_timeout_s,
            settings={"application_name": "wallet-keys", "timezone": "UTC", "jit": "off"},
            command_timeout_s=settings.database_timeout_s,
        ).pool(max_size=_CONNECTIONS_MAX)
        await pool
        # A result that takes longer than the cache TTL would be stale at once.
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
