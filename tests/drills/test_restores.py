"""Restores: to a point in time from a base backup and the WAL archive, and from a dump.

The steps are those of
docs/operating/backup-and-restore.md.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from tests.drills.conftest import Report
from tests.drills.drill import Drill, Failure, Moment, now, run_drill
from tests.drills.recovery import complete_recovery
from tests.drills.results import Target
from tests.drills.stack import DrillStack

_AFTER_S = 4.0
"""Of writes after the moment that is restored: they are lost."""
_SETTLED_S = 3.0


def _restored(restore: Callable[[], None], drill_stack: DrillStack) -> Failure:
    async def lose_the_last_seconds(drill: Drill) -> Moment:
        await drill.do(restore)
        await drill.do(drill_stack.follow_primary)
        restored = now()
        await drill.for_s(_SETTLED_S)
        await drill.do(lambda: drill_stack.service.wallet("recover", "--replay"))
        recovered = now()
        drill.at_end = complete_recovery(restored, unharmed_after=recovered)
        return recovered

    return lose_the_last_seconds


async def test_a_point_in_time_restore_ends_with_a_clean_verification(
    stack: DrillStack, report: Report
) -> None:
    backup = stack.cluster.back_up()

    async def restore(drill: Drill) -> Moment:
        until = datetime.now(UTC)
        await drill.for_s(_AFTER_S)
        await drill.do(stack.cluster.archive_all)
        lose = _restored(lambda: stack.cluster.restore(backup, until=until), stack)
        return await lose(drill)

    report(
        await run_drill(
            stack,
            restore,
            name="point-in-time-restore",
            what=f"a base backup and the WAL archive, restored to {_AFTER_S:.0f} s ago",
            target=Target(),
        )
    )


async def test_a_restored_dump_ends_with_a_clean_verification(
    stack: DrillStack, report: Report
) -> None:
    async def restore(drill: Drill) -> Moment:
        dumps: list[Path] = []
        await drill.do(lambda: dumps.append(stack.cluster.dump()))
        await drill.for_s(_AFTER_S)
        return await _restored(lambda: stack.cluster.restore_dump(dumps[0]), stack)(drill)

    report(
        await run_drill(
            stack,
            restore,
            name="dump-restored",
            what=f"the database replaced by a dump (pg_dump) that is {_AFTER_S:.0f} s old",
            target=Target(),
        )
    )
