"""The batch routes: many transfers and settlements in one request."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Final

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

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
from serve_app.many_wallets import Call, Undecided, by_wallet, claim_key, submit_by_wallet
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
from serve_app.services import services_of
from wallet import commands
from wallet.ids import IdempotencyKey, new_id

NDJSON: Final = "application/x-ndjson"

UNDECIDED_MAX: Final = 10_000
"""Wallets without a decision that a stream remembers; with more of them it ends."""


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
    keyed = None
    if key is not None:
        fingerprint = batch_fingerprint(items, atomic=batch.atomic)
        keyed = commands.Keyed(key=key, fingerprint=fingerprint, request=fingerprint)
    reply = await services.dispatcher.submit(
        commands.Submission(
            wallet_id=wallet_id,
            items=items,
            request_id=request_id_of(request),
            timeout_s=timeout_of(request, services.settings),
            atomic=batch.atomic,
            several=True,
            keyed=keyed,
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
    services, key = services_of(request), idempotency_key_of(request)
    call = Call(
        services=services,
        request_id=request_id_of(request),
        timeout_s=timeout_of(request, services.settings),
        made_by=made_by(request),
    )
    declared = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if declared == NDJSON:
        return _stream_response(call, request, key)
    body = await read_body(request, services.settings.batch_body_bytes_max)
    batch = batch_items.decode(batch_items.multi_batch, body or b"{}")
    batch_items.require_count(len(batch.items), services.settings.multi_batch_items_max)
    _require_own_key(key, batch.items)
    items = batch_items.to_items(batch.items, _pointers(len(batch.items)))
    count_items(request, len(items))
    places = by_wallet(batch.items)
    if key is not None:
        call = await claim_key(call, key, places, batch.items, items)
    done = await submit_by_wallet(call, places, items, undecided={})
    return batch_response(batch_body(done.results), replayed=done.replayed)


def _stream_response(call: Call, request: Request, key: IdempotencyKey | None) -> Response:
    if key is not None:
        raise validation_problem(
            FieldError(
                pointer="#header/Idempotency-Key",
                detail="a stream has no end to fingerprint: give each item an idempotency_key",
            )
        )
    return _TwoWayStream(_stream(call, request), media_type=NDJSON)


_TOO_MANY_UNDECIDED: Final = (
    f"The stream ends here: more than {UNDECIDED_MAX:,} wallets got no decision. No later line was "
    "executed."
)


class _TwoWayStream(StreamingResponse):
    """Sends while the request still comes.

    The class it comes from may listen for the client's disconnection, and swallow the body so.
    """

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        await self.stream_response(send)


async def _stream(call: Call, request: Request) -> AsyncIterator[bytes]:
    """NDJSON in, NDJSON out: a result a line, in order, as long as lines come.

    One portion is under way at a time, and the next is not read before it is answered: a slow
    database slows the sender down, and memory holds one portion.
    """
    settings = call.services.settings
    undecided: Undecided = {}
    try:
        async for lines in read_lines(
            request,
            line_bytes_max=settings.body_bytes_max,
            portion_max=settings.batch_items_max,
        ):
            await go_on(request, len(lines), wait_max_s=call.timeout_s)
            for result in await _submit_lines(call, lines, undecided):
                yield result + b"\n"
            if len(undecided) > UNDECIDED_MAX:
                problem = Problem("unavailable", _TOO_MANY_UNDECIDED, applied="no")
                yield failed_result(problem, call.request_id) + b"\n"
                return
    except Problem as problem:
        yield failed_result(problem, call.request_id) + b"\n"
    except ClientDisconnect:
        return  # what came before is applied, and nobody is there to be told


async def _submit_lines(call: Call, lines: Sequence[bytes], undecided: Undecided) -> list[bytes]:
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
    done = await submit_by_wallet(portion, by_wallet(asked), items, undecided=undecided)
    for index, result in zip(places, done.results, strict=True):
        results[index] = result
    return results
