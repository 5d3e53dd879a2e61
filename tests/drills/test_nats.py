"""NATS loses processes, consumers and space. No client of the service sees an error."""

import asyncio

from tests.drills.conftest import Report
from tests.drills.drill import Drill, Moment, now, run_drill
from tests.drills.postgres_cluster import ask
from tests.drills.results import Target
from tests.drills.stack import DrillStack

_DOWN_S = 5.0
_FULL_S = 6.0
_SPARE_BYTES = 20_000
_UNHARMED = Target(unharmed=True)
_PROJECTIONS = "projections-"


async def test_writes_continue_while_nats_is_dead(stack: DrillStack, report: Report) -> None:
    async def kill(drill: Drill) -> Moment:
        await drill.do(stack.nats.kill)
        await drill.for_s(_DOWN_S)
        await drill.do(stack.nats.start)
        return now()

    report(
        await run_drill(
            stack,
            kill,
            name="nats-killed",
            what=f"NATS killed with kill −9 and started again after {_DOWN_S:.0f} s",
            target=_UNHARMED,
        )
    )


async def test_projections_continue_after_their_consumer_is_deleted(
    stack: DrillStack, report: Report
) -> None:
    async def delete(drill: Drill) -> Moment:
        assert await stack.nats.delete_consumers(_PROJECTIONS), "there was no consumer"
        return now()

    report(
        await run_drill(
            stack,
            delete,
            name="consumer-deleted",
            what="the projections' durable consumers deleted by hand",
            target=_UNHARMED,
        )
    )


async def test_events_wait_while_the_stream_has_no_space(stack: DrillStack, report: Report) -> None:
    async def fill(drill: Drill) -> Moment:
        limit = await stack.nats.stored_bytes() + _SPARE_BYTES
        await drill.do(stack.nats.kill)
        await drill.do(lambda: stack.nats.start(store_bytes_max=limit))
        await drill.for_s(_FULL_S)
        waiting = await asyncio.to_thread(
            ask, stack.cluster.url, "SELECT coalesce(sum(last_version - first_version + 1), 0) "
            "FROM outbox WHERE created_at < now() - interval '4 s'"
        )  # fmt: skip
        assert waiting, "the stream took everything"
        await drill.do(stack.nats.kill)
        await drill.do(stack.nats.start)
        return now()

    report(
        await run_drill(
            stack,
            fill,
            name="stream-full",
            what=f"`max_file_store` of NATS reached for {_FULL_S:.0f} s, then raised with a "
            "restart of NATS",
            target=_UNHARMED,
        )
    )
