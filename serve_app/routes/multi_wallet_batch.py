"""A batch over many wallets: claimed under its key, split by wallet, decided wallet by wallet."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple, assert_never

import msgspec

from actors.rpc.messages import (
    Applied,
    BatchCommitted,
    BatchRolledBack,
    Failure,
    FailureCode,
    KeyClaimed,
    Refused,
    RequestResult,
)
from serve_app.dependencies import Dependencies
from serve_app.http.batch_requests import WalletBatchItem
from serve_app.http.batch_responses import failed_result, item_result, refused_request
from serve_app.http.fingerprints import batch_fingerprint, many_wallets_fingerprint
from serve_app.http.models import BatchResult
from serve_app.http.problems import ProblemError
from serve_app.http.responses import failure_problem, unexpected
from wallet import commands
from wallet.ids import IdempotencyKey, WalletId, batch_scope, canonical_uuid

CHUNK_ITEMS: Final = 1_000
"""Items of one wallet in one transaction. No setting: the keys of a wallet's later portions
depend on it, and a retry must find them again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """That the key of a batch over many wallets belongs to this request."""

    key: IdempotencyKey
    request: bytes
    """Fingerprint of the whole request."""
    parts: dict[tuple[str | None, int], bytes]
    """Fingerprints of what is asked of each wallet, by wallet and first item."""
    request_id: str
    """Of the request that claimed the key first."""
    replayed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchContext:
    """What every part of one request shares."""

    services: Dependencies
    request_id: str
    timeout_s: float
    """For a batch as a whole; for a stream, each portion of it."""
    claim: Claim | None = None
    api_key_id: str | None = None
    """Id of the API key."""


Places = dict[str | None, list[int]]
"""Indexes of each wallet's items in the request; None for what is no wallet's id."""

Undecided = dict[str, BatchResult | None]
"""Wallets whose later items are not executed, and the result that those get; None: the usual
one. What a later item should find is what the item without a decision may still change."""


def by_wallet(asked: Sequence[WalletBatchItem]) -> Places:
    places: Places = {}
    for index, item in enumerate(asked):
        # One wallet, however its id is spelled: its items stay in order.
        places.setdefault(canonical_uuid(item.wallet_id), []).append(index)
    return places


def _chunks(places: Places) -> Iterator[tuple[str | None, int, list[int]]]:
    """Each wallet's items as they are submitted: wallet, first item, where they stand."""
    for wallet, indexes in places.items():
        for start in range(0, len(indexes), CHUNK_ITEMS):
            yield wallet, start, indexes[start : start + CHUNK_ITEMS]


async def claim_key(
    call: BatchContext,
    key: IdempotencyKey,
    places: Places,
    asked: Sequence[WalletBatchItem],
    items: Sequence[commands.CommandItem],
) -> BatchContext:
    """``call`` with its key claimed: from now on no other request can use it.

    Without this a request under the same key that names other wallets would meet nobody who
    knows the key (`specification/decisions/0036-a-batch-s-key-is-claimed-first.md`).

    Raises:
        Problem: the key came with another request; or nothing was decided, so nothing was begun.
    """
    parts = {
        (wallet, start): batch_fingerprint([items[index] for index in part])
        for wallet, start, part in _chunks(places)
    }
    wallets = [canonical_uuid(item.wallet_id) or item.wallet_id for item in asked]
    whole = many_wallets_fingerprint(wallets, parts.values())
    clock = asyncio.get_running_loop().time
    deadline = clock() + call.timeout_s
    keyed = commands.Idempotency(key=key, fingerprint=whole)
    result = await call.services.dispatcher.submit(
        commands.CommandRequest(
            wallet_id=batch_scope(key),
            items=(commands.CommandItem(command=commands.ClaimKey(), idempotency=keyed),),
            request_id=call.request_id,
            timeout_s=call.timeout_s,
        )
    )
    claimed = _claimed(result)
    claim = Claim(
        key=key,
        request=whole,
        parts=parts,
        request_id=claimed.request_id,
        replayed=claimed.replayed,
    )
    return replace(call, claim=claim, timeout_s=max(deadline - clock(), 0.0))


def _claimed(result: RequestResult) -> KeyClaimed:
    if isinstance(result, KeyClaimed):
        return result
    if isinstance(result, Refused):
        raise refused_request(result.refusal)
    if isinstance(result, Failure):
        raise failure_problem(_not_begun(result))
    if isinstance(result, Applied | BatchCommitted | BatchRolledBack):
        raise unexpected(result)
    assert_never(result)


def _not_begun(failure: Failure) -> Failure:
    """Whatever became of the claim: this request handed no item to any wallet."""
    if failure.code is FailureCode.OVERLOADED:
        return failure
    return msgspec.structs.replace(failure, applied="no", detail=_NOT_BEGUN)


class Done(NamedTuple):
    """Results in the order of the items; ``replayed``: every one was the answer before."""

    results: list[BatchResult]
    replayed: bool


async def submit_by_wallet(
    call: BatchContext,
    places: Places,
    items: Sequence[commands.CommandItem],
    *,
    undecided: Undecided,
) -> Done:
    """Each wallet's items as submissions of their own, all wallets at once.

    Wallets that get no decision are added to ``undecided``.
    """
    results: dict[int, BatchResult] = {}
    clock = asyncio.get_running_loop().time
    deadline = clock() + call.timeout_s
    not_replayed = 0

    async def submit(wallet: str | None, indexes: list[int]) -> None:
        nonlocal not_replayed
        for _, start, part in _chunks({wallet: indexes}):
            in_time = replace(call, timeout_s=max(deadline - clock(), 0.0))
            asked = [items[index] for index in part]
            done = await _submit_part(in_time, wallet, start, asked, undecided)
            not_replayed += not done.replayed
            results.update(zip(part, done.results, strict=True))

    await asyncio.gather(*(submit(wallet, indexes) for wallet, indexes in places.items()))
    return Done([results[index] for index in range(len(items))], not not_replayed)


async def _submit_part(
    call: BatchContext,
    wallet: str | None,
    start: int,
    items: Sequence[commands.CommandItem],
    undecided: Undecided,
) -> Done:
    claim = call.claim
    if wallet is None:
        problem = ProblemError("wallet_not_found", "There is no wallet with this id.")
        request_id = claim.request_id if claim else call.request_id
        return Done(
            [failed_result(problem, request_id)] * len(items), bool(claim and claim.replayed)
        )
    if wallet in undecided:
        same = undecided[wallet] or _failed(_NOT_EXECUTED, call)
        return Done([same] * len(items), replayed=False)
    result = await call.services.dispatcher.submit(
        commands.CommandRequest(
            wallet_id=WalletId(wallet),
            items=tuple(items),
            request_id=call.request_id,
            timeout_s=call.timeout_s,
            is_batch=True,
            idempotency=_keyed_part(claim, wallet, start) if claim else None,
            api_key_id=call.api_key_id,
        )
    )
    if isinstance(result, BatchCommitted):
        decided = zip(items, result.items, strict=True)
        return Done([item_result(item.command, one) for item, one in decided], result.replayed)
    if isinstance(result, Failure):
        undecided[wallet] = None
        same = _failed(result, call)
    elif isinstance(result, Refused):  # In this wallet the key came with another request before.
        same = undecided[wallet] = item_result(items[0].command, result)
    elif isinstance(result, Applied | KeyClaimed | BatchRolledBack):
        raise unexpected(result)
    else:
        assert_never(result)
    return Done([same] * len(items), replayed=False)


def _failed(failure: Failure, call: BatchContext) -> BatchResult:
    """The result of an item that this request got no decision on.

    Where the key had been claimed before, an earlier request may have applied what this one did
    not.
    """
    if failure.applied == "no" and call.claim is not None and call.claim.replayed:
        detail = f"{failure.detail} {_MAYBE_EARLIER}"
        failure = msgspec.structs.replace(failure, applied="unknown", detail=detail)
    return failed_result(failure_problem(failure), call.request_id)


def _keyed_part(claim: Claim, wallet: str, start: int) -> commands.Idempotency:
    """A wallet's later portions are requests of their own to the key's uniqueness.

    The blank keeps their keys apart from every client's: those have none.
    """
    key = claim.key if start == 0 else IdempotencyKey(f"{claim.key} {start}")
    return commands.Idempotency(
        key=key, fingerprint=claim.parts[wallet, start], request=claim.request
    )


_MAYBE_EARLIER: Final = (
    "An earlier one under the same key may have been applied: repeat under the key to learn it."
)
_NOT_BEGUN: Final = (
    "The batch was not begun, because its key could not be claimed in time. This request applied "
    f"nothing. {_MAYBE_EARLIER}"
)
_NOT_EXECUTED: Final = Failure(
    code=FailureCode.UNAVAILABLE,
    detail="Not executed: an earlier item of this wallet got no decision. This request applied "
    "nothing of it; repeat both, in order.",
    applied="no",
)
