"""Wallets once more, as simply as can be said: what the real code is compared with.

Plain dicts and Decimal, nothing shared with the product. An ask is a dict:

    {"wallet": id, "items": [item, …], "request": id, "attempt": n,
     "several": bool, "atomic": bool, "key": text or None}

and an item one of

    {"do": "create", "id": …, "currency": …, "scale": …, "reference": …}
    {"do": "transfer", "id": …, "type": …, "status": …, "amount": text}
    {"do": "settle", "id": …, "status": …}

each with a "key" (text or None). Answers are dicts as well: see `_told`.
"""

import copy
from decimal import Context, Decimal
from typing import Any

Ask = dict[str, Any]
Item = dict[str, Any]
Told = dict[str, Any]

_EXACT = Context(prec=200)
_LARGEST_MINOR = Decimal("9" * 38)
_KEPT_REFUSALS = {
    "insufficient_funds",
    "balance_out_of_range",
    "transfer_already_completed",
    "transfer_already_failed",
    "reference_id_taken",
}


class Model:
    """Everything that was ever accepted, and everything that was answered under a key."""

    def __init__(self) -> None:
        self.wallets: dict[str, dict[str, Any]] = {}
        self.transfers: dict[tuple[str, str], dict[str, Any]] = {}
        self.references: dict[str, str] = {}
        self.keys: dict[tuple[str, str], dict[str, Any]] = {}
        self.first_answers: dict[tuple[str, str], dict[str, Any]] = {}
        """What was answered when a wallet or a transfer came to be."""

    def copy(self) -> "Model":
        return copy.deepcopy(self)

    def ask(self, ask: Ask, now: str) -> Told:
        """What ``ask`` is answered: the answers to its items, and what is said of the whole."""
        if not ask["several"]:
            return _told([self._item(ask, ask["items"][0], now)])
        if ask["key"] is None:
            return self._several(ask, now)
        kept = self.keys.get((ask["wallet"], ask["key"]))
        if kept is None:
            told = self._several(ask, now)
            if any(_is_decided(answer) for answer in told["answers"]):
                self._keep(ask, ask["key"], _asked(ask), told)
            return told
        if kept["asked"] != _asked(ask):
            return _told([_refused("idempotency_key_reused", ask["request"])])
        return {**kept["told"], "replayed": kept["request"] != ask["request"]}

    def _several(self, ask: Ask, now: str) -> Told:
        before = self.copy()
        answers: list[dict[str, Any]] = []
        for item in ask["items"]:
            answers.append(self._item(ask, item, now))
            if ask["atomic"] and answers[-1]["refused"]:
                self.__dict__.update(before.__dict__)
                last = {**answers[-1], "replayed": False}
                return _told([last], several=True, undone=len(answers) - 1)
        return _told(answers, several=True, wallet=self._sums(ask["wallet"]))

    def _item(self, ask: Ask, item: Item, now: str) -> dict[str, Any]:
        if item["key"] is None:
            return self._decide(ask, item, now)
        kept = self.keys.get((ask["wallet"], item["key"]))
        if kept is None:
            answer = self._decide(ask, item, now)
            if _is_decided(answer):
                self._keep(ask, item["key"], _asked_item(item), answer)
            return answer
        if kept["asked"] != _asked_item(item):
            return _refused("idempotency_key_reused", ask["request"])
        return {**kept["told"], "replayed": kept["request"] != ask["request"]}

    def _keep(self, ask: Ask, key: str, asked: object, told: Told) -> None:
        self.keys[ask["wallet"], key] = {"asked": asked, "told": told, "request": ask["request"]}

    def _decide(self, ask: Ask, item: Item, now: str) -> dict[str, Any]:
        if ask["attempt"] > 1 and item["do"] != "settle":
            owner = item["id"] if item["do"] == "create" else ask["wallet"]
            first = self.first_answers.get((owner, item["id"]))
            if first is not None:
                return first
        code = {"create": self._create, "transfer": self._transfer, "settle": self._settle}[
            item["do"]
        ](ask["wallet"], item, now)
        if code is not None:
            return _refused(code, ask["request"])
        return self._accepted(ask, item)

    def _accepted(self, ask: Ask, item: Item) -> dict[str, Any]:
        owner = item["id"] if item["do"] == "create" else ask["wallet"]
        wallet = self.wallets[owner]
        if item["do"] == "create":
            body = self._wallet_body(owner)
        else:
            body = self._transfer_body(owner, item["id"])
        answer = {
            "refused": None,
            "body": body,
            "version": wallet["version"],
            "replayed": False,
        }
        if item["do"] != "settle":
            self.first_answers[owner, item["id"]] = answer
        return answer

    # -- the three things that one can ask for; each tells why not, or does it ---------------------

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
        }
        return None

    def _transfer(self, wallet_id: str, item: Item, now: str) -> str | None:
        wallet = self.wallets.get(wallet_id)
        if wallet is None:
            return "wallet_not_found"
        amount = Decimal(item["amount"])
        largest = _LARGEST_MINOR.scaleb(-wallet["scale"], _EXACT)
        if -int(amount.as_tuple().exponent) > wallet["scale"] or amount > largest:
            return "validation_error"
        if item["type"] == "credit":
            if wallet["balance"] < amount:
                return "insufficient_funds"
            wallet["balance"] = _EXACT.subtract(wallet["balance"], amount)
        else:
            held = _EXACT.add(wallet["pending_debit"], wallet["pending_credit"])
            if _EXACT.add(_EXACT.add(wallet["balance"], held), amount) > largest:
                return "balance_out_of_range"
            if item["status"] == "completed":
                wallet["balance"] = _EXACT.add(wallet["balance"], amount)
        if item["status"] == "pending":
            pending = f"pending_{item['type']}"
            wallet[pending] = _EXACT.add(wallet[pending], amount)
        wallet["version"] += 1
        self.transfers[wallet_id, item["id"]] = {
            "type": item["type"],
            "status": item["status"],
            "amount": amount,
            "reason": None,
            "created": now,
            "settled": now if item["status"] == "completed" else None,
        }
        return None

    def _settle(self, wallet_id: str, item: Item, now: str) -> str | None:
        wallet = self.wallets.get(wallet_id)
        if wallet is None:
            return "wallet_not_found"
        transfer = self.transfers.get((wallet_id, item["id"]))
        if transfer is None:
            return "transfer_not_found"
        if transfer["status"] == item["status"]:
            return None
        if transfer["status"] != "pending":
            return f"transfer_already_{transfer['status']}"
        pending = f"pending_{transfer['type']}"
        wallet[pending] = _EXACT.subtract(wallet[pending], transfer["amount"])
        # Money comes in with a debit that completes, and back with a credit that doesn't.
        if (transfer["type"], item["status"]) in (("debit", "completed"), ("credit", "failed")):
            wallet["balance"] = _EXACT.add(wallet["balance"], transfer["amount"])
        wallet["version"] += 1
        transfer["status"] = item["status"]
        transfer["settled"] = now
        transfer["reason"] = "reverted" if item["status"] == "failed" else None
        return None

    # -- how things are told -----------------------------------------------------------------------

    def _sums(self, wallet_id: str) -> dict[str, Any] | None:
        wallet = self.wallets.get(wallet_id)
        if wallet is None:
            return None
        names = ("balance", "pending_credit", "pending_debit")
        return {"version": wallet["version"]} | {
            name: _text(wallet[name], wallet["scale"]) for name in names
        }

    def _wallet_body(self, wallet_id: str) -> dict[str, Any]:
        wallet, sums = self.wallets[wallet_id], self._sums(wallet_id)
        assert sums is not None
        return sums | {
            "id": wallet_id,
            "reference_id": wallet["reference"],
            "currency": wallet["currency"],
            "scale": wallet["scale"],
            "status": "active",
            "metadata": {},
            "created_at": wallet["created"],
            "updated_at": wallet["created"],
        }

    def _transfer_body(self, wallet_id: str, transfer_id: str) -> dict[str, Any]:
        wallet, transfer = self.wallets[wallet_id], self.transfers[wallet_id, transfer_id]
        return {
            "id": transfer_id,
            "wallet_id": wallet_id,
            "type": transfer["type"],
            "status": transfer["status"],
            "amount": _text(transfer["amount"], wallet["scale"]),
            "currency": wallet["currency"],
            "reference_id": None,
            "metadata": {},
            "failure_reason": transfer["reason"],
            "created_at": transfer["created"],
            "settled_at": transfer["settled"],
            "wallet": self._sums(wallet_id),
        }


def in_minor(amount: Decimal, scale: int) -> Decimal:
    """``amount`` in minor units, exactly."""
    return amount.scaleb(scale, _EXACT)


def _text(amount: Decimal, scale: int) -> str:
    return f"{amount.quantize(Decimal(1).scaleb(-scale), context=_EXACT):f}"


def _asked(ask: Ask) -> list[object]:
    return [ask["atomic"], *(_asked_item(item) for item in ask["items"])]


def _asked_item(item: Item) -> dict[str, Any]:
    """What the client asked for; the ids of what comes to be are the service's."""
    minted = set() if item["do"] == "settle" else {"id"}
    return {name: value for name, value in item.items() if name not in minted | {"key"}}


def _is_decided(answer: dict[str, Any]) -> bool:
    return answer["refused"] is None or answer["refused"] in _KEPT_REFUSALS


def _refused(code: str, request: str) -> dict[str, Any]:
    return {
        "refused": code,
        "body": {"code": code, "request_id": request},
        "version": 0,
        "replayed": False,
    }


def _told(answers: list[dict[str, Any]], **whole: Any) -> Told:
    return {
        "answers": answers,
        "several": False,
        "undone": None,
        "wallet": None,
        "replayed": False,
    } | whole
