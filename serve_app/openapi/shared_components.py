"""Schemas that several components share, each under one name.

Generated clients get one type for one thing: `TransferType`, not an anonymous type per field. In
this API the name of a field says what it is (an ``amount`` is an `Amount` everywhere), and its
values say which enumeration it has. So models need no marks, and neither do new fields.

JSON Schema has more forms than client generators can read. Here are the plain ones: patterns
without lookahead, no unions of types in requests, no defaults
(`specification/decisions/0073-schemas-for-generators.md`).
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final, get_args

import msgspec

from serve_app.http import request_fields
from serve_app.http.problems import PROBLEM_TYPES, Applied
from wallet.state import (
    FailureReason,
    FreezeDirection,
    OnExpiry,
    TransferStatus,
    TransferType,
    WalletStatus,
)

Json = dict[str, Any]

_ROOT: Final = "#/components/schemas/"

AMOUNT_PATTERN: Final = r"^([1-9][0-9]{0,37}(\.[0-9]{1,18})?|0\.[0-9]{0,17}[1-9][0-9]{0,17})$"
"""Decimals greater than zero. Matches all that `canonical_amount` accepts. Beyond that it matches
amounts below 1 with more than 18 decimals, which no currency has."""

LIMIT_PATTERN: Final = r"^(0|[1-9][0-9]{0,37})(\.[0-9]{1,18})?$"

BALANCE_PATTERN: Final = r"^-?(0|[1-9][0-9]{0,37})(\.[0-9]{1,18})?$"

_NULL: Final[Json] = {"type": "null"}

UUID: Final[Json] = {"type": "string", "format": "uuid"}

_VERSION: Final[Json] = {"type": "integer", "format": "int64"}


def _one_of(description: str, values: Iterable[str]) -> Json:
    return {"description": description, "enum": [str(value) for value in values], "type": "string"}


SHARED: Final[dict[str, Json]] = {
    "Amount": {
        "description": "Decimal string greater than zero, with at most as many decimals as the "
        "wallet's currency has. Nothing is rounded. Requests may also have a JSON integer, a "
        "number of whole units; a number with a decimal point or an exponent is refused.",
        "examples": ["10.50"],
        "pattern": AMOUNT_PATTERN,
        "type": "string",
    },
    "Applied": _one_of(
        "On 503 and 504: whether this request may have been applied. Even with `no`, an earlier "
        "request with the same Idempotency-Key may have been applied: retry with the key to find "
        "out.",
        get_args(Applied),
    ),
    "Balance": {
        "description": "Decimal string with as many decimals as the wallet's currency has.",
        "examples": ["10.50"],
        "pattern": BALANCE_PATTERN,
        "type": "string",
    },
    "Consistency": _one_of(
        "`strong`: read the committed state instead of the projection.", ("eventual", "strong")
    )
    | {"default": "eventual"},
    "Effect": _one_of(
        "Where the money goes: `in`to the wallet (a debit) or `out` of it (a credit).",
        ("in", "out"),
    ),
    "FailureReason": _one_of("Why a transfer failed.", FailureReason),
    "FreezeDirection": _one_of(
        "`debit`: money INTO the wallet stops. `credit`: money OUT of it stops.", FreezeDirection
    ),
    "Limit": {
        "description": "Decimal string of zero or more, with at most as many decimals as the "
        "wallet's currency has. Requests may also have a JSON integer.",
        "examples": ["100.00"],
        "pattern": LIMIT_PATTERN,
        "type": "string",
    },
    "Metadata": msgspec.json.schema(request_fields.Metadata),
    "MetadataPatch": msgspec.json.schema(request_fields.MetadataPatch),
    "NewTransferStatus": _one_of(
        "`pending` (if left out): complete or revert it later. A pending credit holds its amount "
        "immediately; a pending debit changes the balance only when completed. `completed`: takes "
        "effect immediately.",
        (TransferStatus.PENDING, TransferStatus.COMPLETED),
    ),
    "OnExpiry": _one_of(
        "What becomes of a transfer that is still pending when it expires. `fail`: it fails with "
        "failure_reason `expired`, and what is held is released. `complete`: it completes, as a "
        "scheduled transfer does; if its direction is frozen then, it fails.",
        OnExpiry,
    ),
    "Order": _one_of("`asc`: oldest first. `desc`: newest first.", ("asc", "desc"))
    | {"default": "asc"},
    "ProblemCode": _one_of(
        "Stable code for programs. Later releases may add codes: treat one that you don't know by "
        "its status.",
        PROBLEM_TYPES,
    ),
    "TransferStatus": _one_of(
        "A pending transfer becomes completed or failed, and stays so.", TransferStatus
    ),
    "TransferType": _one_of(
        "`debit` puts money INTO the wallet, `credit` takes money OUT of it.", TransferType
    ),
    "WalletStatus": _one_of(
        "A frozen wallet has no new transfers in the direction that is frozen, a closed one none.",
        WalletStatus,
    ),
}

_COMPONENT_OF_FIELD: Final = {
    "amount": "Amount",
    "applied": "Applied",
    "balance": "Balance",
    "balance_change": "Balance",
    "completed_amount": "Amount",
    "pending_amount": "Amount",
    "code": "ProblemCode",
    "metadata": "Metadata",
    "overdraft_limit": "Limit",
    "pending_credit": "Balance",
    "pending_debit": "Balance",
}

_SCHEMA_OF_FIELD: Final[dict[str, Json]] = {
    "complete": UUID,
    "id": UUID,
    "next_version": _VERSION,
    "revert": UUID,
    "transfer_id": UUID,
    "version": _VERSION,
    "wallet_id": UUID,
    "wallet_version": _VERSION,
    "walletversion": _VERSION,
}

_IN_EVERY_RESPONSE: Final = frozenset({"effect", "frozen", "frozen_reason", "overdraft_limit"})
"""The models may lack them, because events of earlier releases do."""

_COMPONENT_OF_VALUES: Final = {
    frozenset(schema["enum"]): name for name, schema in SHARED.items() if "enum" in schema
}


def shared(name: str) -> Json:
    """The reference to a shared component."""
    assert name in SHARED, name
    return {"$ref": _ROOT + name}


def share(component: Json, own: Mapping[str, Json] | None = None) -> Json:
    """``component`` with shared schemas in its fields, and without nulls that nobody sends.

    A request (which takes no unknown fields) leaves out what it doesn't say. A response leaves out
    the fields whose default is null. ``own``: schemas of fields that are always there, and whose
    name means something else.
    """
    if "properties" not in component:
        return component
    is_request = component.get("additionalProperties") is False
    fields = {
        name: _field(name, schema, is_request=is_request)
        for name, schema in component["properties"].items()
    } | dict(own or {})
    required = set(component.get("required", ())) | set(own or {})
    if not is_request:
        required |= _IN_EVERY_RESPONSE & set(fields)
    found = component | {"properties": fields}
    return found | {"required": [one for one in fields if one in required]} if required else found


def _field(name: str, schema: Json, *, is_request: bool) -> Json:
    if is_request or schema.get("default", "") is None:
        schema = _without_null(schema)
    if is_request:
        schema = {key: value for key, value in schema.items() if key != "default"}
    if name in _COMPONENT_OF_FIELD:
        component = "MetadataPatch" if _is_merge_patch(schema) else _COMPONENT_OF_FIELD[name]
        found = _referring(schema, component)
    elif name in _SCHEMA_OF_FIELD:
        found = {key: part for key, part in schema.items() if key != "anyOf"}
        found |= _SCHEMA_OF_FIELD[name]
    else:
        return _with_shared_values(schema)
    return {"anyOf": [found, _NULL]} if _NULL in schema.get("anyOf", ()) else found


def _is_merge_patch(schema: Json) -> bool:
    """Whether null removes an entry."""
    values = [schema.get("additionalProperties"), *schema.get("patternProperties", {}).values()]
    return any(isinstance(one, dict) and _NULL in one.get("anyOf", ()) for one in values)


def _referring(schema: Json, component: str) -> Json:
    """A reference, with what the field says beyond its component."""
    description = schema.get("description")
    if description in (None, SHARED[component].get("description")):
        return shared(component)
    return shared(component) | {"description": description}


def _with_shared_values(schema: Json) -> Json:
    """References in place of enumerations, also of one that may be null."""
    options = schema.get("anyOf")
    if options is not None:
        return schema | {"anyOf": [_with_shared_values(option) for option in options]}
    component = _COMPONENT_OF_VALUES.get(frozenset(schema.get("enum", ())))
    return schema if component is None else _referring(schema, component)


def _without_null(schema: Json) -> Json:
    """``schema`` without the option null, and without a default of null."""
    own = {key: value for key, value in schema.items() if key not in ("anyOf", "default")}
    options = [option for option in schema.get("anyOf", ()) if option != _NULL]
    if len(options) > 1:
        return own | {"anyOf": options}
    return (options[0] if options else {}) | own
