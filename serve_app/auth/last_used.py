"""When keys were last used: written now and then, never while a request waits."""

import asyncio

import structlog

from serve_app.auth.cache import KeyCache
from serve_app.auth.store import KeyStore, KeysUnavailable

_log = structlog.get_logger(__name__)


async def flush_last_used(cache: KeyCache, store: KeyStore) -> int:
    """Write what was used since it was written last, in one statement; returns how many keys."""
    fresh = [held for held in cache.held if held.used_at > held.written_at]
    if not fresh:
        return 0
    used = {held.record.key_id: held.used_at for held in fresh}
    await store.touch(used)
    for held in fresh:
        held.written_at = used[held.record.key_id]
    return len(fresh)


async def flush_last_used_periodically(
    cache: KeyCache, store: KeyStore, *, period_s: float
) -> None:
    """Do so every ``period_s`` seconds, until cancelled: so often at most is a key written."""
    while True:
        await asyncio.sleep(period_s)
        try:
            await flush_last_used(cache, store)
        except KeysUnavailable as failure:
            _log.warning("api key last-used flush failed", cause=str(failure))
