"""The model's responses, and what of a request counts as asked for."""

from datetime import datetime, timedelta
from decimal import Context, Decimal
from typing import Any

ModelRequest = dict[str, Any]
Item = dict[str, Any]
Reported = dict[str, Any]

EXACT = Context(prec=200)
_TIME = "%Y-%m-%dT%H:%M:%SZ"

_KEPT_REFUSALS = {
    "insufficient_funds",
    "balance_out_of_range",
    "transfer_already_completed",
    "transfer_already_failed",
    "reference_id_taken",
    "wallet_frozen",
    "wallet_closed",
    "wallet_not_empty",
    "overdraft_in_use",
    "precondition_failed",
    "expiry_out_of_range",
    "amount_exceeds_hold",
    "transfer_not_completed",
    "transfer_is_refund",
    "amount_exceeds_refundable",
}


def asked(request: ModelRequest) -> list[object]:
    return [request["atomic"], *(asked_item(item) for item in request["items"])]


def asked_item(item: Item) -> dict[str, Any]:
    """The client's request without ids that the service generates."""
    minted = {"id"} if item["do"] in ("create", "transfer", "refund") else set()
    return {name: value for name, value in item.items() if name not in minted | {"key"}}


def is_decided(answer: dict[str, Any]) -> bool:
    return answer["refused"] is None or answer["refused"] in _KEPT_REFUSALS


def refused(code: str, request: str) -> dict[str, Any]:
    return {
        "refused": code,
        "body": {"code": code, "request_id": request},
        "version": 0,
        "replayed": False,
    }


def reported(answers: list[dict[str, Any]], **whole: Any) -> Reported:
    return {
        "answers": answers,
        "several": False,
        "undone": None,
        "wallet": None,
        "replayed": False,
    } | whole


def wallet_body(wallet_id: str, wallet: dict[str, Any], balances: dict[str, Any]) -> dict[str, Any]:
    """What is shown of a wallet."""
    return balances | {
        "id": wallet_id,
        "reference_id": wallet["reference"],
        "currency": wallet["currency"],
        "scale": wallet["scale"],
        "status": wallet["status"],
        "metadata": wallet["metadata"],
        "created_at": wallet["created"],
        "updated_at": wallet["updated"],
        "overdraft_limit": shown_amount(wallet["limit"], wallet["scale"]),
        "frozen": wallet["frozen"],
        "frozen_reason": wallet["why"],
    }


def in_minor(amount: Decimal, scale: int) -> Decimal:
    """``amount`` in minor units, exactly."""
    return amount.scaleb(scale, EXACT)


def shown_amount(amount: Decimal, scale: int) -> str:
    return f"{amount.quantize(Decimal(1).scaleb(-scale), context=EXACT):f}"


def control_of(wallet: dict[str, Any]) -> list[Any]:
    return [wallet[name] for name in ("status", "frozen", "why", "limit", "metadata")]


def later(now: str, seconds: int | None) -> str | None:
    """That many seconds after ``now``; None if there are none."""
    if seconds is None:
        return None
    return (datetime.strptime(now, _TIME) + timedelta(seconds=seconds)).strftime(_TIME)
