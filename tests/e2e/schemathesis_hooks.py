"""What a schema can't say about requests of this API, for schemathesis.

Only values that are valid by the schema are touched, and they stay valid: what is wrong with a
request by intention stays wrong.
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
    _mend_headers(case.headers or {})
    body = case.body
    if not isinstance(body, dict):
        return
    if case.operation.path == "/v1/wallet":
        _mend_currency(body)
    _mend_amount(body)
    items = body.get("items")
    for item in items if isinstance(items, list) else ():
        if isinstance(item, dict):
            _mend_amount(item)


def _mend_headers(headers: Any) -> None:
    """A key belongs to one request for ever, and nobody is answered within a millisecond."""
    for name, sent in list(headers.items()):
        if name.lower() == "idempotency-key" and _KEY.fullmatch(str(sent)):
            ending = f"/{uuid6.uuid7()}"
            headers[name] = str(sent)[: IDEMPOTENCY_KEY_MAX - len(ending)] + ending
        if name.lower() == "x-request-timeout-ms" and _TIMEOUT.fullmatch(str(sent)):
            headers[name] = "30000"


def _mend_currency(body: dict[str, Any]) -> None:
    """ISO 4217 currencies have a scale, others need one."""
    _mend_integer(body, "scale")
    currency, scale = body.get("currency"), body.get("scale")
    if scale is not None and (currency is None or currency in ISO_SCALES) and _is_scale(scale):
        del body["scale"]
    custom = isinstance(currency, str) and re.fullmatch(CURRENCY_PATTERN, currency)
    if custom and currency not in ISO_SCALES and scale is None:
        body["scale"] = 2


def _mend_integer(body: dict[str, Any], name: str) -> None:
    """To JSON Schema 1.0 is an integer. To this API it is a float, refused on purpose."""
    sent = body.get(name)
    if isinstance(sent, float) and sent.is_integer():
        body[name] = int(sent)


def _is_scale(scale: Any) -> bool:
    return type(scale) is int and 0 <= scale <= 18


def _mend_amount(body: dict[str, Any]) -> None:
    """Which amounts fit depends on the wallet's currency: whole and small ones fit all."""
    _mend_integer(body, "amount")
    amount = body.get("amount")
    if type(amount) is int and 1 <= amount <= MINOR_MAX:
        body["amount"] = amount % 1000 + 1
    if isinstance(amount, str) and re.fullmatch(AMOUNT_PATTERN, amount) and amount.strip("0."):
        body["amount"] = f"{int(amount[-1]) + 1}"
