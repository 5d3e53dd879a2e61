"""Fingerprints: two requests are the same if the client asked for the same."""

from collections.abc import Callable

import msgspec
import pytest

from serve_app.http.fingerprints import batch_fingerprint, fingerprint, many_wallets_fingerprint
from tests.support.domain import transfer_id, wallet_id
from tests.support.write_side import create_wallet, credit, debit, settle
from wallet.commands import Command, CommandItem, Idempotency
from wallet.ids import IdempotencyKey

DIFFERENT: dict[str, Command] = {
    "debit": debit("1"),
    "credit": credit("1"),
    "more": debit("2"),
    "pending": debit("1", status="pending"),
    "with a reference": debit("1", reference_id="r"),
    "with metadata": debit("1", metadata={"a": "b"}),
    "with other metadata": debit("1", metadata={"a": "c"}),
    "complete": settle(transfer_id(1), "completed"),
    "revert": settle(transfer_id(1), "failed"),
    "complete another": settle(transfer_id(2), "completed"),
    "complete with a reference": settle(transfer_id(1), "completed", reference_id="r"),
    "wallet": create_wallet(wallet_id(1)),
    "wallet of another currency": create_wallet(wallet_id(1), currency="EUR"),
    "wallet of another scale": create_wallet(wallet_id(1), scale=3),
    "wallet with a reference": create_wallet(wallet_id(1), reference_id="r"),
}


def test_different_requests_have_different_fingerprints() -> None:
    names: dict[bytes, str] = {}
    for name, command in DIFFERENT.items():
        same = names.setdefault(fingerprint(command), name)
        assert same == name, f"{name} has the fingerprint of {same}"


@pytest.mark.parametrize(
    "ask",
    [
        lambda number: debit("1", transfer_id=transfer_id(number)),
        lambda number: create_wallet(wallet_id(number)),
    ],
    ids=["transfer", "wallet"],
)
def test_ids_that_the_service_mints_make_no_difference(ask: Callable[[int], Command]) -> None:
    assert fingerprint(ask(1)) == fingerprint(ask(2))


def test_the_order_of_metadata_makes_no_difference() -> None:
    one, other = {"a": "1", "b": "2"}, {"b": "2", "a": "1"}
    assert fingerprint(debit("1", metadata=one)) == fingerprint(debit("1", metadata=other))


def test_a_fingerprint_is_the_same_after_a_restart() -> None:
    # It is stored with the key: a changed one would refuse every late duplicate.
    asked = debit("10.5", reference_id="r", metadata={"b": "2", "a": "1"})
    assert fingerprint(asked).hex() == (
        "91d265f4d571f0de627de4f344dc782f6161c986c22c50409997951875b9012c"
    )
    items = [CommandItem(command=debit("1")), CommandItem(command=credit("1"))]
    assert batch_fingerprint(items).hex() == (
        "370368caec3fc21b2e0ada7d663a23f5ecb744a49a64bb9e58eab9c3c8ec9129"
    )
    assert many_wallets_fingerprint(["a", "b"], [b"1", b"2"]).hex() == (
        "7c90213ed6de1cda5a762452038cc88b993f75980871766e850357b88ed3a8ac"
    )


def test_a_batch_is_its_items_in_order_with_their_keys() -> None:
    one, two = CommandItem(command=debit("1")), CommandItem(command=credit("1"))
    keyed = msgspec.structs.replace(
        one, idempotency=Idempotency(key=IdempotencyKey("k"), fingerprint=fingerprint(one.command))
    )
    prints = [
        batch_fingerprint([one, two]),
        batch_fingerprint([two, one]),
        batch_fingerprint([one]),
        batch_fingerprint([one, two], atomic=True),
        batch_fingerprint([keyed, two]),
    ]
    assert len(set(prints)) == len(prints)
    again = [CommandItem(command=debit("1")), CommandItem(command=credit("1"))]
    assert batch_fingerprint(again) == prints[0]
    assert fingerprint(one.command) not in prints


def test_a_batch_over_many_wallets_is_what_it_asks_of_each_and_where() -> None:
    one, other = b"1" * 32, b"2" * 32
    prints = [
        many_wallets_fingerprint(["a", "b", "a"], [one, other]),
        many_wallets_fingerprint(["a", "a", "b"], [one, other]),
        many_wallets_fingerprint(["b", "a", "a"], [one, other]),
        many_wallets_fingerprint(["a", "b", "a"], [other, one]),
        many_wallets_fingerprint(["a", "a"], [one]),
    ]
    assert len(set(prints)) == len(prints)
