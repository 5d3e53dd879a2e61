"""Batch routes: many transfers and settlements in one request."""

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response

from serve_app.auth.authenticated_request import api_key_id_of, count_items
from serve_app.dependencies import dependencies_of
from serve_app.http import batch_requests
from serve_app.http.batch_requests import BatchItem
from serve_app.http.batch_responses import (
    batch_body,
    batch_response,
    committed_batch,
    item_result,
)
from serve_app.http.fingerprints import batch_fingerprint
from serve_app.http.problems import FieldError, validation_problem
from serve_app.http.requests import (
    idempotency_key_of,
    read_body,
    request_id_of,
    timeout_of,
    wallet_id_of,
)
from serve_app.http.responses import failure_problem
from serve_app.routes.multi_wallet_batch import BatchContext, by_wallet, claim_key, submit_by_wallet
from serve_app.routes.ndjson import NDJSON, ndjson_response
from wallet import commands
from wallet.ids import IdempotencyKey


async def wallet_batch(request: Request) -> Response:
    """Several transfers and settlements of one wallet, in order, in one transaction."""
    services = dependencies_of(request)
    wallet_id, key = wallet_id_of(request), idempotency_key_of(request)
    body = await read_body(request, services.settings.batch_body_bytes_max)
    if (overload := services.dispatcher.overload(wallet_id)) is not None:
        raise failure_problem(overload)  # Before decoding up to a thousand items.
    batch = batch_requests.decode(batch_requests.wallet_batch, body or b"{}")
    batch_requests.check_item_count(len(batch.items), services.settings.batch_items_max)
    items = batch_requests.to_commands(
        batch.items, _pointers(len(batch.items)), has_key=key is not None
    )
    _require_own_key(key, batch.items)
    count_items(request, len(items))
    idempotency = None
    if key is not None:
        fingerprint = batch_fingerprint(items, atomic=batch.atomic)
        idempotency = commands.Idempotency(key=key, fingerprint=fingerprint, request=fingerprint)
    result = await services.dispatcher.submit(
        commands.CommandRequest(
            wallet_id=wallet_id,
            items=items,
            request_id=request_id_of(request),
            timeout_s=timeout_of(request, services.settings),
            atomic=batch.atomic,
            is_batch=True,
            idempotency=idempotency,
            api_key_id=api_key_id_of(request),
        )
    )
    committed = committed_batch(result)
    results = (
        item_result(item.command, one) for item, one in zip(items, committed.items, strict=True)
    )
    return batch_response(batch_body(results, committed.wallet), replayed=committed.replayed)


def _pointers(count: int) -> list[str]:
    return [f"/items/{index}" for index in range(count)]


def _require_own_key(key: IdempotencyKey | None, items: Sequence[BatchItem]) -> None:
    """Reject an item that has the batch's Idempotency-Key as its own."""
    if key is None:
        return
    for index, item in enumerate(items):
        if item.idempotency_key == key:
            raise validation_problem(
                FieldError(
                    pointer=f"/items/{index}/idempotency_key",
                    detail="must differ from the batch's Idempotency-Key",
                )
            )


async def multi_batch(request: Request) -> Response:
    """Transfers and settlements of many wallets: in order per wallet, wallets independent."""
    services, key = dependencies_of(request), idempotency_key_of(request)
    call = BatchContext(
        services=services,
        request_id=request_id_of(request),
        timeout_s=timeout_of(request, services.settings),
        api_key_id=api_key_id_of(request),
    )
    declared = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if declared == NDJSON:
        return _stream_response(call, request, key)
    body = await read_body(request, services.settings.batch_body_bytes_max)
    batch = batch_requests.decode(batch_requests.multi_batch, body or b"{}")
    batch_requests.check_item_count(len(batch.items), services.settings.multi_batch_items_max)
    _require_own_key(key, batch.items)
    items = batch_requests.to_commands(
        batch.items, _pointers(len(batch.items)), has_key=key is not None
    )
    count_items(request, len(items))
    positions = by_wallet(batch.items)
    if key is not None:
        call = await claim_key(call, key, positions, batch.items, items)
    done = await submit_by_wallet(call, positions, items, undecided={})
    return batch_response(batch_body(done.results), replayed=done.replayed)


def _stream_response(call: BatchContext, request: Request, key: IdempotencyKey | None) -> Response:
    if key is not None:
        raise validation_problem(
            FieldError(
                pointer="#header/Idempotency-Key",
                detail="not supported for a stream: give each item an idempotency_key",
            )
        )
    return ndjson_response(call, request)
