"""What a database that lost commits must lead to, judged from outside of the service."""

from collections.abc import Awaitable, Callable, Collection
from typing import Final

import asyncpg
import msgspec

from tests.drills.drill import Drill, Moment
from verification.facts import ClientCall

_LOST: Final = """
SELECT wallet_id::text, version,
    CASE WHEN event->>'type' LIKE 'transfer.%' THEN event->'data'->>'id' ELSE '' END
FROM (
    SELECT wallet_id, version, convert_from(payload, 'UTF8')::json AS event FROM lost_events
) lost
"""
_TRANSFERS: Final = "SELECT id::text FROM transfers WHERE id = ANY ($1::uuid[])"


class LostEvent(msgspec.Struct, frozen=True):
    """An event that `wallet recover` names."""

    wallet_id: str
    version: int
    transfer_id: str


class Loss:
    """What `wallet recover` names, beside what the clients and the outside consumer have seen."""

    def __init__(
        self, events: Collection[LostEvent], promoted: Moment, calls: Collection[ClientCall] = ()
    ) -> None:
        self.events = events
        self.wallets = {event.wallet_id for event in events}
        self._promoted = promoted
        self._versions = {(event.wallet_id, event.version) for event in events}
        self._repeated = repeated_settlements(calls)

    def is_void(self, call: ClientCall) -> bool:
        """Whether a client's answer from before the promotion may be lost.

        It rests on a lost event; or no event was written for it, so that the stream does not have
        its idempotency key: a refusal, or a settlement of a transfer that was settled before.
        """
        if call.ended > self._promoted:
            return False
        if call.outcome == "refused" or call.operation_id in self._repeated:
            return True
        return (call.wallet_id, call.version) in self._versions

    def errors_of_others(self, calls: Collection[ClientCall], *, after: Moment) -> list[str]:
        """Errors of wallets without a fork that were sent after a moment."""
        return [
            f"{call.status} {call.code} in {call.wallet_id}, which has no fork"
            for call in calls
            if call.started > after and call.wallet_id not in self.wallets and call.status >= 500
        ]


def repeated_settlements(calls: Collection[ClientCall]) -> set[str]:
    """Operations that were accepted because an earlier one had settled the transfer already."""
    firsts: dict[str, str] = {}
    repeated = set()
    for call in sorted(calls, key=lambda one: one.version):
        if call.transfer_id and call.outcome == "acknowledged" and call.operation != "read":
            first = firsts.setdefault(call.transfer_id, call.operation_id)
            if first != call.operation_id:
                repeated.add(call.operation_id)
    return repeated


async def _loss_after(drill: Drill, promoted: Moment) -> Loss:
    """Read what `wallet recover` recorded about the wallets of this drill."""
    connection = await asyncpg.connect(drill.stack.cluster.url, timeout=10)
    try:
        rows = await connection.fetch(_LOST)
    finally:
        await connection.close(timeout=10)
    mine = set(drill.load.wallets)
    lost = [LostEvent(*row) for row in rows if row[0] in mine]
    return Loss(lost, promoted, drill.load.state.history)


def complete_recovery(
    promoted: Moment, *, unharmed_after: Moment
) -> Callable[[Drill], Awaitable[None]]:
    """What `wallet recover --replay` must have achieved, to be checked at the end of a drill.

    Every lost event that the outside consumer saw is named and its transfer is back; every fork
    was reported to the consumer; wallets without a fork had no error after ``unharmed_after``.
    """

    async def check(drill: Drill) -> None:
        loss = await _loss_after(drill, promoted)
        drill.void = loss.is_void
        drill.violations += loss.errors_of_others(drill.load.state.history, after=unharmed_after)
        drill.expect(bool(loss.events), "the database lost nothing: the drill proves nothing")
        named = {(event.wallet_id, event.version) for event in loss.events}
        forgotten = [
            one
            for one in drill.outside.belief.forgotten
            if one.event.wallet_id in drill.load.wallets
            and (one.event.wallet_id, one.event.version) not in named
        ]
        drill.expect(not forgotten, f"{len(forgotten)} events lost that nobody named")
        rested = loss.wallets & set(drill.load.resting_wallets)
        drill.expect(not rested, f"{len(rested)} wallets have a fork although nobody wrote to them")
        unreported = loss.wallets - set(drill.outside.belief.rewound)
        drill.expect(not unreported, f"{len(unreported)} forks were not reported to consumers")
        missing = await _transfers_missing(drill, loss)
        drill.expect(not missing, f"{len(missing)} transfers on the stream are not back")

    return check


async def _transfers_missing(drill: Drill, loss: Loss) -> set[str]:
    wanted = {event.transfer_id for event in loss.events} - {""}
    connection = await asyncpg.connect(drill.stack.cluster.url, timeout=10)
    try:
        found = {row[0] for row in await connection.fetch(_TRANSFERS, sorted(wanted))}
    finally:
        await connection.close(timeout=10)
    return wanted - found
