"""Example responses of the OpenAPI document. A test validates each against its schema."""

from typing import Any, Final

from projections.transfer_list import TransferPageView
from serve_app.http import models
from serve_app.http.problems import PROBLEM_TYPES
from serve_app.openapi.components import Model
from wallet.event_codec import SOURCE
from wallet.journal_views import JournalPageView
from wallet.representation import (
    TransferResultView,
    TransferView,
    WalletChangedView,
    WalletView,
)
from wallet.statement import StatementView

Json = dict[str, Any]

WALLET_ID: Final = "0192f0c1-2d3e-7a4b-8c5d-6e7f8a9b0c1d"
TRANSFER_ID: Final = "0192f0c1-3b5a-7c1d-9e2f-4a6b8c0d2e1f"
REQUEST_ID: Final = "0192f0c1-4c6d-7e8f-8a1b-2c3d4e5f6a7b"

_OPENED: Final = "2026-01-02T03:04:05.678900Z"
_LATER: Final = "2026-01-02T03:04:06Z"

WALLET: Final[Json] = {
    "id": WALLET_ID,
    "reference_id": "customer-17",
    "currency": "USD",
    "scale": 2,
    "status": "active",
    "balance": "6.50",
    "pending_credit": "4.00",
    "pending_debit": "0.00",
    "version": 3,
    "metadata": {"channel": "web"},
    "created_at": _OPENED,
    "updated_at": _LATER,
    "overdraft_limit": "0.00",
    "frozen": None,
    "frozen_reason": None,
}

UPDATED_WALLET: Final[Json] = WALLET | {
    "version": 4,
    "metadata": {"channel": "app"},
    "overdraft_limit": "100.00",
    "reason": None,
}

FROZEN_WALLET: Final[Json] = UPDATED_WALLET | {
    "version": 5,
    "status": "frozen",
    "frozen": "credit",
    "frozen_reason": "card reported as stolen",
    "reason": "card reported as stolen",
}

CLOSED_WALLET: Final[Json] = UPDATED_WALLET | {
    "version": 6,
    "status": "closed",
    "balance": "0.00",
    "pending_credit": "0.00",
    "reason": "contract ended",
}

NEW_WALLET: Final[Json] = WALLET | {
    "balance": "0.00",
    "pending_credit": "0.00",
    "version": 1,
    "updated_at": _OPENED,
}

_CREDIT: Final[Json] = {
    "id": TRANSFER_ID,
    "wallet_id": WALLET_ID,
    "type": "credit",
    "status": "pending",
    "amount": "4.00",
    "currency": "USD",
    "reference_id": "order-1042",
    "metadata": {},
    "failure_reason": None,
    "created_at": _LATER,
    "settled_at": None,
    "effect": "out",
}

_DEBIT: Final[Json] = _CREDIT | {
    "type": "debit",
    "status": "completed",
    "amount": "10.50",
    "settled_at": _LATER,
    "effect": "in",
}


def _after(version: int, balance: str, pending_credit: str) -> Json:
    return {
        "wallet": {
            "version": version,
            "balance": balance,
            "pending_credit": pending_credit,
            "pending_debit": "0.00",
        },
    }


WRITTEN_DEBIT: Final[Json] = _DEBIT | _after(2, "10.50", "0.00")
WRITTEN_CREDIT: Final[Json] = _CREDIT | _after(3, "6.50", "4.00")
COMPLETED: Final[Json] = (
    _CREDIT | {"status": "completed", "settled_at": _LATER} | _after(4, "6.50", "0.00")
)
REVERTED: Final[Json] = (
    _CREDIT
    | {"status": "failed", "failure_reason": "reverted", "settled_at": _LATER}
    | _after(4, "10.50", "0.00")
)

REFUND: Final[Json] = (
    _DEBIT
    | {"amount": "4.00", "refunds": "0192f0c1-1a2b-7c3d-8e4f-5a6b7c8d9e0f", "reference_id": None}
    | _after(5, "10.50", "0.00")
    | {"refunded_transfer": {"refunded_amount": "4.00", "refund_pending_amount": "0.00"}}
)


EVENT: Final[Json] = {
    "specversion": "1.0",
    "id": f"{WALLET_ID}:3:7c1e0a52b4d96f38a1c2e4f60718293a",
    "source": SOURCE,
    "type": "transfer.pending",
    "subject": WALLET_ID,
    "time": _LATER,
    "datacontenttype": "application/json",
    "walletversion": 3,
    "hash": "7c1e0a52b4d96f38a1c2e4f60718293a",
    "previoushash": "0b3d5f7190a2b4c6d8eafc0e20324456",
    "data": WRITTEN_CREDIT,
}

JOURNAL_PAGE: Final[Json] = {
    "items": [
        {
            "event": EVENT,
            "wallet": WRITTEN_CREDIT["wallet"],
            "made_by": "9f86d081884c7d65",
        }
    ],
    "next_version": None,
    "wallet_version": 3,
}


STATEMENT: Final[Json] = {
    "wallet_id": WALLET_ID,
    "currency": "USD",
    "from": "2026-01-01T00:00:00Z",
    "to": "2026-02-01T00:00:00Z",
    "opening": {
        "version": 0,
        "balance": "0.00",
        "pending_credit": "0.00",
        "pending_debit": "0.00",
    },
    "entries": [
        {
            "version": 2,
            "time": _LATER,
            "event": "transfer.completed",
            "transfer_id": TRANSFER_ID,
            "type": "debit",
            "effect": "in",
            "amount": "10.50",
            "balance_change": "10.50",
            "balance": "10.50",
            "pending_credit": "0.00",
            "pending_debit": "0.00",
            "reference_id": "order-1042",
        }
    ],
    "entry_count": 1,
    "closing": WRITTEN_DEBIT["wallet"],
}


def problem(code: str) -> Json:
    """A problem document."""
    problem_type = PROBLEM_TYPES[code]
    example: Json = {
        "type": f"/problems/{code}",
        "title": problem_type.title,
        "status": problem_type.status,
        "detail": problem_type.remedy,
        "code": code,
        "request_id": REQUEST_ID,
    }
    if code == "validation_error":
        example["errors"] = [{"pointer": "/amount", "detail": 'send a decimal string like "10.50"'}]
    if code == "batch_refused":
        example["errors"] = [
            {"pointer": "/items/1", "detail": "insufficient_funds: the wallet has 10.50"}
        ]
    if code in ("unavailable", "history_forked", "deadline_exceeded"):
        example["applied"] = "unknown"
    return example


def problem_kind(code: str) -> Json:
    """The explanation of a problem type."""
    problem_type = PROBLEM_TYPES[code]
    return {
        "type": f"/problems/{code}",
        "code": code,
        "status": problem_type.status,
        "title": problem_type.title,
        "remedy": problem_type.remedy,
    }


_RESULTS: Final[list[Json]] = [
    {"status": 201, "transfer": WRITTEN_DEBIT},
    {"status": 409, "problem": problem("insufficient_funds")},
]

_LINKS: Final[Json] = {
    "docs": "/docs",
    "openapi": "/openapi.json",
    "openapi_3_0": "/openapi-3.0.json",
    "problems": "/problems",
    "health": "/healthz",
    "readiness": "/readyz",
    "stream": "WALLET_EVENTS",
    "stream_server": "nats://127.0.0.1:4222",
}

_READY: Final[Json] = {
    "ready": True,
    "components": {
        "postgres": {"ready": True, "detail": "responds"},
        "nats": {"ready": True, "detail": "publishing, 0 events in the outbox"},
        "shards": {"ready": True, "detail": "2 of 2, 0 commands queued"},
        "projections": {"ready": True, "detail": "1 of 1, lag 0 events"},
    },
}

NOT_READY: Final[Json] = {
    "ready": False,
    "components": {
        **_READY["components"],
        "nats": {"ready": False, "detail": "unreachable, writes continue, 12 events in the outbox"},
    },
}

EXAMPLES_BY_MODEL: Final[dict[Model, Json]] = {
    WalletView: WALLET,
    models.WalletList: {"items": [WALLET], "next_cursor": None},
    WalletChangedView: UPDATED_WALLET,
    TransferView: _CREDIT,
    TransferPageView: {
        "items": [_CREDIT, _DEBIT],
        "next_cursor": "AAAAAAAAAAI",
        "wallet_version": 3,
    },
    TransferResultView: WRITTEN_CREDIT,
    JournalPageView: JOURNAL_PAGE,
    StatementView: STATEMENT,
    models.WalletBatchResults: {"items": _RESULTS, "wallet": WRITTEN_DEBIT["wallet"]},
    models.MultiBatchResults: {"items": _RESULTS},
    models.ServiceLinks: _LINKS,
    models.Health: {"status": "ok"},
    models.NotHealthy: {"status": "no shard can be reached"},
    models.Readiness: _READY,
    models.ProblemKind: problem_kind("insufficient_funds"),
    models.ProblemKindList: {"items": [problem_kind("insufficient_funds")]},
}
"""Default example of a response, by model."""
