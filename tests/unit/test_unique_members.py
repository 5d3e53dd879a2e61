"""No object of a request has a member twice, whichever decoder reads it."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.http import batch_requests, models, unique_members
from serve_app.http.problems import ProblemError
from serve_app.http.requests import parse_body
from tests.support.domain import WALLET_ID

_create = models.CreateTransferBody

ITEM = '"wallet_id":"' + WALLET_ID + '","type":"debit"'
ENTRANCES: dict[str, tuple[Callable[[bytes], object], str, str]] = {
    "single": (lambda body: parse_body(_create, body), "{%s}", ""),
    "batch": (
        lambda body: batch_requests.decode(batch_requests.wallet_batch, body),
        '{"items":[{"type":"debit","amount":"2"},{"type":"debit",%s}]}',
        "/items/1",
    ),
    "batch of many wallets": (
        lambda body: batch_requests.decode(batch_requests.multi_batch, body),
        '{"items":[{' + ITEM + ',"amount":"2"},{' + ITEM + ",%s}]}",
        "/items/1",
    ),
    "line": (
        lambda body: batch_requests.decode(batch_requests.ndjson_item, body),
        "{" + ITEM + ",%s}",
        "",
    ),
}

each_entrance = pytest.mark.parametrize("entrance", ENTRANCES)


@each_entrance
@pytest.mark.parametrize(
    ("members", "pointer"),
    [
        ('"amount":"1","amount":"1000"', "/amount"),
        ('"amount":"1","amount":"1"', "/amount"),
        ('"amount":"1" , "amount" :"1000"', "/amount"),
        ('"amount":"1","\\u0061mount":"1000"', "/amount"),
        ('"amount":"1","status":"pending","reference_id":"a:b","status":"completed"', "/status"),
        ('"amount":"1","metadata":{"a":"1"},"metadata":{}', "/metadata"),
        ('"amount":"1","metadata":{"a":"1","b":"2","a":"3"}', "/metadata/a"),
        ('"amount":"1","metadata":{"a/b~c":"1","a/b~c":"3"}', "/metadata/a~1b~0c"),
        # A colon that is decoded and not counted would make up for the member that is.
        ('"amount":"1","reference_id":"a\\u003ab","amount":"1000"', "/amount"),
        ('"amount":"1","reference_id":"a\\u003Ab","amount":"1000"', "/amount"),
        ('"amount":"1","reference_id":"x","reference_id":null', "/reference_id"),
        ('"amount":"1","reference_id":null,"reference_id":"x"', "/reference_id"),
        ('"reference_id":null,"reference_id":null,"amount":"1"', "/reference_id"),
    ],
)
def test_a_member_that_is_there_twice_is_refused_and_pointed_to(
    entrance: str, members: str, pointer: str
) -> None:
    read, template, place = ENTRANCES[entrance]

    with pytest.raises(ProblemError) as refused:
        read((template % members).encode())

    assert refused.value.code == "validation_error"
    (error,) = refused.value.errors
    assert (error.pointer, "twice" in error.detail) == (place + pointer, True)


@each_entrance
@pytest.mark.parametrize(
    "members",
    [
        '"amount":"1"',
        '"amount" : 1 , "reference_id" : null',
        '"amount":"1","reference_id":"order:10:42"',
        '"amount":"1","reference_id":"a\\u003ab"',
        '"amount":"1","reference_id":"\\\\u003a"',
        '"amount":"1","metadata":{},"status":"pending"',
        '"amount":"1","metadata":{"url":"https://x.example:8080/?a=b","a:b":":"}',
        '"amount":"1","metadata":{"quoted":"\\"amount\\":\\"1\\""}',
        '"amount":"1","metadata":{"amount":"2","metadata":"3"}',
    ],
)
def test_members_that_are_there_once_are_taken(entrance: str, members: str) -> None:
    read, template, _ = ENTRANCES[entrance]

    read((template % members).encode())


def test_a_member_of_the_batch_itself_is_there_once_too() -> None:
    item = '{"type":"debit","amount":"1"}'
    for body in (
        f'{{"items":[{item}],"items":[{item}]}}',
        f'{{"items":[{item}],"atomic":true,"atomic":false}}',
    ):
        with pytest.raises(ProblemError, match="twice"):
            batch_requests.decode(batch_requests.wallet_batch, body.encode())


def test_an_ordinary_body_is_not_decoded_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unique_members, "_decode", None)
    for read, template, _ in ENTRANCES.values():
        for members in (
            '"amount": "10.50", "status": "completed"',
            '"amount":"1","reference_id":"order:10:42","metadata":{"at":"12:30","ü":"\\u00fc"}',
        ):
            read((template % members).encode())


_names = st.sampled_from(["amount", "reference_id", "metadata", "status"])
_texts = st.text(st.sampled_from(':a"\\ü'), min_size=1, max_size=4)
_values = {
    "amount": st.sampled_from(["1", "2"]),
    "reference_id": st.none() | _texts,
    "metadata": st.dictionaries(_texts, _texts, max_size=2),
    "status": st.sampled_from(["pending", "completed"]),
}
_members = st.lists(_names, max_size=5).flatmap(
    lambda names: st.tuples(*(st.tuples(st.just(name), _values[name]) for name in names))
)


@given(members=_members, ascii_only=st.booleans(), spaced=st.booleans(), escaped=st.booleans())
@pytest.mark.parametrize("entrance", ENTRANCES)
def test_exactly_the_bodies_with_a_repeated_member_are_refused(
    entrance: str, members: Any, ascii_only: bool, spaced: bool, escaped: bool
) -> None:
    read, template, _ = ENTRANCES[entrance]
    every = [("amount", "1"), *members]
    is_repeated = len(dict(every)) < len(every)
    colon = " : " if spaced else ":"
    text = ",".join(
        json.dumps(name) + colon + json.dumps(value, ensure_ascii=ascii_only)
        for name, value in every
    )
    if escaped:
        text = text.replace("a:a", "a\\u003aa")

    refused: ProblemError | None = None
    try:
        read((template % text).encode())
    except ProblemError as problem:
        refused = problem

    assert (refused is not None) == is_repeated
    assert refused is None or "twice" in refused.detail
