"""A batch over many wallets: its idempotency key is claimed, then each wallet decides its items."""

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
"""Items of one wallet in one transaction. Not a setting: the idempotency keys of a wallet's later
chunks depend on it, and a retry must find them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The claim of a batch's idempotency key for this request."""

    key: IdempotencyKey
    request: bytes
    """Fingerprint of the whole request."""
    parts: dict[tuple[str | None, int], bytes]
    """Fingerprints of the chunks, by wallet and index of the first item."""
    request_id: str
    """Id of the request that claimed the key first."""
    replayed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchContext:
    """Shared by all chunks of a request."""

    services: Dependencies
    request_id: str
    timeout_s: float
    """For a batch as a whole; for a stream, per portion."""
    claim: Claim | None = None
    api_key_id: str | None = None
    """Id of the API key."""


Positions = dict[str | None, list[int]]
"""Item indexes by wallet; None for invalid wallet ids."""

Undecided = dict[str, BatchResult | None]
"""Wallets whose later items are not executed, with the result of these items (None: the default).
The item without a decision may still be applied, so a later item can't rely on the state."""


def by_wallet(batch_items: Sequence[WalletBatchItem]) -> Positions:
    positions: Positions = {}
    for index, item in enumerate(batch_items):
        # Canonical id: different spellings are one wallet, and its items stay in order.
        positions.setdefault(canonical_uuid(item.wallet_id), []).append(index)
    return positions


class Chunk(NamedTuple):
    """Items of one wallet that are one transaction."""

    wallet: str | None
    start: int
    """Offset of the first among the wallet's items."""
    indexes: list[int]
    """Of the items in the request."""


def _rounds(positions: Positions) -> Iterator[list[Chunk]]:
    """The first chunk of each wallet, then the second of those that have one, and so on."""
    longest = max(map(len, positions.values()), default=0)
    for start in range(0, longest, CHUNK_ITEMS):
        yield [
            Chunk(wallet, start, indexes[start : start + CHUNK_ITEMS])
            for wallet, indexes in positions.items()
            if start < len(indexes)
        ]


async def claim_key(
    call: BatchContext,
    key: IdempotencyKey,
    positions: Positions,
    batch_items: Sequence[WalletBatchItem],
    items: Sequence[commands.CommandItem],
) -> BatchContext:
    """Claim the batch's idempotency key: from now on no other request can use it.

    Idempotency keys are stored per wallet. Without a claim, another request with the same key and
    other wallets would not be detected
    (`specification/decisions/0036-a-batch-s-key-is-claimed-first.md`).

    Raises:
        Problem: the key was used for another request; or the claim failed, so nothing was started.
    """
    parts = {
        (chunk.wallet, chunk.start): batch_fingerprint([items[index] for index in chunk.indexes])
        for chunks in _rounds(positions)
        for chunk in chunks
    }
    wallets = [canonical_uuid(item.wallet_id) or item.wallet_id for item in batch_items]
    request_fingerprint = many_wallets_fingerprint(wallets, parts.values())
    clock = asyncio.get_running_loop().time
    deadline = clock() + call.timeout_s
    idempotency = commands.Idempotency(key=key, fingerprint=request_fingerprint)
    result = await call.services.dispatcher.submit(
        commands.CommandRequest(
            wallet_id=batch_scope(key),
            items=(commands.CommandItem(command=commands.ClaimKey(), idempotency=idempotency),),
            request_id=call.request_id,
            timeout_s=call.timeout_s,
        )
    )
    claimed = _claimed(result)
    claim = Claim(
        key=key,
        request=request_fingerprint,
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
        raise failure_problem(_not_started(result))
    if isinstance(result, Applied | BatchCommitted | BatchRolledBack):
        raise unexpected(result)
    assert_never(result)


def _not_started(failure: Failure) -> Failure:
    """Whether or not the claim was applied, this request has sent no item to a wallet."""
    if failure.code is FailureCode.OVERLOADED:
        return failure
    return msgspec.structs.replace(failure, applied="no", detail=_NOT_STARTED)


class Done(NamedTuple):
    """Results in item order; ``replayed``: all of them are replays."""

    results: list[BatchResult]
    replayed: bool


async def submit_by_wallet(
    call: BatchContext,
    positions: Positions,
    items: Sequence[commands.CommandItem],
    *,
    undecided: Undecided,
) -> Done:
    """Submit each wallet's items as separate requests: all wallets' first chunks together, then all
    second ones.

    Wallets without a decision are added to ``undecided``.
    """
    results: dict[int, BatchResult] = {}
    clock = asyncio.get_running_loop().time
    deadline = clock() + call.timeout_s
    is_replayed = True
    for chunks in _rounds(positions):
        in_time = replace(call, timeout_s=max(deadline - clock(), 0.0))
        for chunk, done in await _submit_chunks(in_time, chunks, items, undecided):
            is_replayed &= done.replayed
            results.update(zip(chunk.indexes, done.results, strict=True))
    return Done([results[index] for index in range(len(items))], is_replayed)


async def _submit_chunks(
    call: BatchContext,
    chunks: Sequence[Chunk],
    items: Sequence[commands.CommandItem],
    undecided: Undecided,
) -> list[tuple[Chunk, Done]]:
    """``chunks``: one of each wallet."""
    done, submitted, requests = [], [], []
    for chunk in chunks:
        if (known := _known(call, chunk, undecided)) is not None:
            done.append((chunk, known))
            continue
        submitted.append(chunk)
        requests.append(_request(call, chunk, items))
    replies = await call.services.dispatcher.submit_all(requests)
    for chunk, request, reply in zip(submitted, requests, replies, strict=True):
        done.append((chunk, _decided(call, request, reply, undecided)))
    return done


def _known(call: BatchContext, chunk: Chunk, undecided: Undecided) -> Done | None:
    """The results of items that no shard is asked about."""
    claim, wallet = call.claim, chunk.wallet
    if wallet is None:
        problem = ProblemError("wallet_not_found", "There is no wallet with this id.")
        same = failed_result(problem, claim.request_id if claim else call.request_id)
        return Done([same] * len(chunk.indexes), bool(claim and claim.replayed))
    if wallet in undecided:
        same = undecided[wallet] or _failed(_NOT_EXECUTED, call)
        return Done([same] * len(chunk.indexes), replayed=False)
    return None


def _request(
    call: BatchContext, chunk: Chunk, items: Sequence[commands.CommandItem]
) -> commands.CommandRequest:
    assert chunk.wallet is not None, "what has no wallet is known"
    wallet_id, claim = WalletId(chunk.wallet), call.claim
    return commands.CommandRequest(
        wallet_id=wallet_id,
        items=tuple([items[index] for index in chunk.indexes]),
        request_id=call.request_id,
        timeout_s=call.timeout_s,
        is_batch=True,
        idempotency=_chunk_idempotency(claim, wallet_id, chunk.start) if claim else None,
        api_key_id=call.api_key_id,
    )


def _decided(
    call: BatchContext,
    request: commands.CommandRequest,
    result: RequestResult,
    undecided: Undecided,
) -> Done:
    items, wallet = request.items, request.wallet_id
    if isinstance(result, BatchCommitted):
        decided = zip(items, result.items, strict=True)
        return Done([item_result(item.command, one) for item, one in decided], result.replayed)
    if isinstance(result, Failure):
        undecided[wallet] = None
        same = _failed(result, call)
    elif isinstance(result, Refused):  # The key was used for another request in this wallet.
        same = undecided[wallet] = item_result(items[0].command, result)
    elif isinstance(result, Applied | KeyClaimed | BatchRolledBack):
        raise unexpected(result)
    else:
        assert_never(result)
    return Done([same] * len(items), replayed=False)


def _failed(failure: Failure, call: BatchContext) -> BatchResult:
    """The result of an item without a decision.

    If the key had been claimed before, an earlier request may have applied the item.
    """
    if failure.applied == "no" and call.claim is not None and call.claim.replayed:
        detail = f"{failure.detail} {_MAYBE_EARLIER}"
        failure = msgspec.structs.replace(failure, applied="unknown", detail=detail)
    return failed_result(failure_problem(failure), call.request_id)


def _chunk_idempotency(claim: Claim, wallet: str, start: int) -> commands.Idempotency:
    """The idempotency key of a chunk: a wallet's later chunks need different ones.

    The blank prevents collisions: clients' keys contain none.
    """
    key = claim.key if start == 0 else IdempotencyKey(f"{claim.key} {start}")
    return commands.Idempotency(
        key=key, fingerprint=claim.parts[wallet, start], request=claim.request
    )


_MAYBE_EARLIER: Final = (
    "An earlier request with the same key may have been applied: retry with the key to find out."
)
_NOT_STARTED: Final = (
    "The batch was not started, because its key could not be claimed in time. This request applied "
    f"nothing. {_MAYBE_EARLIER}"
)
_NOT_EXECUTED: Final = Failure(
    code=FailureCode.UNAVAILABLE,
    detail="Not executed: an earlier item of this wallet got no decision. This request did not "
    "apply it; repeat both items, in order.",
    applied="no",
)
