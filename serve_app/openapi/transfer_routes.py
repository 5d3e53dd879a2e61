"""OpenAPI specification of the transfer routes."""

from typing import Any, Final

from projections.transfer_list import TransferPageView
from serve_app.http import models
from serve_app.http.batch_requests import MultiWalletBatchBody, WalletBatchBody
from serve_app.openapi import examples
from serve_app.openapi.parameters import CREATED, METADATA_FILTER, PAGE_LIMIT, REFERENCE_SCHEMA
from serve_app.openapi.route_spec import (
    FRESHNESS,
    READ_PROBLEMS,
    WRITE_PROBLEMS,
    RequestBodySpec,
    ResponseSpec,
    RouteSpec,
    links,
    query,
)
from serve_app.openapi.shared_components import shared
from serve_app.routes import batches, reads, writes
from serve_app.routes.list_queries import TRANSFER_CURSOR_PATTERN
from serve_app.routes.ndjson import NDJSON
from wallet.representation import TransferResultView, TransferView

_CREATE_TRANSFER: Final = (
    "wallet_not_found",
    "wallet_frozen",
    "wallet_closed",
    "expiry_out_of_range",
    *WRITE_PROBLEMS,
)
_EXPIRY: Final = (
    " A pending transfer may say when it expires (`expires_at`, or `expires_in_s` from now) and "
    "what becomes of it then (`on_expiry`). From that moment on only its expiry settles it."
)
_SETTLE: Final = (
    "wallet_not_found",
    "transfer_not_found",
    "transfer_already_completed",
    "transfer_already_failed",
    *WRITE_PROBLEMS,
)


_NEXT: Final = links(
    {"wallet_id": "$response.body#/wallet_id", "transfer_id": "$response.body#/id"},
    get_transfer="Read the transfer.",
    complete_transfer="Complete the transfer if it is pending.",
    revert_transfer="Revert the transfer if it is pending.",
    refund_transfer="Refund the transfer if it is completed.",
) | links(
    {"wallet_id": "$response.body#/wallet_id", "min_version": "$response.body#/wallet/version"},
    get_wallet="Read the wallet, at least at the version of this write.",
    list_transfers="List the wallet's transfers, including this one.",
)


def _written(example: dict[str, Any]) -> ResponseSpec:
    return ResponseSpec(
        what="The transfer, and the wallet's balances after it.",
        model=TransferResultView,
        example=example,
        links=_NEXT,
    )


TRANSFER_ROUTES: Final = (
    RouteSpec(
        method="POST",
        path="/v1/wallet/{wallet_id}/transfers/debit",
        endpoint=writes.debit_wallet,
        tag="transfers",
        summary="Debit: put money INTO the wallet",
        description="Debit in the accounting sense: money goes INTO the wallet. Pending: added to "
        "pending_debit, and to the balance when completed. Completed: added to the balance."
        + _EXPIRY,
        answers={201: _written(examples.WRITTEN_DEBIT)},
        problems=("balance_out_of_range", *_CREATE_TRANSFER),
        body=RequestBodySpec(
            model=models.CreateTransferBody,
            example={"amount": "10.50", "status": "completed", "reference_id": "order-1042"},
            required=True,
        ),
    ),
    RouteSpec(
        method="POST",
        path="/v1/wallet/{wallet_id}/transfers/credit",
        endpoint=writes.credit_wallet,
        tag="transfers",
        summary="Credit: take money OUT of the wallet",
        description="Credit in the accounting sense: money goes OUT of the wallet. Requires a "
        "sufficient balance, pending or completed. Pending: moved from the balance to "
        "pending_credit; removed when completed, returned to the balance when reverted." + _EXPIRY,
        answers={201: _written(examples.WRITTEN_CREDIT)},
        problems=("insufficient_funds", *_CREATE_TRANSFER),
        body=RequestBodySpec(
            model=models.CreateTransferBody,
            example={"amount": "4.00", "reference_id": "order-1042", "expires_in_s": 604800},
            required=True,
        ),
    ),
    RouteSpec(
        method="POST",
        path="/v1/wallet/{wallet_id}/transfers/{transfer_id}/complete",
        endpoint=writes.complete_transfer,
        tag="transfers",
        summary="Complete a pending transfer",
        description="A pending debit is added to the balance; the amount held by a pending credit "
        "leaves the wallet. With `amount`, only that much is: the rest is released, as a reversal "
        "does, unless `final` is false: then it stays held. Repeating the request returns the same "
        "transfer; another amount is another request.",
        answers={200: _written(examples.COMPLETED)},
        problems=("wallet_frozen", "wallet_closed", "amount_exceeds_hold", *_SETTLE),
        body=RequestBodySpec(model=models.CompleteTransferBody, example={}),
    ),
    RouteSpec(
        method="POST",
        path="/v1/wallet/{wallet_id}/transfers/{transfer_id}/revert",
        endpoint=writes.revert_transfer,
        tag="transfers",
        summary="Revert a pending transfer",
        description="The transfer fails with failure_reason `reverted`. The amount held by a "
        "pending credit returns to the balance; a pending debit is not added to it. Repeating the "
        "request returns the same transfer.",
        answers={200: _written(examples.REVERTED)},
        problems=_SETTLE,
        body=RequestBodySpec(model=models.SettleTransferBody, example={}),
    ),
    RouteSpec(
        method="POST",
        path="/v1/wallet/{wallet_id}/transfers/{transfer_id}/refund",
        endpoint=writes.refund_transfer,
        tag="transfers",
        summary="Refund a completed transfer",
        description="Makes a transfer the other way, which names this one (`refunds`). Refunds "
        "return at most what was completed, all together; a pending refund counts until it fails. "
        "A refund of a debit is a credit and takes money OUT of the wallet, so it requires a "
        "sufficient balance. Needs an Idempotency-Key, because a repetition would refund twice. A "
        "refund can't be refunded." + _EXPIRY,
        answers={201: _written(examples.REFUND)},
        problems=(
            "transfer_not_found",
            "transfer_not_completed",
            "transfer_is_refund",
            "amount_exceeds_refundable",
            "insufficient_funds",
            "balance_out_of_range",
            *_CREATE_TRANSFER,
        ),
        body=RequestBodySpec(model=models.RefundTransferBody, example={"amount": "4.00"}),
        needs_key=True,
    ),
    RouteSpec(
        method="POST",
        path="/v1/wallet/{wallet_id}/transfers/batch",
        endpoint=batches.wallet_batch,
        tag="transfers",
        summary="Several transfers and settlements of one wallet",
        description="Up to 1,000 items, decided in order and written in one transaction. Not "
        "atomic (default): each item succeeds or is refused by itself. Atomic: the first refusal "
        "rolls back the batch. An Idempotency-Key covers the whole batch; items may have their "
        "own idempotency_key.",
        answers={
            200: ResponseSpec(
                what="One result per item, and the wallet's balances after the batch.",
                model=models.WalletBatchResults,
            )
        },
        problems=("wallet_not_found", "batch_refused", *WRITE_PROBLEMS),
        body=RequestBodySpec(
            model=WalletBatchBody,
            example={
                "items": [
                    {"type": "debit", "amount": "10.50", "status": "completed"},
                    {"type": "credit", "amount": "4.00", "idempotency_key": "order-1042"},
                ],
            },
            required=True,
        ),
    ),
    RouteSpec(
        method="POST",
        path="/v1/transfers/batch",
        endpoint=batches.multi_batch,
        tag="transfers",
        summary="Transfers and settlements of many wallets",
        description="Up to 10,000 items, each with a wallet_id: in order per wallet, wallets in "
        "parallel, not atomic. With `Content-Type: application/x-ndjson`: one item per line, any "
        "number of lines; results stream back one per line, in order, with backpressure. Read "
        "results while sending: a stream whose results are not read ends early, with "
        "`answers_not_read` as its last line. An Idempotency-Key covers the whole request. "
        "After an item without a decision, later items of its wallet may get 503 without being "
        "executed: `applied: no`, or `unknown` if the key was used before.",
        answers={
            200: ResponseSpec(
                what="One result per item.",
                model=models.MultiBatchResults,
                other_media=(NDJSON,),
            )
        },
        problems=WRITE_PROBLEMS,
        body=RequestBodySpec(
            model=MultiWalletBatchBody,
            example={
                "items": [{"wallet_id": examples.WALLET_ID, "type": "debit", "amount": "10.50"}],
            },
            required=True,
            other_media=(NDJSON,),
        ),
    ),
    RouteSpec(
        method="GET",
        path="/v1/wallet/{wallet_id}/transfers/{transfer_id}",
        endpoint=reads.get_transfer,
        tag="transfers",
        summary="Read a transfer",
        description="A debit put money INTO the wallet, a credit took money OUT of it.",
        answers={200: ResponseSpec(what="The transfer.", model=TransferView)},
        problems=("transfer_not_found", *READ_PROBLEMS),
        parameters=FRESHNESS,
    ),
    RouteSpec(
        method="GET",
        path="/v1/wallet/{wallet_id}/transfers",
        endpoint=reads.list_transfers,
        tag="transfers",
        summary="List a wallet's transfers, newest first",
        description="Pages are stable while new transfers arrive. A page shows the transfers at "
        "wallet_version. Filters can be combined. With filters a page looks at 20,000 transfers at "
        "most, so it may have fewer than `limit`, or none: the list ends where next_cursor is "
        "null. If you lost the response to a transfer without an Idempotency-Key, check "
        "this list with `consistency=strong` before you retry.",
        answers={200: ResponseSpec(what="A page of transfers.", model=TransferPageView)},
        problems=("wallet_not_found", *READ_PROBLEMS),
        parameters=(
            query(
                "status",
                "Only transfers with this status.",
                shared("TransferStatus"),
            ),
            query(
                "type",
                "Only transfers of this type.",
                shared("TransferType"),
            ),
            query("reference_id", "Only transfers with this reference_id.", REFERENCE_SCHEMA),
            query(
                "refunds",
                "Only refunds of the transfer with this id.",
                {"type": "string", "format": "uuid"},
            ),
            query("amount_min", "Only transfers of at least this amount.", shared("Limit")),
            query("amount_max", "Only transfers of at most this amount.", shared("Limit")),
            *CREATED,
            METADATA_FILTER,
            PAGE_LIMIT,
            query(
                "cursor",
                "next_cursor of the previous page.",
                {"type": "string", "pattern": TRANSFER_CURSOR_PATTERN},
            ),
            *FRESHNESS,
        ),
    ),
)
