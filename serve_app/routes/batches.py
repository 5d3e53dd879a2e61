"""The batch routes: many transfers and settlements in one request."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from actors.protocol import Reply
from serve_app import batch_items
from serve_app.batch_answers import (
    batch_body,
    batch_response,
    failed_result,
    item_result,
    raise_if_not_decided,
)
from serve_app.batch_items import BatchItem, WalletBatchItem
from serve_app.fingerprints import batch_fingerprint
from serve_app.keys.admission import count_items, go_on, made_by
from serve_app.problems import FieldError, Problem, validation_problem
from serve_app.replies import failure_problem
from serve_app.requests import (
    idempotency_key_of,
    read_body,
    read_lines,
    request_id_of,
    timeout_of,
    wallet_id_of,
)
from serve_app.services import Services, services_of
from wallet import commands
from wallet.ids import IdempotencyKey, WalletId, canonical_uuid, new_id

NDJSON: Final = "application/x-ndjson"

PORTION: Final = 1_000
"""Items of one wallet in one transaction. No setting: the keys of a wallet's later portions
depend on it, and a retry must find them again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    """What every part of one request shares."""

    services: Services
    request_id: str
    timeout_s: float
    """For a batch as a whole; for a stream, each portion of it."""
    key: IdempotencyKey | None = None
    made_by: str | None = None
    """Id of the API key."""


async def wallet_batch(request: Request) -> Response:
    """Several transfers and settlements of one wallet, in order, in one transaction."""
    services = services_of(request)
    wallet_id, key = wallet_id_of(request), idempotency_key_of(request)
    body = await read_body(request, services.settings.batch_body_bytes_max)
    if (full := services.dispatcher.refusal(wallet_id)) is not None:
        raise failure_problem(full)  # Before a thousand items are looked at.
    batch = batch_items.decode(batch_items.wallet_batch, body or b"{}")
    batch_items.require_count(len(batch.items), services.settings.batch_items_max)
    items = batch_items.to_items(batch.items, _pointers(len(batch.items)))
    _require_own_key(key, batch.items)
    count_items(request, len(items))
    keyed = key and commands.Keyed(
        key=key, fingerprint=batch_fingerprint(items, atomic=batch.atomic)
    )
    reply = await services.dispatcher.submit(
        commands.Submission(
            wallet_id=wallet_id,
            items=items,
            request_id=request_id_of(request),
            timeout_s=timeout_of(request, services.settings),
            atomic=batch.atomic,
            several=True,
            keyed=keyed or None,
            made_by=made_by(request),
        )
    )
    raise_if_not_decided(reply)
    results = (
        item_result(item.command, answer) for item, answer in zip(items, reply.answers, strict=True)
    )
    return batch_response(batch_body(results, reply.wallet), replayed=reply.replayed)


def _pointers(count: int) -> list[str]:
    return [f"/items/{index}" for index in range(count)]


def _require_own_key(key: IdempotencyKey | None, items: Sequence[BatchItem]) -> None:
    """One key names one request: the batch's can't be an item's as well."""
    if key is None:
        return
    for index, item in enumerate(items):
        if item.idempotency_key == key:
            raise validation_problem(
                FieldError(
                    pointer=f"/items/{index}/idempotency_key",
                    detail="send another key than the batch's Idempotency-Key",
                )
            )


async def multi_batch(request: Request) -> Response:
    """Transfers and settlements of many wallets, each wallet's in order and on its own."""
    services = services_of(request)
    call = _Call(
        services=services,
        request_id=request_id_of(request),
        timeout_s=timeout_of(request, services.settings),
        key=idempotency_key_of(request),
        made_by=made_by(request),
    )
    declared = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if declared == NDJSON:
        return _stream_response(call, request)
    body = await read_body(request, services.settings.batch_body_bytes_max)
    batch = batch_items.decode(batch_items.multi_batch, body or b"{}")
    batch_items.require_count(len(batch.items), services.settings.multi_batch_items_max)
    _require_own_key(call.key, batch.items)
    items = batch_items.to_items(batch.items, _pointers(len(batch.items)))
    count_items(request, len(items))
    results = await _submit_by_wallet(call, batch.items, items)
    return batch_response(batch_body(results), replayed=False)


def _stream_response(call: _Call, request: Request) -> Response:
    if call.key is not None:
        raise validation_problem(
            FieldError(
                pointer="#header/Idempotency-Key",
                detail="a stream has no end to fingerprint: give each item an idempotency_key",
            )
        )
    return _TwoWayStream(_stream(call, request), media_type=NDJSON)


async def _submit_by_wallet(
    call: _Call, asked: Sequence[WalletBatchItem], items: Sequence[commands.Item]
) -> list[bytes]:
    """Each wallet's items as submissions of their own, all at once; results in request order."""
    places: dict[str | None, list[int]] = {}
    for index, item in enumerate(asked):
        # One wallet, however its id is spelled: its items stay in order.
        places.setdefault(canonical_uuid(item.wallet_id), []).append(index)
    results: list[bytes] = [b""] * len(asked)
    clock = asyncio.get_running_loop().time
    deadline = clock() + call.timeout_s

    async def submit(wallet: str | None, indexes: list[int]) -> None:
        for start in range(0, len(indexes), PORTION):
            part = indexes[start : start + PORTION]
            portion = replace(
                call, key=_portion_key(call.key, start), timeout_s=max(deadline - clock(), 0.0)
            )
            made = await _submit_part(portion, wallet, [items[index] for index in part])
            for index, result in zip(part, made, strict=True):
                results[index] = result

    await asyncio.gather(*(submit(wallet, indexes) for wallet, indexes in places.items()))
    return results


def _portion_key(key: IdempotencyKey | None, start: int) -> IdempotencyKey | None:
    """A wallet's later portions are requests of their own to the key's uniqueness.

    The blank keeps their keys apart from every client's: those have none.
    """
    return key if key is None or start == 0 else IdempotencyKey(f"{key} {start}")


async def _submit_part(
    call: _Call, wallet: str | None, items: Sequence[commands.Item]
) -> list[bytes]:
    if wallet is None:
        problem = Problem("wallet_not_found", "There is no wallet with this id.")
        return [failed_result(problem, call.request_id)] * len(items)
    keyed = call.key and commands.Keyed(key=call.key, fingerprint=batch_fingerprint(items))
    reply = await call.services.dispatcher.submit(
        commands.Submission(
            wallet_id=WalletId(wallet),
            items=tuple(items),
            request_id=call.request_id,
            timeout_s=call.timeout_s,
            several=True,
            keyed=keyed or None,
            made_by=call.made_by,
        )
    )
    return _results(reply, call.request_id, [item.command for item in items])


def _results(reply: Reply, request_id: str, asked: Sequence[commands.Command]) -> list[bytes]:
    if reply.failure is not None:
        return [failed_result(failure_problem(reply.failure), request_id)] * len(asked)
    if not reply.several:  # The key came with another request before: so it is for every item.
        return [item_result(command, reply.answers[0]) for command in asked]
    return [
        item_result(command, answer, replayed=reply.replayed)
        for command, answer in zip(asked, reply.answers, strict=True)
    ]


class _TwoWayStream(StreamingResponse):
    """Sends while the request still comes.

    The class it comes from may listen for the client's disconnection, and swallow the body so.
    """

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        await self.stream_response(send)


async def _stream(call: _Call, request: Request) -> AsyncIterator[bytes]:
    """NDJSON in, NDJSON out: a result a line, in order, as long as lines come.

    One portion is under way at a time, and the next is not read before it is answered: a slow
    database slows the sender down, and memory holds one portion.
    """
    settings = call.services.settings
    try:
        async for lines in read_lines(
            request,
            line_bytes_max=settings.body_bytes_max,
            portion_max=settings.batch_items_max,
        ):
            await go_on(request, len(lines), wait_max_s=call.timeout_s)
            for result in await _submit_lines(call, lines):
                yield result + b"\n"
    except Problem as problem:
        yield failed_result(problem, call.request_id) + b"\n"
    except ClientDisconnect:
        return  # what came before is applied, and nobody is there to be told


async def _submit_lines(call: _Call, lines: Sequence[bytes]) -> list[bytes]:
    results: list[bytes] = [b""] * len(lines)
    asked: list[WalletBatchItem] = []
    items: list[commands.Item] = []
    places: list[int] = []
    for index, line in enumerate(lines):
        try:
            item = batch_items.decode(batch_items.one_item, line)
            items.extend(batch_items.to_items([item], [""]))
        except Problem as problem:
            results[index] = failed_result(problem, call.request_id)
            continue
        asked.append(item)
        places.append(index)
    # Each portion is a delivery of its own: its request id must not look like an earlier one's.
    portion = replace(call, request_id=f"{call.request_id}/{new_id()}")
    made = await _submit_by_wallet(portion, asked, items)
    for index, result in zip(places, made, strict=True):
        results[index] = result
    return results
