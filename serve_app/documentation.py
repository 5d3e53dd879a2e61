"""The API's description of itself: every route, every answer, every problem.

`ROUTES` is the table of routes; the OpenAPI document (/openapi.json,
``specification/openapi.json``) is made from it and from `serve_app.schemas`.
"""

from dataclasses import dataclass, field
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from serve_app import schemas
from serve_app.direct_route import DirectRoute, Endpoint
from serve_app.problems import CATALOGUE, PROBLEM_JSON
from serve_app.routes import batches, reads, service, writes
from wallet.contract import (
    IDEMPOTENCY_KEY_MAX,
    PAGE_LIMIT_DEFAULT,
    PAGE_LIMIT_MAX,
    REFERENCE_ID_MAX,
    REQUEST_ID_MAX,
    VISIBLE_ASCII_PATTERN,
)

API_VERSION: Final = "1.0.0"

DESCRIPTION: Final = """
Wallets for people who move money.

**Debit puts money INTO a wallet, credit takes money OUT of it** (accounting terms, and the reverse
of what some products use).

A transfer is created `pending` (hold now, complete or revert later) or `completed` (done at
once). Amounts are decimal strings with the currency's decimals: `"10.50"`. Every POST takes an
`Idempotency-Key`; repeating a request under its key gives the same answer and moves nothing twice.
Every answer to a write tells the wallet's balances and version after it; pass that version as
`min_version` to read your own write. Every error is a problem document (RFC 9457) with a
stable `code`, explained at `/problems/{code}`.
"""

TAGS: Final = [
    {"name": "wallets", "description": "Open and read wallets."},
    {
        "name": "transfers",
        "description": "Put money in (debit), take money out (credit), settle what is pending.",
    },
    {"name": "service", "description": "Health, readiness, and what problems mean."},
]


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteDoc:
    """A route and everything that its description says."""

    method: str
    path: str
    endpoint: Endpoint
    tag: str
    summary: str
    answers: dict[int, tuple[str, type[BaseModel] | None]]
    problems: tuple[str, ...] = ()
    description: str = ""
    body: type[BaseModel] | None = None
    body_required: bool = False
    body_example: dict[str, Any] = field(default_factory=dict)
    query: tuple[dict[str, Any], ...] = ()

    def as_route(self) -> DirectRoute:
        return DirectRoute(
            self.path,
            self.endpoint,
            methods=[self.method],
            name=self.endpoint.__name__,
            operation_id=self.endpoint.__name__,
            tags=[self.tag],
            summary=self.summary,
            description=self.description or None,
            status_code=min(self.answers),
            openapi_extra=self._extra(),
        )

    @property
    def models(self) -> list[type[BaseModel]]:
        models = [model for _, model in self.answers.values() if model is not None]
        return [*models, self.body] if self.body is not None else models

    def _extra(self) -> dict[str, Any]:
        extra: dict[str, Any] = {
            "parameters": [*self._parameters()],
            "responses": self._responses(),
        }
        if self.body is not None:
            media: dict[str, Any] = {"schema": _reference(self.body)}
            if self.body_example:
                media["example"] = self.body_example
            extra["requestBody"] = {
                "required": self.body_required,
                "content": {"application/json": media},
            }
        return extra

    def _parameters(self) -> list[dict[str, Any]]:
        named = [_PATH_PARAMETERS[name] for name in _PATH_PARAMETERS if f"{{{name}}}" in self.path]
        headers = [_REQUEST_ID]
        if self.method == "POST":
            headers += [_IDEMPOTENCY_KEY, _TIMEOUT]
        return [*named, *self.query, *headers]

    def _responses(self) -> dict[str, Any]:
        responses: dict[str, Any] = {}
        for status, (description, model) in self.answers.items():
            responses[str(status)] = {
                "description": description,
                "headers": self._headers(status),
                **(
                    {"content": {"application/json": {"schema": _reference(model)}}}
                    if model
                    else {}
                ),
            }
        by_status: dict[int, list[str]] = {}
        for code in self.problems:
            by_status.setdefault(CATALOGUE[code].status, []).append(code)
        for status, codes in by_status.items():
            if str(status) not in responses:
                responses[str(status)] = _problem_answer(status, codes)
        return responses

    def _headers(self, status: int) -> dict[str, Any]:
        headers = {"X-Request-Id": _HEADERS["X-Request-Id"]}
        if self.method == "POST":
            headers["Idempotency-Replayed"] = _HEADERS["Idempotency-Replayed"]
        if status == 201:
            headers["Location"] = _HEADERS["Location"]
        if "ETag" in self.description:
            headers["ETag"] = _HEADERS["ETag"]
        return headers


def _reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{model.__name__}"}


def _problem_answer(status: int, codes: list[str]) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "description": " · ".join(f"`{code}`: {CATALOGUE[code].title}" for code in codes),
        "headers": {"X-Request-Id": _HEADERS["X-Request-Id"]},
        "content": {
            PROBLEM_JSON: {
                "schema": _reference(schemas.Problem),
                "examples": {code: {"value": _problem_example(code)} for code in codes},
            }
        },
    }
    if status in (429, 503):
        answer["headers"]["Retry-After"] = _HEADERS["Retry-After"]
    return answer


def _problem_example(code: str) -> dict[str, Any]:
    kind = CATALOGUE[code]
    example: dict[str, Any] = {
        "type": f"/problems/{code}",
        "title": kind.title,
        "status": kind.status,
        "detail": kind.remedy,
        "code": code,
        "request_id": "0192f0c1-2d3e-7a4b-8c5d-6e7f8a9b0c1d",
    }
    if code == "validation_error":
        example["errors"] = [{"pointer": "/amount", "detail": 'send a decimal string like "10.50"'}]
    if code in ("unavailable", "deadline_exceeded"):
        example["applied"] = "unknown"
    return example


_UUID_SCHEMA: Final = {"type": "string", "format": "uuid"}

_PATH_PARAMETERS: Final[dict[str, dict[str, Any]]] = {
    "wallet_id": {
        "name": "wallet_id",
        "in": "path",
        "required": True,
        "description": "Id of the wallet (UUID).",
        "schema": _UUID_SCHEMA,
    },
    "transfer_id": {
        "name": "transfer_id",
        "in": "path",
        "required": True,
        "description": "Id of the transfer (UUID).",
        "schema": _UUID_SCHEMA,
    },
    "code": {
        "name": "code",
        "in": "path",
        "required": True,
        "description": "Code of a problem.",
        "schema": {"type": "string"},
    },
}

_REQUEST_ID: Final[dict[str, Any]] = {
    "name": "X-Request-Id",
    "in": "header",
    "required": False,
    "description": "Yours, or minted; returned in the answer and written to the logs.",
    "schema": {
        "type": "string",
        "minLength": 1,
        "maxLength": REQUEST_ID_MAX,
        "pattern": VISIBLE_ASCII_PATTERN,
    },
}

_IDEMPOTENCY_KEY: Final[dict[str, Any]] = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Makes the request safe to repeat: the same key and request give the same "
    "status and body again (`Idempotency-Replayed: true`), another request under the same key "
    "is refused. Unique per wallet; for a wallet's creation, per service.",
    "schema": {
        "type": "string",
        "minLength": 1,
        "maxLength": IDEMPOTENCY_KEY_MAX,
        "pattern": VISIBLE_ASCII_PATTERN,
    },
}

_TIMEOUT: Final[dict[str, Any]] = {
    "name": "X-Request-Timeout-Ms",
    "in": "header",
    "required": False,
    "description": "How long you wait, in milliseconds. What can't be decided by then is refused.",
    "schema": {"type": "integer", "minimum": 1, "maximum": 60_000},
}

_HEADERS: Final[dict[str, dict[str, Any]]] = {
    "X-Request-Id": {
        "description": "Names this request in the logs.",
        "schema": {"type": "string"},
    },
    "Idempotency-Replayed": {
        "description": "`true`: this answer was given before under the same key.",
        "schema": {"type": "string", "enum": ["true"]},
    },
    "Location": {"description": "Path of what was created.", "schema": {"type": "string"}},
    "ETag": {"description": "The wallet's version.", "schema": {"type": "string"}},
    "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}},
}


def _query(name: str, description: str, schema: dict[str, Any], *, required: bool = False) -> Any:
    return {
        "name": name,
        "in": "query",
        "required": required,
        "description": description,
        "schema": schema,
    }


_ANYWHERE: Final = ("internal_error",)
_READ: Final = ("validation_error", "unavailable", *_ANYWHERE)
_WRITE: Final = (
    "malformed_json",
    "body_too_large",
    "unsupported_media_type",
    "validation_error",
    "idempotency_key_reused",
    "overloaded",
    "unavailable",
    "deadline_exceeded",
    *_ANYWHERE,
)
_CREATE_TRANSFER: Final = ("wallet_not_found", "wallet_frozen", "wallet_closed", *_WRITE)
_SETTLE: Final = (
    "wallet_not_found",
    "transfer_not_found",
    "transfer_already_completed",
    "transfer_already_failed",
    *_WRITE,
)

ROUTES: Final = (
    RouteDoc(
        method="POST",
        path="/v1/wallet/{wallet_id}/transfers/debit",
        endpoint=writes.debit_wallet,
        tag="transfers",
        summary="Debit: put money INTO the wallet",
        description="Debit in the accounting sense: money goes INTO the wallet. Pending: announced "
        "in pending_debit, in the balance once completed. Completed: in the balance at once.",
        answers={201: ("The transfer, and the wallet after it.", schemas.WrittenTransfer)},
        problems=("balance_out_of_range", *_CREATE_TRANSFER),
        body=schemas.CreateTransfer,
        body_required=True,
        body_example={"amount": "10.50", "status": "completed"},
    ),
    RouteDoc(
        method="POST",
        path="/v1/wallet/{wallet_id}/transfers/credit",
        endpoint=writes.credit_wallet,
        tag="transfers",
        summary="Credit: take money OUT of the wallet",
        description="Credit in the accounting sense: money goes OUT of the wallet. Needs that much "
        "balance, pending or not. Pending: held at once in pending_credit, gone once completed, "
        "back in the balance if reverted.",
        answers={201: ("The transfer, and the wallet after it.", schemas.WrittenTransfer)},
        problems=("insufficient_funds", *_CREATE_TRANSFER),
        body=schemas.CreateTransfer,
        body_required=True,
        body_example={"amount": "4.00"},
    ),
    RouteDoc(
        method="POST",
        path="/v1/wallet/{wallet_id}/transfers/{transfer_id}/complete",
        endpoint=writes.complete_transfer,
        tag="transfers",
        summary="Complete a pending transfer",
        description="A pending debit's money arrives in the balance; a pending credit's hold is "
        "gone for good. Repeating it answers with the same transfer.",
        answers={200: ("The transfer, and the wallet after it.", schemas.WrittenTransfer)},
        problems=("wallet_frozen", "wallet_closed", *_SETTLE),
        body=schemas.SettleTransfer,
    ),
    RouteDoc(
        method="POST",
        path="/v1/wallet/{wallet_id}/transfers/{transfer_id}/revert",
        endpoint=writes.revert_transfer,
        tag="transfers",
        summary="Revert a pending transfer",
        description="The transfer fails with failure_reason `reverted`: a pending credit's hold "
        "returns to the balance, a pending debit never arrives. Repeating it answers with the "
        "same transfer.",
        answers={200: ("The transfer, and the wallet after it.", schemas.WrittenTransfer)},
        problems=_SETTLE,
        body=schemas.SettleTransfer,
    ),
    RouteDoc(
        method="POST",
        path="/v1/wallet/{wallet_id}/transfers/batch",
        endpoint=batches.wallet_batch,
        tag="transfers",
        summary="Several transfers and settlements of one wallet",
        description="Up to 1,000 items, decided in order and written in one transaction. Not "
        "atomic (default): each item on its own. Atomic: the first refusal undoes all of it. An "
        "Idempotency-Key covers the batch as a whole; items may have keys of their own.",
        answers={200: ("A result an item, and the wallet after them.", schemas.WalletBatchResults)},
        problems=("wallet_not_found", "batch_refused", *_WRITE),
        body=schemas.WalletBatch,
        body_required=True,
        body_example={
            "items": [
                {"type": "debit", "amount": "10.50", "status": "completed"},
                {"type": "credit", "amount": "4.00", "idempotency_key": "order-1042"},
            ],
        },
    ),
    RouteDoc(
        method="POST",
        path="/v1/transfers/batch",
        endpoint=batches.multi_batch,
        tag="transfers",
        summary="Transfers and settlements of many wallets",
        description="Up to 10,000 items, each names its wallet: in order per wallet, all wallets "
        "at once, not atomic. With `Content-Type: application/x-ndjson` an item a line, of any "
        "number: results stream back a line each, in order, and a slow answer slows the sender.",
        answers={200: ("A result an item.", schemas.MultiBatchResults)},
        problems=_WRITE,
        body=schemas.MultiBatch,
        body_required=True,
        body_example={
            "items": [
                {
                    "wallet_id": "0192f0c1-2d3e-7a4b-8c5d-6e7f8a9b0c1d",
                    "type": "debit",
                    "amount": "10.50",
                }
            ],
        },
    ),
    RouteDoc(
        method="POST",
        path="/v1/wallet",
        endpoint=writes.create_wallet,
        tag="wallets",
        summary="Open a wallet",
        answers={201: ("The wallet, with no money in it.", schemas.Wallet)},
        problems=("reference_id_taken", *_WRITE),
        body=schemas.CreateWallet,
        body_example={"reference_id": "customer-17", "currency": "USD"},
    ),
    RouteDoc(
        method="GET",
        path="/v1/wallet/{wallet_id}",
        endpoint=reads.get_wallet,
        tag="wallets",
        summary="Read a wallet",
        description="From the projection, which follows the writes within milliseconds. The ETag "
        "is the version; `If-None-Match` is honoured.",
        answers={200: ("The wallet.", schemas.Wallet), 304: ("Not changed since.", None)},
        problems=("wallet_not_found", "version_not_reached", *_READ),
        query=(
            _query(
                "min_version",
                "At least this version (a write's answer tells its own): read your own write.",
                {"type": "integer", "minimum": 0, "maximum": reads.VERSION_MAX},
            ),
            _query(
                "consistency",
                "`strong`: as of now, not as of the projection.",
                {"type": "string", "enum": ["eventual", "strong"], "default": "eventual"},
            ),
        ),
    ),
    RouteDoc(
        method="GET",
        path="/v1/wallet",
        endpoint=reads.find_wallets,
        tag="wallets",
        summary="Find a wallet by its reference_id",
        answers={200: ("A list of one wallet, or of none.", schemas.WalletList)},
        problems=_READ,
        query=(
            _query(
                "reference_id",
                "The reference_id that the wallet was opened with.",
                {"type": "string", "minLength": 1, "maxLength": REFERENCE_ID_MAX},
                required=True,
            ),
        ),
    ),
    RouteDoc(
        method="GET",
        path="/v1/wallet/{wallet_id}/transfers/{transfer_id}",
        endpoint=reads.get_transfer,
        tag="transfers",
        summary="Read a transfer",
        answers={200: ("The transfer.", schemas.Transfer)},
        problems=("transfer_not_found", *_READ),
    ),
    RouteDoc(
        method="GET",
        path="/v1/wallet/{wallet_id}/transfers",
        endpoint=reads.list_transfers,
        tag="transfers",
        summary="List a wallet's transfers, newest first",
        description="Pages stay stable while new transfers arrive.",
        answers={200: ("A page of transfers.", schemas.TransferPage)},
        problems=("wallet_not_found", *_READ),
        query=(
            _query(
                "status",
                "Only transfers in this status.",
                {"type": "string", "enum": ["pending", "completed", "failed"]},
            ),
            _query("type", "Only this type.", {"type": "string", "enum": ["debit", "credit"]}),
            _query(
                "limit",
                "Transfers on a page.",
                {
                    "type": "integer",
                    "minimum": 1,
                    "maximum": PAGE_LIMIT_MAX,
                    "default": PAGE_LIMIT_DEFAULT,
                },
            ),
            _query(
                "cursor", "next_cursor of the page before.", {"type": "string", "maxLength": 64}
            ),
        ),
    ),
    RouteDoc(
        method="GET",
        path="/healthz",
        endpoint=service.healthz,
        tag="service",
        summary="Is this process alive",
        answers={200: ("It is.", None)},
    ),
    RouteDoc(
        method="GET",
        path="/readyz",
        endpoint=service.readyz,
        tag="service",
        summary="Is everything ready",
        answers={
            200: ("All of it is ready.", schemas.Readiness),
            503: ("Something is not; the body says what.", schemas.Readiness),
        },
        query=(
            _query(
                "only",
                "Names of components, separated by commas: ask for these alone.",
                {"type": "string"},
            ),
        ),
    ),
    RouteDoc(
        method="GET",
        path="/problems",
        endpoint=service.list_problems,
        tag="service",
        summary="All problems",
        answers={200: ("Every code, with its status, title and remedy.", None)},
    ),
    RouteDoc(
        method="GET",
        path="/problems/{code}",
        endpoint=service.explain_problem,
        tag="service",
        summary="A problem explained",
        answers={200: ("What it means and what to do.", None)},
        problems=("problem_not_found",),
    ),
)


def openapi_of(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document of ``app``, made once."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            tags=app.openapi_tags,
            routes=app.routes,
        )
        models = {model for route in ROUTES for model in route.models} | {schemas.Problem}
        ordered = sorted(models, key=lambda model: model.__name__)
        _, definitions = models_json_schema(
            [(model, "validation") for model in ordered],
            ref_template="#/components/schemas/{model}",
        )
        document["components"] = {"schemas": definitions["$defs"]}
        for path in document["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None) if not operation.get("responses", {}).get(
                    "422", {}
                ).get("content", {}).get(PROBLEM_JSON) else None
        app.openapi_schema = document
    return app.openapi_schema
