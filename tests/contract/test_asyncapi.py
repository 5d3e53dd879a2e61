"""`specification/asyncapi.yaml` and the event schemas match the messages on the stream."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
import yaml

from specification.generators.openapi import FOLDER, event_schema
from tests.support.domain import (
    HASH,
    NOW,
    WALLET_ID,
    changed,
    created,
    make_transfer,
    make_wallet,
    recorded_event,
    settled,
)
from wallet.event_codec import encode_event, subject_of
from wallet.events import (
    EventType,
    RecordedEvent,
    TransferChanged,
    WalletChanged,
    WalletRewound,
)
from wallet.fold import count_refund
from wallet.state import (
    Expiry,
    FailureReason,
    Freeze,
    FreezeDirection,
    Refunded,
    TransferStatus,
    TransferType,
    WalletStatus,
)

DOCUMENT: Any = yaml.safe_load((FOLDER / "asyncapi.yaml").read_text(encoding="utf-8"))

PARTITIONS = 16


def _freeze_of(status: WalletStatus) -> Freeze | None:
    return Freeze(FreezeDirection.CREDIT, "lost") if status is WalletStatus.FROZEN else None


_PENDING = make_transfer()
_HELD = make_transfer(type=TransferType.CREDIT)
_AT_ONCE = make_transfer(status=TransferStatus.COMPLETED, settled_at=NOW)
_REFUND = recorded_event(
    count_refund(
        _AT_ONCE,
        TransferChanged(
            transfer=make_transfer(type=TransferType.CREDIT, refunds=_AT_ONCE.id),
            previous=None,
            occurred_at=NOW,
        ),
    ),
    make_wallet(pending_credit=100),
)

EVENTS: dict[str, RecordedEvent] = {
    "a wallet": created(make_wallet(version=1)),
    "a wallet with everything": created(
        make_wallet(version=1, reference_id="customer-17", metadata={"a": "b"}, scale=0)
    ),
    "a pending debit": changed(_PENDING, make_wallet(pending_debit=100)),
    "a pending credit": changed(_HELD, make_wallet(balance=5, pending_credit=100)),
    "a debit at once": changed(_AT_ONCE, make_wallet(balance=100)),
    "a completion": changed(
        settled(_HELD, TransferStatus.COMPLETED), make_wallet(), previous=TransferStatus.PENDING
    ),
    "a reversal": changed(
        settled(_HELD, TransferStatus.FAILED),
        make_wallet(balance=100),
        previous=TransferStatus.PENDING,
    ),
    "a part": changed(
        msgspec.structs.replace(_HELD, part=1),
        make_wallet(balance=5, pending_credit=99),
        previous=TransferStatus.PENDING,
    ),
    "a refund": _REFUND,
    "a completion of what is refunded": changed(
        settled(_PENDING, TransferStatus.COMPLETED, refunded=Refunded(1, 2)),
        make_wallet(balance=100),
        previous=TransferStatus.PENDING,
    ),
    "an expiry after a part": changed(
        settled(
            msgspec.structs.replace(_HELD, part=1, expiry=Expiry(NOW)),
            TransferStatus.FAILED,
            failure_reason=FailureReason.EXPIRED,
        ),
        make_wallet(balance=104),
        previous=TransferStatus.PENDING,
    ),
    "a rewound wallet": recorded_event(
        WalletRewound(
            wallet_id=WALLET_ID,
            common_version=3,
            common_hash=HASH,
            lost=(f"{WALLET_ID}:4:{HASH.hex()}",),
            occurred_at=NOW,
        ),
        make_wallet(version=4),
        previous_hash=HASH,
    ),
}


EVENTS |= {
    str(event): recorded_event(
        WalletChanged(
            type=event,
            wallet_id=WALLET_ID,
            status=status,
            freeze=_freeze_of(status),
            overdraft_limit=500,
            metadata={"a": "b"},
            reason="lost" if event is not EventType.WALLET_UPDATED else None,
            occurred_at=NOW,
        ),
        make_wallet(status=status, overdraft_limit=500, freeze=_freeze_of(status)),
    )
    for event, status in {
        EventType.WALLET_UPDATED: WalletStatus.ACTIVE,
        EventType.WALLET_FROZEN: WalletStatus.FROZEN,
        EventType.WALLET_UNFROZEN: WalletStatus.ACTIVE,
        EventType.WALLET_CLOSED: WalletStatus.CLOSED,
    }.items()
}


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for inner in node.values():
            yield from _references(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from _references(inner)


def _found(reference: str) -> Any:
    path, _, inside = reference.partition("#")
    found = json.loads((FOLDER / path).read_text(encoding="utf-8")) if path else DOCUMENT
    for step in inside.strip("/").split("/") if inside else ():
        found = found[step]
    return found


def test_every_reference_leads_somewhere() -> None:
    references = set(_references(DOCUMENT))

    assert references
    for reference in references:
        assert _found(reference)


def test_every_type_of_event_has_a_channel_and_a_message() -> None:
    messages = DOCUMENT["components"]["messages"].values()

    assert {message["name"] for message in messages} == {str(event) for event in EventType}
    assert len(DOCUMENT["channels"]) == len(DOCUMENT["operations"]) == len(EventType)
    for message in messages:
        assert _found(message["payload"]["$ref"])["properties"]["type"]["const"] == message["name"]


@pytest.mark.parametrize("channel", DOCUMENT["channels"])
def test_a_channel_is_where_its_events_are_published(channel: str) -> None:
    described = DOCUMENT["channels"][channel]
    (message,) = described["messages"].values()
    event = EventType(_found(message["$ref"])["name"])
    subject = subject_of(WALLET_ID, event, PARTITIONS)
    partition = subject.split(".")[2]

    assert described["address"].format(partition=partition, walletId=WALLET_ID) == subject


def test_what_the_document_says_first_is_what_debit_and_credit_mean() -> None:
    text = " ".join(DOCUMENT["info"]["description"].split())

    assert "Debit puts money INTO a wallet, credit takes money OUT of it" in text


@pytest.mark.parametrize("name", EVENTS)
def test_an_event_as_it_is_encoded_is_valid(name: str) -> None:
    event = json.loads(encode_event(EVENTS[name]))

    jsonschema.validate(event, event_schema(EventType(event["type"])))


@pytest.mark.parametrize("name", EVENTS)
def test_an_event_of_another_type_is_not(name: str) -> None:
    event = json.loads(encode_event(EVENTS[name]))

    for other in set(EventType) - {event["type"]}:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(event, event_schema(other))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("data/wallet/balance", 1.5),
        ("data/wallet/balance", "1e3"),
        ("data/amount", "01"),
        ("data/status", "completed"),
        ("data/type", "deposit"),
        ("data/wallet", None),
        ("walletversion", 0),
        ("subject", 7),
        ("source", "elsewhere"),
        ("specversion", "0.3"),
    ],
)
def test_a_wrong_event_is_reported(path: str, value: object) -> None:
    event = json.loads(encode_event(EVENTS["a pending debit"]))
    *steps, last = path.split("/")
    place = event
    for step in steps:
        place = place[step]
    place[last] = value

    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(event, event_schema(EventType.TRANSFER_PENDING))


@pytest.mark.parametrize("event", list(EventType))
def test_nothing_that_an_event_always_has_may_be_missing(event: EventType) -> None:
    schema = event_schema(event)
    recorded = next(one for one in EVENTS.values() if one.event.type is event)
    whole = msgspec.json.decode(encode_event(recorded))

    for name in schema["required"]:
        without = {key: text for key, text in whole.items() if key != name}
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(without, schema)
    optional = {"previousstatus", "hash", "previoushash", "keydigest"}
    assert set(whole) - set(schema["required"]) <= optional


def test_the_schemas_are_kept_beside_the_document() -> None:
    kept = {path.stem for path in Path(FOLDER / "events").glob("*.json")}

    assert kept == {str(event) for event in EventType}
