"""Disks that are really full: the data's, then the WAL's, each a file system of its own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from deploy.local.processes import wait_until
from tests.drills.conftest import Report
from tests.drills.drill import Drill, Moment, now, run_drill
from tests.drills.filesystems import unavailable_reason
from tests.drills.postgres_cluster import Disks, ask
from tests.drills.results import Target
from tests.drills.stack import DrillStack

_FULL_S = 6.0
_DATA_MB = 256
_WAL_MB = 224
_PANIC_S = 30.0

pytestmark = pytest.mark.skipif(
    bool(reason := unavailable_reason()), reason=reason or "a file system can be mounted"
)


async def test_full_data_disk_refuses_writes_until_space_is_freed(
    stack: DrillStack, report: Report
) -> None:
    async def fill(drill: Drill) -> Moment:
        disk = stack.cluster.data_disk
        assert disk is not None
        await drill.do(disk.fill)
        await drill.for_s(_FULL_S)
        assert drill.load.errors, "nobody noticed the full disk"
        await drill.do(disk.free)
        return now()

    async with _primary_on(stack, Disks(data=_DATA_MB)):
        report(
            await run_drill(
                stack,
                fill,
                name="data-disk-full",
                what=f"no space left on the file system of the data for {_FULL_S:.0f} s",
                target=Target(back_s=2.0),
            )
        )


async def test_full_wal_disk_stops_the_primary_and_loses_nothing(
    stack: DrillStack, report: Report
) -> None:
    async def fill(drill: Drill) -> Moment:
        primary, disk = stack.cluster.primary, stack.cluster.wal_disk
        assert disk is not None
        await drill.do(disk.fill)

        def needs_a_new_segment() -> bool:
            ask(primary.url, "SELECT pg_switch_wal()")
            return not primary.is_alive

        await drill.do(lambda: wait_until(needs_a_new_segment, timeout_s=_PANIC_S))
        assert not primary.is_alive, "Postgres went on without space for its WAL"
        assert "No space left on device" in primary.log()
        await drill.for_s(1.0)
        await drill.do(disk.free)
        await drill.do(primary.start)
        return now()

    async with _primary_on(stack, Disks(wal=_WAL_MB)):
        report(
            await run_drill(
                stack,
                fill,
                name="wal-disk-full",
                what="no space left on the file system of the WAL: Postgres panics and does not "
                "start again before there is space",
                target=Target(back_s=2.0),
            )
        )


@asynccontextmanager
async def _primary_on(stack: DrillStack, disks: Disks) -> AsyncIterator[None]:
    """Switch over to a primary on such disks, and back to the machine's disk."""
    stack.cluster.add_standby(synchronous=False, disks=disks)
    stack.switch_over()
    yield
    stack.cluster.add_standby(synchronous=False)
    stack.switch_over()
