"""Schemathesis hooks for rules that a JSON schema can't express.

Schema-valid values are changed so that they stay valid. Requests that are invalid by intention stay
invalid; where the description says in words that the value is accepted nevertheless, they get
another that is refused. `tests/contract/test_request_bodies.py` tests what is said in words.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
import schemathesis
import uuid6

from serve_app.openapi.shared_components import AMOUNT_PATTERN, LIMIT_PATTERN
from wallet.api_limits import EXPIRES_IN_S_MAX, IDEMPOTENCY_KEY_MAX
from wallet.currencies import CURRENCY_PATTERN, ISO_SCALES
from wallet.ids import canonical_uuid
from wallet.money import MINOR_MAX

_KEY: Final = re.compile(rf"[\x21-\x7e]{{1,{IDEMPOTENCY_KEY_MAX}}}")
_MAY_BE_NULL: Final = {
    "reference_id",
    "currency",
    "scale",
    "idempotency_key",
    "reason",
    "metadata",
    "overdraft_limit",
}
"""The last two in a merge patch only; elsewhere their null is refused as anything else is."""
_TIMES: Final = {"at", "from", "to", "created_from", "created_before"}
_NOWHERE_ACCEPTED: Final[list[Any]] = []
_ON_EXPIRY: Final = ("fail", "complete")
_TIMEOUT: Final = re.compile(r"[1-9][0-9]{0,4}")


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Make a request that is valid by the schema one that the service can accept."""
    _fix_headers(case.headers or {})
    if case.meta is None or case.meta.generation.mode.is_positive:
        _fix_if_match(case.headers or {})
        _fix_query(case.query or {}, is_of_wallets=case.operation.path == "/v1/wallet")
    body = case.body
    if not isinstance(body, dict):
        return
    if case.operation.path == "/v1/wallet":
        _fix_currency(body)
    items = body.get("items")
    for part in (body, *(items if isinstance(items, list) else ())):
        if isinstance(part, dict):
            _fix_amount(part)
            _fix_expiry(part)
            if "refund" in part and "idempotency_key" not in part:
                # Its own, or its batch's: the schema can't say that.
                part["idempotency_key"] = f"{uuid6.uuid7()}"
            if "complete" in part or case.operation.path.endswith("/complete"):
                _fix_final(part)
            _refuse_what_is_accepted_in_words(part)


def _refuse_what_is_accepted_in_words(part: dict[str, Any]) -> None:
    """A whole number as an amount, null for a field left out, and an unknown wallet's id.

    (An id that is no UUID belongs to no wallet: a batch has 404 as the result of this item.)
    """
    amount, limit = part.get("amount"), part.get("overdraft_limit")
    wallet_id = part.get("wallet_id")
    accepted = {name for name in _MAY_BE_NULL & part.keys() if part[name] is None}
    if type(amount) is int and 1 <= amount <= MINOR_MAX:
        accepted.add("amount")
    if type(limit) is int and 0 <= limit <= MINOR_MAX:
        accepted.add("overdraft_limit")
    if isinstance(wallet_id, str) and canonical_uuid(wallet_id) is None:
        accepted.add("wallet_id")
    part |= dict.fromkeys(accepted, _NOWHERE_ACCEPTED)


def _fix_headers(headers: Any) -> None:
    """A key belongs to one request permanently, and no response takes less than a millisecond."""
    for name, sent in list(headers.items()):
        if name.lower() == "idempotency-key" and _KEY.fullmatch(str(sent)):
            ending = f"/{uuid6.uuid7()}"
            headers[name] = str(sent)[: IDEMPOTENCY_KEY_MAX - len(ending)] + ending
        if name.lower() == "x-request-timeout-ms" and _TIMEOUT.fullmatch(str(sent)):
            headers[name] = "30000"


def _fix_if_match(headers: Any) -> None:
    """Which version a wallet has by then is not known: a valid request names any."""
    for name in [name for name in headers if name.lower() == "if-match"]:
        headers[name] = "*"


def _fix_query(query: Any, *, is_of_wallets: bool) -> None:
    """A time that looks like one may not exist: the 31st of February. A wallet is read as it was at
    a version or at a time, and a list of wallets has no version but that of one wallet."""
    if "version" in query:
        query.pop("at", None)
    if is_of_wallets and "reference_id" not in query:
        query.pop("min_version", None)
    for name in _TIMES & set(query):
        query[name] = "2026-01-02T03:04:05Z"


def _fix_currency(body: dict[str, Any]) -> None:
    """ISO 4217 currencies have a scale, others need one."""
    _fix_scale(body)
    currency, scale = body.get("currency"), body.get("scale")
    is_code = isinstance(currency, str) and re.fullmatch(CURRENCY_PATTERN, currency) is not None
    is_iso = "currency" not in body or (is_code and currency in ISO_SCALES)
    if is_iso and _is_scale(scale):
        del body["scale"]
    if is_code and not is_iso and "scale" not in body:
        body["scale"] = 2


def _fix_scale(body: dict[str, Any]) -> None:
    """For JSON Schema 1.0 is an integer. This API refuses it as a float, on purpose."""
    sent = body.get("scale")
    if isinstance(sent, float) and sent.is_integer():
        body["scale"] = int(sent)


def _is_scale(scale: Any) -> bool:
    return type(scale) is int and 0 <= scale <= 18


def _fix_expiry(part: dict[str, Any]) -> None:
    """Only a pending transfer expires, at one time, which is neither past nor far ahead.

    A JSON number without a fraction is an integer for the schema, but not for this API.
    """
    seconds: Any = part.get("expires_in_s")
    is_time = _is_timestamp(part.get("expires_at"))
    if type(seconds) in (int, float) and 1 <= seconds <= EXPIRES_IN_S_MAX and seconds % 1 == 0:
        part["expires_in_s"] = 1 + int(seconds) % 86_400
    if is_time:
        part["expires_at"] = f"{datetime.now(UTC) + timedelta(days=1):%Y-%m-%dT%H:%M:%SZ}"
    if is_time and "expires_in_s" in part:
        del part["expires_at"]
    if not {"expires_at", "expires_in_s"} & part.keys() and part.get("on_expiry") in _ON_EXPIRY:
        del part["on_expiry"]
    is_completed = part.get("status", "completed") == "completed"
    if is_completed and {"expires_at", "expires_in_s"} & part.keys():
        part["status"] = "pending"


def _fix_final(part: dict[str, Any]) -> None:
    """It goes with an amount, and what is not final has a key of its own."""
    if isinstance(part.get("final"), bool):
        if "amount" in part:
            part["final"] = True
        else:
            del part["final"]


def _is_timestamp(sent: Any) -> bool:
    try:
        return isinstance(sent, str) and msgspec.convert(sent, datetime).tzinfo is not None
    except msgspec.ValidationError:
        return False


def _fix_amount(body: dict[str, Any]) -> None:
    """Which amounts fit depends on the wallet's currency: whole and small ones fit all."""
    amount = body.get("amount")
    if isinstance(amount, str) and re.fullmatch(AMOUNT_PATTERN, amount):
        body["amount"] = f"{int(amount[-1]) + 1}"
    limit = body.get("overdraft_limit")
    if isinstance(limit, str) and re.fullmatch(LIMIT_PATTERN, limit):
        body["overdraft_limit"] = limit[-1]
