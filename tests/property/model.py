"""A simple model of wallets, with which the real code is compared.

Plain dicts and Decimal, nothing shared with the product. A request is a dict:

    {"wallet": id, "items": [item, …], "request": id, "attempt": n,
     "several": bool, "atomic": bool, "key": text or None}

and an item one of

    {"do": "create", "id": …, "currency": …, "scale": …, "reference": …}
    {"do": "transfer", "id": …, "type": …, "status": …, "amount": text, "expires": s, "then": …}
    {"do": "settle", "id": …, "status": …, "amount": text or None, "final": bool}
    {"do": "refund", "id": …, "of": id, "status": …, "amount": …, "expires": s, "then": …}
    {"do": "expire", "id": …}
    {"do": "control", "what": …, "direction": …, "reason": …, "limit": …, "patch": …, "match": …}

each with a "key" (text or None; a control always has one, and a refund, unless its batch has).
Responses are dicts as well: see `reported`.
"""

import copy
from decimal import Decimal
from typing import Any

from tests.property.model_answers import (
    EXACT,
    Item,
    ModelRequest,
    Reported,
    asked,
    asked_item,
    control_of,
    is_decided,
    later,
    refused,
    reported,
    shown_amount,
    wallet_body,
)
from tests.property.model_refunds import as_transfer, shown

_LARGEST_MINOR = Decimal("9" * 38)
_EXPIRY_MAX_S = 31_622_400


class Model:
    """Everything that was accepted, and every response stored under a key."""

    def __init__(self) -> None:
        self.wallets: dict[str, dict[str, Any]] = {}
        self.transfers: dict[tuple[str, str], dict[str, Any]] = {}
        self.references: dict[str, str] = {}
        self.keys: dict[tuple[str, str], dict[str, Any]] = {}
        self.first_answers: dict[tuple[str, str], dict[str, Any]] = {}
        """The first response for each created wallet or transfer."""
        self.reason: str | None = None
        """Of the last change of a wallet; None: it changed nothing, or had none."""

    def copy(self) -> "Model":
        return copy.deepcopy(self)

    def answer(self, request: ModelRequest, now: str) -> Reported:
        """The response to ``request``: its items' results and the result of the whole."""
        if not request["several"]:
            return reported([self._item(request, request["items"][0], now)])
        if request["key"] is None:
            return self._several(request, now)
        kept = self.keys.get((request["wallet"], request["key"]))
        if kept is None:
            whole = self._several(request, now)
            if any(is_decided(answer) for answer in whole["answers"]):
                self._keep(request, request["key"], asked(request), whole)
            return whole
        if kept["asked"] != asked(request):
            return reported([refused("idempotency_key_reused", request["request"])])
        return {**kept["reported"], "replayed": kept["request"] != request["request"]}

    def _several(self, request: ModelRequest, now: str) -> Reported:
        for item in request["items"]:
            if item["do"] in ("settle", "expire"):
                self._expire(request["wallet"], item, now)
            elif item["do"] == "refund":
                self._expire(request["wallet"], {"id": item["of"]}, now)
        before = self.copy()
        answers: list[dict[str, Any]] = []
        for item in request["items"]:
            answers.append(self._item(request, item, now))
            if request["atomic"] and answers[-1]["refused"]:
                self.__dict__.update(before.__dict__)
                last = {**answers[-1], "replayed": False}
                return reported([last], several=True, undone=len(answers) - 1)
        return reported(answers, several=True, wallet=self._balances(request["wallet"]))

    def _item(self, request: ModelRequest, item: Item, now: str) -> dict[str, Any]:
        if item["key"] is None:
            return self._decide(request, item, now)
        kept = self.keys.get((request["wallet"], item["key"]))
        if kept is None:
            answer = self._decide(request, item, now)
            if is_decided(answer):
                self._keep(request, item["key"], asked_item(item), answer)
            return answer
        if kept["asked"] != asked_item(item):
            return refused("idempotency_key_reused", request["request"])
        return {**kept["reported"], "replayed": kept["request"] != request["request"]}

    def _keep(self, request: ModelRequest, key: str, asked: object, reported: Reported) -> None:
        self.keys[request["wallet"], key] = {
            "asked": asked,
            "reported": reported,
            "request": request["request"],
        }

    def _decide(self, request: ModelRequest, item: Item, now: str) -> dict[str, Any]:
        if request["attempt"] > 1 and item["do"] in ("create", "transfer"):
            owner = item["id"] if item["do"] == "create" else request["wallet"]
            first = self.first_answers.get((owner, item["id"]))
            if first is not None:
                return first
        decide = {
            "create": self._create,
            "transfer": self._transfer,
            "refund": self._refund,
            "settle": self._settle,
            "expire": self._expire,
            "control": self._control,
        }[item["do"]]
        code = decide(request["wallet"], item, now)
        if code is not None:
            return refused(code, request["request"])
        return self._accepted(request, item)

    def _accepted(self, request: ModelRequest, item: Item) -> dict[str, Any]:
        owner = item["id"] if item["do"] == "create" else request["wallet"]
        wallet = self.wallets[owner]
        if item["do"] == "create":
            body = self._wallet_body(owner)
        elif item["do"] == "expire":
            body = {}
        elif item["do"] == "control":
            body = self._wallet_body(owner) | {"reason": self.reason}
        else:
            body = self._transfer_body(owner, item["id"])
        answer = {
            "refused": None,
            "body": body,
            "version": wallet["version"],
            "replayed": False,
        }
        if item["do"] in ("create", "transfer"):
            self.first_answers[owner, item["id"]] = answer
        return answer

    # -- the commands; each is applied, or returns the refusal code --------------------------

    def _create(self, _scope: str, item: Item, now: str) -> str | None:
        if item["reference"] in self.references:
            return "reference_id_taken"
        if item["reference"] is not None:
            self.references[item["reference"]] = item["id"]
        self.wallets[item["id"]] = {
            "currency": item["currency"],
            "scale": item["scale"],
            "reference": item["reference"],
            "balance": Decimal(0),
            "pending_debit": Decimal(0),
            "pending_credit": Decimal(0),
            "version": 1,
            "created": now,
            "updated": now,
            "status": "active",
            "frozen": None,
            "why": None,
            "limit": Decimal(0),
            "metadata": {},
        }
        return None

    def _control(self, wallet_id: str, item: Item, now: str) -> str | None:
        wallet = self.wallets.get(wallet_id)
        if wallet is None:
            return "wallet_not_found"
        if item["match"] is not None and item["match"] != wallet["version"]:
            return "precondition_failed"
        what, before = item["what"], control_of(wallet)
        if wallet["status"] == "closed" and what != "close":
            return "wallet_closed"
        if what == "freeze":
            wallet |= {"status": "frozen", "frozen": item["direction"], "why": item["reason"]}
        elif what == "unfreeze":
            wallet |= {"status": "active", "frozen": None, "why": None}
        elif what == "close":
            if any(wallet[name] for name in ("balance", "pending_debit", "pending_credit")):
                return "wallet_not_empty"
            wallet |= {"status": "closed", "frozen": None, "why": None}
        else:
            limit = wallet["limit"] if item["limit"] is None else Decimal(item["limit"])
            if wallet["balance"] < -limit:
                return "overdraft_in_use"
            patched = wallet["metadata"] | item["patch"]
            kept = {name: value for name, value in patched.items() if value is not None}
            wallet |= {"limit": limit, "metadata": kept}
        self.reason = None
        if control_of(wallet) != before:
            self.reason = None if what == "update" else item["reason"]
            wallet["version"] += 1
            wallet["updated"] = now
        return None

    def _stops(self, wallet: dict[str, Any], kind: str) -> str | None:
        if wallet["status"] == "closed":
            return "wallet_closed"
        return "wallet_frozen" if wallet["frozen"] in ("both", kind) else None

    def _refund(self, wallet_id: str, item: Item, now: str) -> str | None:
        wallet = self.wallets.get(wallet_id)
        if wallet is None:
            return "wallet_not_found"
        self._expire(wallet_id, {"id": item["of"]}, now)
        asked_for = as_transfer(self.transfers, wallet, wallet_id, item)
        if isinstance(asked_for, str):
            return asked_for
        return self._transfer(wallet_id, asked_for, now)

    def _transfer(self, wallet_id: str, item: Item, now: str) -> str | None:
        wallet = self.wallets.get(wallet_id)
        if wallet is None:
            return "wallet_not_found"
        if stopped := self._stops(wallet, item["type"]):
            return stopped
        amount = Decimal(item["amount"])
        largest = _LARGEST_MINOR.scaleb(-wallet["scale"], EXACT)
        if -int(amount.as_tuple().exponent) > wallet["scale"] or amount > largest:
            return "validation_error"
        if (item["expires"] or 0) > _EXPIRY_MAX_S:
            return "expiry_out_of_range"
        if item["type"] == "credit":
            if EXACT.add(wallet["balance"], wallet["limit"]) < amount:
                return "insufficient_funds"
            wallet["balance"] = EXACT.subtract(wallet["balance"], amount)
        else:
            held = EXACT.add(wallet["pending_debit"], wallet["pending_credit"])
            if EXACT.add(EXACT.add(wallet["balance"], held), amount) > largest:
                return "balance_out_of_range"
            if item["status"] == "completed":
                wallet["balance"] = EXACT.add(wallet["balance"], amount)
        if item["status"] == "pending":
            pending = f"pending_{item['type']}"
            wallet[pending] = EXACT.add(wallet[pending], amount)
        wallet["version"] += 1
        wallet["updated"] = now
        self.transfers[wallet_id, item["id"]] = {
            "type": item["type"],
            "status": item["status"],
            "amount": amount,
            "reason": None,
            "created": now,
            "settled": now if item["status"] == "completed" else None,
            "done": amount if item["status"] == "completed" else Decimal(0),
            "expires": later(now, item["expires"]),
            "then": item["then"],
            "of": item.get("of"),
        }
        return None

    def _expire(self, wallet_id: str, item: Item, now: str) -> None:
        """Settle a transfer that is pending past its time."""
        transfer = self.transfers.get((wallet_id, item["id"]))
        if transfer is None or transfer["status"] != "pending" or transfer["expires"] is None:
            return
        if transfer["expires"] > now:
            return
        wallet = self.wallets[wallet_id]
        completes = transfer["then"] == "complete" and not self._stops(wallet, transfer["type"])
        left = EXACT.subtract(transfer["amount"], transfer["done"])
        status, part = ("completed", left) if completes else ("failed", Decimal(0))
        self._end(wallet, transfer, status, now, part)
        transfer["reason"] = None if completes else "expired"

    def _settle(self, wallet_id: str, item: Item, now: str) -> str | None:
        wallet = self.wallets.get(wallet_id)
        if wallet is None:
            return "wallet_not_found"
        self._expire(wallet_id, item, now)
        transfer = self.transfers.get((wallet_id, item["id"]))
        if transfer is None:
            return "transfer_not_found"
        part = None if item["amount"] is None else Decimal(item["amount"])
        if part is not None and -int(part.as_tuple().exponent) > wallet["scale"]:
            return "validation_error"
        if part is not None and part > transfer["amount"]:
            return "amount_exceeds_hold"
        is_same = item["status"] == "failed" or transfer["done"] == (part or transfer["amount"])
        if transfer["status"] == item["status"] and item["final"] and is_same:
            return None
        if transfer["status"] != "pending":
            return f"transfer_already_{transfer['status']}"
        left = EXACT.subtract(transfer["amount"], transfer["done"])
        if part is not None and part > left:
            return "amount_exceeds_hold"
        if item["status"] == "completed" and (stopped := self._stops(wallet, transfer["type"])):
            return stopped
        self._settle_pending(wallet, transfer, item, part or left, now)
        return None

    def _settle_pending(
        self,
        wallet: dict[str, Any],
        transfer: dict[str, Any],
        item: Item,
        part: Decimal,
        now: str,
    ) -> None:
        left = EXACT.subtract(transfer["amount"], transfer["done"])
        if item["status"] == "failed":
            self._end(wallet, transfer, "failed", now)
            transfer["reason"] = "reverted"
        elif item["final"] or part == left:
            self._end(wallet, transfer, "completed", now, part)
        else:
            self._move(wallet, transfer, part, part, now)

    def _end(
        self,
        wallet: dict[str, Any],
        transfer: dict[str, Any],
        status: str,
        now: str,
        part: Decimal = Decimal(0),
    ) -> None:
        """Nothing is held any more, and ``part`` of what was is completed."""
        left = EXACT.subtract(transfer["amount"], transfer["done"])
        self._move(wallet, transfer, left, part, now)
        transfer["status"] = status
        transfer["settled"] = now

    def _move(
        self,
        wallet: dict[str, Any],
        transfer: dict[str, Any],
        held: Decimal,
        part: Decimal,
        now: str,
    ) -> None:
        """``held`` is held no longer: ``part`` of it is completed, the rest goes back."""
        pending = f"pending_{transfer['type']}"
        wallet[pending] = EXACT.subtract(wallet[pending], held)
        # Money comes in with what completes of a debit, and back with what doesn't of a credit.
        moved = part if transfer["type"] == "debit" else EXACT.subtract(held, part)
        wallet["balance"] = EXACT.add(wallet["balance"], moved)
        transfer["done"] = EXACT.add(transfer["done"], part)
        wallet["version"] += 1
        wallet["updated"] = now

    # -- responses ---------------------------------------------------------------------------------

    def _balances(self, wallet_id: str) -> dict[str, Any] | None:
        wallet = self.wallets.get(wallet_id)
        if wallet is None:
            return None
        names = ("balance", "pending_credit", "pending_debit")
        return {"version": wallet["version"]} | {
            name: shown_amount(wallet[name], wallet["scale"]) for name in names
        }

    def _wallet_body(self, wallet_id: str) -> dict[str, Any]:
        balances = self._balances(wallet_id)
        assert balances is not None
        return wallet_body(wallet_id, self.wallets[wallet_id], balances)

    def _transfer_body(self, wallet_id: str, transfer_id: str) -> dict[str, Any]:
        wallet, transfer = self.wallets[wallet_id], self.transfers[wallet_id, transfer_id]
        more: dict[str, Any] = {}
        if transfer["expires"] is not None:
            more |= {"expires_at": transfer["expires"], "on_expiry": transfer["then"]}
        left = EXACT.subtract(transfer["amount"], transfer["done"])
        if transfer["done"] and left:
            more["completed_amount"] = shown_amount(transfer["done"], wallet["scale"])
            if transfer["status"] == "pending":
                more["pending_amount"] = shown_amount(left, wallet["scale"])
        more |= shown(
            self.transfers, wallet_id, transfer_id, lambda one: shown_amount(one, wallet["scale"])
        )
        return more | {
            "id": transfer_id,
            "wallet_id": wallet_id,
            "type": transfer["type"],
            "status": transfer["status"],
            "amount": shown_amount(transfer["amount"], wallet["scale"]),
            "currency": wallet["currency"],
            "reference_id": None,
            "metadata": {},
            "failure_reason": transfer["reason"],
            "created_at": transfer["created"],
            "settled_at": transfer["settled"],
            "effect": "in" if transfer["type"] == "debit" else "out",
            "wallet": self._balances(wallet_id),
        }
