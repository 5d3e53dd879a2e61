"""Schemathesis hooks for rules that a JSON schema can't express.

Only schema-valid values are changed, and they stay valid. Requests that are invalid by intention
stay invalid.
"""

import re
from typing import Any, Final

import schemathesis
import uuid6

from wallet.api_limits import IDEMPOTENCY_KEY_MAX
from wallet.currencies import CURRENCY_PATTERN, ISO_SCALES
from wallet.money import AMOUNT_PATTERN, MINOR_MAX

_KEY: Final = re.compile(rf"[\x21-\x7e]{{1,{IDEMPOTENCY_KEY_MAX}}}")
_TIMEOUT: Final = re.compile(r"[1-9][0-9]{0,4}")


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Make a request that is valid by the schema one that the service can accept."""
    _fix_headers(case.headers or {})
    body = case.body
    if not isinstance(body, dict):
        return
    if case.operation.path == "/v1/wallet":
        _fix_currency(body)
    _fix_amount(body)
    items = body.get("items")
    for item in items if isinstance(items, list) else ():
        if isinstance(item, dict):
            _fix_amount(item)


def _fix_headers(headers: Any) -> None:
    """A key belongs to one request permanently, and no response takes less than a millisecond."""
    for name, sent in list(headers.items()):
        if name.lower() == "idempotency-key" and _KEY.fullmatch(str(sent)):
            ending = f"/{uuid6.uuid7()}"
            headers[name] = str(sent)[: IDEMPOTENCY_KEY_MAX - len(ending)] + ending
        if name.lower() == "x-request-timeout-ms" and _TIMEOUT.fullmatch(str(sent)):
            headers[name] = "30000"


def _fix_currency(body: dict[str, Any]) -> None:
    """ISO 4217 currencies have a scale, others need one."""
    _fix_integer(body, "scale")
    currency, scale = body.get("currency"), body.get("scale")
    if scale is not None and (currency is None or currency in ISO_SCALES) and _is_scale(scale):
        del body["scale"]
    custom = isinstance(currency, str) and re.fullmatch(CURRENCY_PATTERN, currency)
    if custom and currency not in ISO_SCALES and scale is None:
        body["scale"] = 2


def _fix_integer(body: dict[str, Any], name: str) -> None:
    """For JSON Schema 1.0 is an integer. This API refuses it as a float, on purpose."""
    sent = body.get(name)
    if isinstance(sent, float) and sent.is_integer():
        body[name] = int(sent)


def _is_scale(scale: Any) -> bool:
    return type(scale) is int and 0 <= scale <= 18


def _fix_amount(body: dict[str, Any]) -> None:
    """Which amounts fit depends on the wallet's currency: whole and small ones fit all."""
    _fix_integer(body, "amount")
    amount = body.get("amount")
    if type(amount) is int and 1 <= amount <= MINOR_MAX:
        body["amount"] = amount % 1000 + 1
    if isinstance(amount, str) and re.fullmatch(AMOUNT_PATTERN, amount) and amount.strip("0."):
        body["amount"] = f"{int(amount[-1]) + 1}"
