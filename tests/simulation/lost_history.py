"""Checks a run whose database lost commits: it may lack exactly these, and nothing else.

The run has several histories: the journal just before each failover, and the one at the end. Each
is checked in full, with the calls that it has to account for:

- Before a failover: all calls that had started. What is without a response at that moment has an
  unknown outcome.
- After it: all calls, but an answer that rests on a lost commit is no longer one. What a client
  was told before may be repeated, and applied again. An answer to a call that started after the
  failover is true for the new history, without exception.

The stream may have lost events as well, and each has an id of its own. A consumer that compares
hashes sees each change from one history to the other.
"""

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from actors.journal.memory_database import MemoryDatabase
from tests.simulation.evidence import balances_of, journal_facts
from tests.simulation.lost_commits import EventIdentity, LostCommits, identity_of
from tests.simulation.stream import Stored
from tests.simulation.world import World
from verification.checker import check
from verification.fact_index import reported_state_of
from verification.facts import ClientCall, Facts
from verification.violations import Violation
from wallet.chain import GENESIS
from wallet.event_codec import CloudEvent, decode_envelope
from wallet.ids import IdempotencyKey, WalletId, wallet_creation_scope


def check_histories(world: World, evidence: Facts) -> Iterator[Violation]:
    """Every violation in any history of a run."""
    calls = evidence.history or ()
    for number, loss in enumerate(world.losses):
        known = _calls_before(_without_lost_answers(calls, world.losses[:number]), loss.moment)
        yield from check(journal_facts(loss.before, list(known)))
    yield from check(
        msgspec.structs.replace(
            evidence,
            history=list(_without_lost_answers(calls, world.losses)),
            stream=_without_lost_events(world, evidence),
        )
    )


# -- calls ---------------------------------------------------------------------------------------


def _calls_before(calls: Iterable[ClientCall], moment: int) -> Iterator[ClientCall]:
    """Calls that had started by ``moment``, with what was known of them then."""
    for call in calls:
        if call.ended < moment:
            yield call
        elif call.started < moment and call.operation != "read":
            yield _unknown(call, ended=moment)


def _without_lost_answers(
    calls: Iterable[ClientCall], losses: Sequence[LostCommits]
) -> Iterator[ClientCall]:
    """``calls``, without the answers that rest on lost commits."""
    for call in calls:
        rest: ClientCall | None = call
        for loss in losses:
            if rest is not None and rest.started < loss.moment:
                rest = _without_lost_answer(rest, loss)
        if rest is not None:
            yield rest


def _without_lost_answer(call: ClientCall, loss: LostCommits) -> ClientCall | None:
    """``call`` as it counts after ``loss``: None if nothing is left of it."""
    if call.outcome == "acknowledged" and _reports_lost_version(call, loss):
        return None if call.operation == "read" else _unknown(call)
    if call.outcome in ("acknowledged", "refused") and _key_of(call) in loss.keys:
        return _unknown(call)
    if call.outcome == "refused":
        return _without_lost_refusal(call, loss)
    if call.outcome == "not_applied" and call.wallet_id in loss.wallets_with_refusals:
        return _unknown(call)  # A batch with a refused item, whose delivery may still arrive.
    return call


def _without_lost_refusal(call: ClientCall, loss: LostCommits) -> ClientCall:
    if call.body.encode() in loss.refusals:
        return _unknown(call)
    if call.wallet_id in loss.wallets:
        # It stays refused, but the version that justified it may be lost.
        return msgspec.structs.replace(call, code=f"{call.code} in a lost history")
    return call


def _reports_lost_version(call: ClientCall, loss: LostCommits) -> bool:
    reported = reported_state_of(call)
    if reported is None:
        return False
    lost = loss.by_version.get((reported.wallet_id, reported.version))
    if lost is None:
        return False
    # A call that overlaps the failover may report the new event of that version.
    return call.ended < loss.moment or reported.balances == balances_of(lost.wallet_after)


def _key_of(call: ClientCall) -> tuple[WalletId, IdempotencyKey]:
    key = IdempotencyKey(call.key)
    if call.key and call.operation == "create_wallet":
        return wallet_creation_scope(key), key
    return WalletId(call.wallet_id), key


def _unknown(call: ClientCall, *, ended: int | None = None) -> ClientCall:
    return msgspec.structs.replace(
        call,
        outcome="unknown",
        ended=call.ended if ended is None else ended,
        status=0,
        code="",
        body="",
        replayed=False,
        version=0,
    )


# -- the stream and the chain --------------------------------------------------------------------


def _without_lost_events(world: World, evidence: Facts) -> list[object]:
    lost = _lost_events(world)
    return [
        fact
        for fact, stored in zip(evidence.stream or (), world.stream.stored, strict=True)
        if _identity_on_stream(stored) not in lost
    ]


def _lost_events(world: World) -> set[EventIdentity]:
    """Events that were committed and are not in the journal at the end."""
    lost = {identity_of(one) for loss in world.losses for one in loss.events}
    return lost - {identity_of(one) for one in world.database.events}


def _identity_on_stream(stored: Stored) -> EventIdentity:
    event = decode_envelope(stored.message.payload)
    return event.subject, event.walletversion, bytes.fromhex(event.hash or "")


def chain_failures(world: World) -> Iterator[str]:
    """Breaches of what only hashes show: the chain, the ids, and that a fork is visible."""
    databases = [*(loss.before for loss in world.losses), world.database]
    for database in databases:
        yield from _broken_chains(database)
    yield from _ambiguous_ids(world, databases)
    yield from _unseen_forks(world)


def _broken_chains(database: MemoryDatabase) -> Iterator[str]:
    for wallet_id, events in database.events_by_wallet.items():
        head = GENESIS
        for recorded in events:
            if recorded.previous_hash != head:
                version = recorded.wallet_after.version
                yield f"chain of {wallet_id} is broken before version {version}"
            head = recorded.wallet_after.hash
        if database.wallets[wallet_id].hash != head:
            yield f"hash of {wallet_id} is not that of its last event"


def _ambiguous_ids(world: World, databases: Sequence[MemoryDatabase]) -> Iterator[str]:
    """Ids that name two different events, on the stream or in any history."""
    named: dict[str, EventIdentity] = {}
    events = [(one.id, identity_of(one)) for database in databases for one in database.events]
    events += [(one.message.id, _identity_on_stream(one)) for one in world.stream.stored]
    for event_id, identity in events:
        if named.setdefault(event_id, identity) != identity:
            yield f"event id {event_id} names two events"


def _unseen_forks(world: World) -> Iterator[str]:
    """Follow the stream as a consumer that compares hashes does.

    What it takes for the next event must follow the one that it holds, and only wallets with lost
    commits may fork.
    """
    forking = {wallet_id for loss in world.losses for wallet_id in loss.wallets}
    held: dict[str, CloudEvent] = {}
    seen: set[str] = set()
    for stored in world.stream.stored:
        event = decode_envelope(stored.message.payload)
        if event.id in seen:
            continue
        seen.add(event.id)
        before = held.get(event.subject)
        follows = event.previoushash == (before.hash if before else GENESIS.hex())
        contiguous = event.walletversion == (before.walletversion if before else 0) + 1
        if follows and not contiguous:
            yield f"event {event.id} follows a hash of another version"
        if not follows and event.subject not in forking:
            yield f"event {event.id} forks a wallet that has lost nothing"
        held[event.subject] = event
