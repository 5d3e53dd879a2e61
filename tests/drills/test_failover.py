"""A primary that dies, hangs or loses its synchronous standby: nothing acknowledged is lost."""

import pytest

from tests.drills.conftest import Report
from tests.drills.drill import Drill, Moment, now, run_drill
from tests.drills.results import Target
from tests.drills.stack import ALL_HOSTS, DrillStack
from tests.drills.tcp_link import tcp_link

_GONE_S = 6.0
_PARTED_S = 10.0
"""Longer than the service waits for a commit: it ends the backends that it has given up."""
_STANDING_S = 1.0
"""After the failure, until a cluster manager has noticed it."""


async def test_synchronous_standby_promoted_loses_nothing(
    stack: DrillStack, report: Report
) -> None:
    async def lose_primary(drill: Drill) -> Moment:
        await drill.do(stack.cluster.primary.kill)
        await drill.for_s(_STANDING_S)
        await drill.do(stack.promote)
        return now()

    stack.cluster.add_standby(synchronous=True)
    report(
        await run_drill(
            stack,
            lose_primary,
            name="synchronous-failover",
            what="the primary killed with kill −9, its synchronous standby promoted a second later",
            target=Target(back_s=1.5),
        )
    )


@pytest.mark.skipif(not ALL_HOSTS, reason="the service's DSN names one host only")
async def test_hung_primary_is_left_for_the_promoted_standby(
    stack: DrillStack, report: Report
) -> None:
    async def hang(drill: Drill) -> Moment:
        await drill.do(stack.cluster.primary.pause)
        await drill.for_s(_STANDING_S)
        await drill.do(stack.promote)
        return now()

    stack.cluster.add_standby(synchronous=True)
    report(
        await run_drill(
            stack,
            hang,
            name="hung-primary",
            what="the primary stopped (SIGSTOP), its synchronous standby promoted a second later; "
            "the old one keeps accepting connections and answers nothing",
            target=Target(back_s=5.0),
        )
    )


async def test_no_write_is_acknowledged_while_the_standby_is_gone(
    stack: DrillStack, report: Report
) -> None:
    async def lose_standby(drill: Drill) -> Moment:
        await drill.do(standby.kill)
        gone = now()
        await drill.for_s(_GONE_S)
        returning = now()
        await drill.do(standby.start)
        await drill.do(lambda: stack.cluster.wait_for_standby("sync"))
        back = now()
        if acknowledged := drill.acknowledged_between(gone, returning):
            drill.violations.append(f"{acknowledged} writes acknowledged without a standby")
        return back

    standby = stack.cluster.add_standby(synchronous=True)
    report(
        await run_drill(
            stack,
            lose_standby,
            name="standby-gone",
            what=f"the only synchronous standby killed, and started again after {_GONE_S:.0f} s",
            target=Target(back_s=2.0),
        )
    )


async def test_commits_that_no_standby_has_leave_no_trace_after_failover(
    stack: DrillStack, report: Report
) -> None:
    async def part(drill: Drill) -> Moment:
        link.stall()
        parted = now()
        await drill.for_s(_PARTED_S)
        await drill.do(stack.cluster.primary.kill)
        lost = now()
        link.cut()
        await drill.do(stack.promote)
        if acknowledged := drill.acknowledged_between(parted, lost):
            drill.violations.append(f"{acknowledged} writes acknowledged without a standby")
        return now()

    with tcp_link(stack.cluster.primary.port) as link:
        stack.cluster.add_standby(synchronous=True, source_port=link.port)
        report(
            await run_drill(
                stack,
                part,
                name="partition-then-failover",
                what="the network between the primary and its synchronous standby stalled for "
                f"{_PARTED_S:.0f} s, then the primary killed and the standby promoted",
                target=Target(back_s=1.5),
            )
        )
