"""The model's refunds: transfers the other way. Sums are taken anew each time."""

from collections.abc import Callable, Mapping
from decimal import Context, Decimal
from typing import Any

Transfers = Mapping[tuple[str, str], dict[str, Any]]

_EXACT = Context(prec=200)


def refunded(transfers: Transfers, wallet_id: str, transfer_id: str) -> tuple[Decimal, Decimal]:
    """What the refunds of a transfer have returned, and what pending ones hold."""
    done, held = Decimal(0), Decimal(0)
    for (owner, _), one in transfers.items():
        if (owner, one["of"]) == (wallet_id, transfer_id):
            done = _EXACT.add(done, one["done"])
            left = _EXACT.subtract(one["amount"], one["done"])
            held = _EXACT.add(held, left if one["status"] == "pending" else Decimal(0))
    return done, held


def has_refunds(transfers: Transfers, wallet_id: str, transfer_id: str) -> bool:
    return any(
        (owner, one["of"]) == (wallet_id, transfer_id) for (owner, _), one in transfers.items()
    )


def as_transfer(
    transfers: Transfers, wallet: dict[str, Any], wallet_id: str, item: dict[str, Any]
) -> dict[str, Any] | str:
    """The transfer that a refund asks for, or the code of its refusal."""
    original = transfers.get((wallet_id, item["of"]))
    if original is None:
        return "transfer_not_found"
    if original["of"] is not None:
        return "transfer_is_refund"
    if not original["done"]:
        return "transfer_not_completed"
    done, held = refunded(transfers, wallet_id, item["of"])
    left = _EXACT.subtract(original["done"], _EXACT.add(done, held))
    amount = left if item["amount"] is None else Decimal(item["amount"])
    if -int(amount.as_tuple().exponent) > wallet["scale"] and item["amount"] is not None:
        return "validation_error"
    if amount > left or not left:
        return "amount_exceeds_refundable"
    other = "credit" if original["type"] == "debit" else "debit"
    return item | {"type": other, "amount": f"{amount:f}"}


def shown(
    transfers: Transfers, wallet_id: str, transfer_id: str, text: Callable[[Decimal], str]
) -> dict[str, Any]:
    """The fields of a transfer that is a refund, or that has refunds. ``text``: of an amount."""
    of = transfers[wallet_id, transfer_id]["of"]
    if of is not None:
        done, held = refunded(transfers, wallet_id, of)
        now = {"refunded_amount": text(done), "refund_pending_amount": text(held)}
        return {"refunds": of, "refunded_transfer": now}
    if not has_refunds(transfers, wallet_id, transfer_id):
        return {}
    done, held = refunded(transfers, wallet_id, transfer_id)
    return {"refunded_amount": text(done)} | ({"refund_pending_amount": text(held)} if held else {})
