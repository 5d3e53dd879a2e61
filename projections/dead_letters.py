"""Dead letters: list them, and replay them once the cause is fixed."""

from projections.changes import decode_message, project_events
from projections.consumer import POISON
from projections.store import DeadLetter, ProjectionStore
from runtime.postgres.connect import Connector
from runtime.settings import Settings

_LIMIT = 10_000


async def list_dead_letters(settings: Settings) -> list[DeadLetter]:
    """Dead-lettered events, oldest first, at most 10,000."""
    async with _connector(settings).pool(max_size=1) as pool:
        return await ProjectionStore(pool).dead_letters(limit=_LIMIT)


async def replay(settings: Settings) -> tuple[int, int]:
    """Apply them again, oldest first; returns how many were applied and how many remain.

    An event that the projection meanwhile got from the journal is dropped, like any duplicate; so
    is one that the journal lost.
    """
    applied = 0
    async with _connector(settings).pool(max_size=1) as pool:
        store = ProjectionStore(pool)
        for letter in await store.dead_letters(limit=_LIMIT):
            try:
                refused = await store.project(
                    project_events([decode_message(letter.subject, letter.payload)])
                )
            except POISON:
                continue
            for wallet in refused:
                await store.repair(wallet)
            await store.remove_dead_letter(letter)
            applied += 1
        return applied, await store.count_dead_letters()


def _connector(settings: Settings) -> Connector:
    return Connector(settings.database_url, timeout_s=settings.database_connect_timeout_s)
