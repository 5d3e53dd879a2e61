"""Every request decoder accepts exactly the bodies that `specification/openapi.json` describes.

Besides those it accepts what the descriptions say in words (`IN_WORDS`): their schemas would be
unions, which client generators can't read.
"""

import itertools
from collections.abc import Callable
from typing import Any

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from starlette.requests import Request

from serve_app.app import create_app
from serve_app.http import batch_requests, models
from serve_app.http.problems import ProblemError
from serve_app.http.requests import if_match_of, parse_body
from serve_app.openapi.route_spec import IF_MATCH_PATTERN
from serve_app.openapi.shared_components import AMOUNT_PATTERN, LIMIT_PATTERN
from tests.support.domain import WALLET_ID
from wallet import money
from wallet.money import SCALE_MAX

COMPONENTS: Any = create_app().openapi()["components"]


def read_single(body: bytes) -> object:
    return parse_body(models.CreateTransferBody, body)


def read_wallet(body: bytes) -> object:
    return parse_body(models.CreateWalletBody, body)


def read_wallet_batch(body: bytes) -> object:
    batch = batch_requests.decode(batch_requests.wallet_batch, body)
    return batch_requests.to_commands(batch.items, [""] * len(batch.items))


def read_multi_batch(body: bytes) -> object:
    batch = batch_requests.decode(batch_requests.multi_batch, body)
    return batch_requests.to_commands(batch.items, [""] * len(batch.items))


def is_accepted(read: Callable[[bytes], object], body: Any) -> bool:
    try:
        read(msgspec.json.encode(body))
    except ProblemError as problem:
        return problem.code != "validation_error"
    return True


def is_described(component: str, body: Any) -> bool:
    schema = {"$ref": f"#/components/schemas/{component}", "components": COMPONENTS}
    return jsonschema.Draft202012Validator(schema).is_valid(body)


FIELDS = {
    "type": "debit",
    "amount": "10.50",
    "status": "completed",
    "complete": WALLET_ID,
    "revert": WALLET_ID,
    "reference_id": "order-1042",
    "unknown": "",
}
COMBINATIONS = [
    names for count in range(len(FIELDS) + 1) for names in itertools.combinations(FIELDS, count)
]


@pytest.mark.parametrize("names", COMBINATIONS, ids="+".join)
def test_an_item_is_accepted_in_the_described_forms(names: tuple[str, ...]) -> None:
    item = {name: FIELDS[name] for name in names}
    with_wallet = {"wallet_id": WALLET_ID, **item}
    expected = is_described("WalletBatch", {"items": [item]})

    assert is_accepted(read_wallet_batch, {"items": [item]}) == expected
    assert is_described("MultiBatch", {"items": [with_wallet]}) == expected
    assert is_accepted(read_multi_batch, {"items": [with_wallet]}) == expected
    assert not is_described("MultiBatch", {"items": [item]})
    assert not is_accepted(read_multi_batch, {"items": [item]})


def test_items_of_each_form_are_among_the_combinations() -> None:
    accepted = {
        names
        for names in COMBINATIONS
        if is_accepted(read_wallet_batch, {"items": [{name: FIELDS[name] for name in names}]})
    }

    forms = {("type", "amount"), ("type", "amount", "status"), ("complete",), ("revert",)}
    forms.add(("amount", "complete"))
    assert accepted == forms | {(*form, "reference_id") for form in forms}


def _entries(count: int) -> dict[str, str]:
    return {str(number): "" for number in range(count)}


GOOD: dict[str, list[Any]] = {
    "amount": ["1", "0.01", "0.10", "10.50", "9" * 38, f"0.{'0' * 17}1", f"0.{'9' * 18}"],
    "status": ["pending", "completed"],
    "reference_id": ["a", "ü" * 255],
    "metadata": [{}, {"a": ""}, {"ü" * 64: "ü" * 512}, {"a": "x\ny"}, _entries(20)],
    "expires_at": ["2026-03-01T12:00:00Z", "2026-03-01T12:00:00.123456-11:30"],
    "expires_in_s": [1, 315_576_000],
}
BAD: dict[str, list[Any]] = {
    "amount": [
        *("0", "0.00", "01", "+1", "-1", "1.", ".1", "1e3", "", " 1", "9" * 39),
        *(f"0.{'0' * 18}1", 0, -1, 10**38, 1.5, True, None, [], {}),
    ],
    "status": ["failed", "", None, 1],
    "reference_id": ["", "ü" * 256, "a\nb", "\x7f", 1, []],
    "metadata": [
        *({"": "a"}, {"a" * 65: ""}, {"a": "x" * 513}, _entries(21), {"a\tb": ""}),
        *({"a": "\x00"}, {"a": 1}, {"a": None}, None, []),
    ],
    "expires_at": [1_800_000_000, None, [], True],
    "expires_in_s": [0, -1, 315_576_001, 1.5, "1", True, None],
    "on_expiry": ["", "revert", None, 1],
}
IN_WORDS: dict[str, list[Any]] = {"amount": [1, 10**38 - 1], "reference_id": [None]}
VALUES = [
    pytest.param(field, value, is_good, id=f"{field}-{is_good}-{index}")
    for is_good, values in ((True, GOOD), (False, BAD))
    for field in values
    for index, value in enumerate(values[field])
]


@pytest.mark.parametrize(("field", "value", "is_good"), VALUES)
def test_a_field_has_the_described_values_alone_and_in_a_batch(
    field: str, value: Any, is_good: bool
) -> None:
    single = {"amount": "1", field: value}
    batch = {"items": [{"type": "debit", **single}]}

    assert is_described("CreateTransfer", single) == is_good
    assert is_accepted(read_single, single) == is_good
    assert is_described("WalletBatch", batch) == is_good
    assert is_accepted(read_wallet_batch, batch) == is_good


@pytest.mark.parametrize(
    ("key", "is_good"),
    [
        *((key, True) for key in ("k", "~" * 255)),
        *((key, False) for key in ("", "~" * 256, "a b", "ü", 1)),
    ],
)
def test_an_items_idempotency_key_has_the_described_values(key: Any, is_good: bool) -> None:
    batch = {"items": [{"type": "debit", "amount": "1", "idempotency_key": key}]}

    assert is_described("WalletBatch", batch) == is_good
    assert is_accepted(read_wallet_batch, batch) == is_good


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field, values in IN_WORDS.items() for value in values]
)
def test_what_is_said_in_words_is_accepted_and_not_described(field: str, value: Any) -> None:
    single = {"amount": "1", field: value}
    batch = {"items": [{"type": "debit", **single}]}

    assert not is_described("CreateTransfer", single)
    assert is_accepted(read_single, single)
    assert not is_described("WalletBatch", batch)
    assert is_accepted(read_wallet_batch, batch)


def test_null_counts_as_left_out_where_the_description_says_so() -> None:
    nulls = {"reference_id": None, "currency": None, "scale": None}
    batch = {"items": [{"type": "debit", "amount": "1", "idempotency_key": None}]}

    assert not is_described("CreateWallet", nulls)
    assert read_wallet(msgspec.json.encode(nulls)) == read_wallet(b"{}")
    assert not is_described("WalletBatch", batch)
    assert is_accepted(read_wallet_batch, batch)


@pytest.mark.parametrize(
    ("component", "model", "body"),
    [
        ("FreezeWallet", models.FreezeBody, {"reason": None}),
        ("ControlWallet", models.ControlBody, {"reason": None}),
        ("UpdateWallet", models.UpdateWalletBody, {"metadata": None}),
        ("UpdateWallet", models.UpdateWalletBody, {"overdraft_limit": None}),
        ("UpdateWallet", models.UpdateWalletBody, {"overdraft_limit": 5}),
        ("CreateWallet", models.CreateWalletBody, {"overdraft_limit": 0}),
    ],
)
def test_what_controls_a_wallet_has_its_words_too(
    component: str, model: type[BaseModel], body: Any
) -> None:
    assert not is_described(component, body)
    assert model.model_validate_json(msgspec.json.encode(body))


@given(st.from_regex(LIMIT_PATTERN, fullmatch=True))
def test_a_limit_is_described_as_it_is_accepted(limit: str) -> None:
    body = {"overdraft_limit": limit}

    assert is_described("CreateWallet", body)
    assert models.CreateWalletBody.model_validate_json(msgspec.json.encode(body))


@given(st.from_regex(AMOUNT_PATTERN, fullmatch=True))
def test_an_amount_of_the_pattern_is_refused_for_its_decimals_only(amount: str) -> None:
    decimals = len(amount.partition(".")[2])

    assert is_accepted(read_single, {"amount": amount}) == (decimals <= SCALE_MAX)


@given(st.from_regex(money.AMOUNT_PATTERN, fullmatch=True))
def test_an_amount_that_is_accepted_matches_the_pattern(amount: str) -> None:
    assert is_described("Amount", amount) == is_accepted(read_single, {"amount": amount})


@given(st.from_regex(IF_MATCH_PATTERN, fullmatch=True))
def test_if_match_is_described_as_it_is_accepted(sent: str) -> None:
    headers = [(b"if-match", sent.encode())]
    versions = if_match_of(Request({"type": "http", "headers": headers}))

    assert versions is None or len(versions) == sent.count(",") + 1
