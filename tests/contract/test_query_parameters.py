"""Every query is read exactly as `specification/openapi.json` describes its parameters."""

import re
from typing import Any, NamedTuple

import jsonschema
import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

from serve_app.app import create_app
from serve_app.routes.journal import JournalQuery
from serve_app.routes.list_queries import METADATA, TransferQuery, WalletListQuery
from serve_app.routes.past_wallets import WalletQuery
from serve_app.routes.read_requests import FreshQuery
from serve_app.routes.statements import StatementQuery
from tests.support.domain import WALLET_ID
from wallet.api_limits import METADATA_KEY_MAX, METADATA_VALUE_MAX, REFERENCE_ID_MAX, VERSION_MAX

DOCUMENT: Any = create_app().openapi()
QUERIES: dict[str, type[BaseModel]] = {
    "/v1/wallet": WalletListQuery,
    "/v1/wallet/{wallet_id}": WalletQuery,
    "/v1/wallet/{wallet_id}/transfers": TransferQuery,
    "/v1/wallet/{wallet_id}/transfers/{transfer_id}": FreshQuery,
    "/v1/wallet/{wallet_id}/events": JournalQuery,
    "/v1/wallet/{wallet_id}/statement": StatementQuery,
}
_OUTSIDE_OF_MODELS = {"/openapi.json", "/readyz"}
_UNUSUAL = [
    *map(chr, range(0x100)),
    *"\u0130\u0378\u2028\u2029\ufeff\ufffe\uffff\U0001f600\U0010ffff",
]
VALUES = [
    "",
    "x",
    *(f"a{character}b" for character in _UNUSUAL),
    *(ending + character for ending in ("x", "1", "EUR", WALLET_ID) for character in "\n\r\x00 "),
    *("0", "1", "-1", "+1", "00", "01", "1.0", "0.0", "1_0", "1e3", "\u0661", "200", "201", "1000"),
    *(str(VERSION_MAX), str(VERSION_MAX + 1), "9" * 38, "9" * 39, "0." + "1" * 18, "0." + "1" * 19),
    *("EUR", "eur", "E", "ABCDEFGHIJKL", "ABCDEFGHIJKLM", WALLET_ID, WALLET_ID.upper()),
    *("active", "frozen", "closed", "pending", "completed", "failed", "debit", "credit"),
    *("asc", "desc", "eventual", "strong", "Strong"),
    *("2026-01-02T03:04:05Z", "2026-01-02", "2026-01-02T03:04:05", "2026-01-02t03:04:05.5+01:00"),
    *("x" * length for length in (11, 12, 32, 33, METADATA_VALUE_MAX, METADATA_VALUE_MAX + 1)),
    *("x" * length for length in (REFERENCE_ID_MAX, REFERENCE_ID_MAX + 1)),
]


class Parameter(NamedTuple):
    path: str
    name: str
    schema: Any


def _parameters() -> list[Parameter]:
    return [
        Parameter(path, parameter["name"], parameter["schema"])
        for path, item in DOCUMENT["paths"].items()
        for parameter in item.get("get", {}).get("parameters", ())
        if parameter["in"] == "query" and path not in _OUTSIDE_OF_MODELS
    ]


PARAMETERS = [
    pytest.param(one, id=f"{one.path.removeprefix('/v1/wallet')}?{one.name}")
    for one in _parameters()
    if one.name != METADATA
]


def is_accepted(path: str, query: dict[str, str]) -> bool:
    try:
        TypeAdapter(QUERIES[path]).validate_python(query)
    except ValidationError:
        return False
    return True


def _as_in_ecma_script(part: Any) -> Any:
    """Python's ``$`` also matches before a line break at the end, a JSON schema's does not."""
    if isinstance(part, list):
        return [_as_in_ecma_script(one) for one in part]
    if not isinstance(part, dict):
        return part
    return {
        name: re.sub(r"\$$", r"\\Z", value) if name == "pattern" else _as_in_ecma_script(value)
        for name, value in part.items()
    }


COMPONENTS = _as_in_ecma_script(DOCUMENT["components"])


def is_described(schema: Any, value: Any) -> bool:
    whole = {"allOf": [_as_in_ecma_script(schema)], "components": COMPONENTS}
    validator = jsonschema.Draft202012Validator
    return validator(whole, format_checker=validator.FORMAT_CHECKER).is_valid(value)


def as_parameter(schema: Any, sent: str) -> object:
    """``sent`` as a client that follows the description means it: digits are a number."""
    is_number = schema.get("type") == "integer" and sent.isascii() and sent.isdecimal()
    return int(sent) if is_number else sent


@pytest.mark.parametrize("parameter", PARAMETERS)
def test_a_parameter_is_accepted_as_it_is_described(parameter: Parameter) -> None:
    path, name, schema = parameter
    described = {sent for sent in VALUES if is_described(schema, as_parameter(schema, sent))}
    accepted = {sent for sent in VALUES if is_accepted(path, {name: sent})}

    assert described ^ accepted == set()
    assert described, "one of the values fits"
    assert described != set(VALUES)


@pytest.mark.parametrize("path", ["/v1/wallet", "/v1/wallet/{wallet_id}/transfers"])
def test_an_entry_is_accepted_as_it_is_described(path: str) -> None:
    (schema,) = (one.schema for one in _parameters() if (one.path, one.name) == (path, METADATA))
    keys = [*VALUES, "k" * METADATA_KEY_MAX, "k" * (METADATA_KEY_MAX + 1)]
    queries = [{f"{METADATA}.{key}": "v"} for key in keys]
    queries += [{f"{METADATA}.key": sent} for sent in VALUES]
    queries += [{f"{METADATA}.{count}": "" for count in range(most)} for most in (20, 21)]

    wrong = [sent for sent in queries if is_described(schema, sent) != is_accepted(path, sent)]

    assert wrong == []
