"""Writes last-used times of API keys periodically, outside the request path."""

import asyncio

import structlog

from serve_app.auth.cache import KeyCache
from serve_app.auth.store import KeyStore, KeysUnavailable

_log = structlog.get_logger(__name__)


async def flush_last_used(cache: KeyCache, store: KeyStore) -> int:
    """Write the changed last-used times in one statement; returns the number of keys."""
    changed = [key for key in cache.cached if key.used_at > key.written_at]
    if not changed:
        return 0
    used = {key.record.key_id: key.used_at for key in changed}
    await store.touch(used)
    for key in changed:
        key.written_at = used[key.record.key_id]
    return len(changed)


async def flush_last_used_periodically(
    cache: KeyCache, store: KeyStore, *, period_s: float
) -> None:
    """Flush every ``period_s`` seconds until cancelled."""
    while True:
        await asyncio.sleep(period_s)
        try:
            await flush_last_used(cache, store)
        except KeysUnavailable as failure:
            _log.warning("api key last-used flush failed", cause=str(failure))
