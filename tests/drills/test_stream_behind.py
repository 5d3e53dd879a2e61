"""A stream with less than the journal is filled again: a store put back from a copy, a purge."""

from tests.drills.conftest import Report
from tests.drills.drill import Drill, Moment, now, run_drill
from tests.drills.results import Target
from tests.drills.stack import DrillStack

_COPY_AGE_S = 12.0
_UNHARMED = Target(unharmed=True)


async def test_a_store_put_back_from_a_copy_is_filled_again(
    stack: DrillStack, report: Report
) -> None:
    async def roll_back(drill: Drill) -> Moment:
        copy = stack.nats.copy_store()
        await drill.for_s(_COPY_AGE_S)
        await drill.do(stack.nats.kill)
        await drill.do(lambda: stack.nats.put_back(copy))
        await drill.do(stack.nats.start)
        return now()

    report(
        await run_drill(
            stack,
            roll_back,
            name="store-rolled-back",
            what=f"NATS killed, its store replaced by a copy that is {_COPY_AGE_S:.0f} s old",
            target=_UNHARMED,
        )
    )


async def test_a_purged_stream_is_filled_again(stack: DrillStack, report: Report) -> None:
    async def purge(drill: Drill) -> Moment:
        await stack.nats.purge()
        return now()

    report(
        await run_drill(
            stack,
            purge,
            name="stream-purged",
            what="every message of the stream removed by hand",
            # Until the purge is noticed, consumers get what follows what they have missed.
            target=Target(unharmed=True, in_order=False),
        )
    )
