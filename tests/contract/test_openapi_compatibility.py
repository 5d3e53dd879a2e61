"""Within v1, the contract changes by additions only: nothing released is removed.

``specification/released/`` has the documents of the last release. A release copies them there.
"""

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from specification.generators.openapi import FOLDER, documents
from tests.contract.compatibility import answer_breaks, api_breaks

RELEASED = FOLDER / "released"
EVENTS = sorted(path.name for path in (RELEASED / "events").glob("*.json"))


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


TODAY: Any = {path: json.loads(text) for path, text in documents().items()}
DEBIT = "/v1/wallet/{wallet_id}/transfers/debit"


SAID_IN_WORDS = re.compile(
    r" body.*(/amount: is no integer|/(reference_id|currency|scale|idempotency_key): is no null) "
    r"any more"
)
"""What requests may have by the description only: schemas have the one form that every generator
reads. `tests/contract/test_request_bodies.py` holds that it is accepted."""


def test_the_api_takes_nothing_away_that_was_released() -> None:
    found = api_breaks(_json(RELEASED / "openapi.json"), TODAY["openapi.json"])

    assert [one for one in found if not SAID_IN_WORDS.search(one)] == []


@pytest.mark.parametrize("name", EVENTS)
def test_an_event_takes_nothing_away_that_was_released(name: str) -> None:
    today = TODAY.get(f"events/{name}")

    assert today is not None, "a released event type was removed"
    released = _json(RELEASED / "events" / name)
    assert list(answer_breaks(name, released, today, released, today)) == []


def test_the_stream_keeps_every_subject_that_was_released() -> None:
    today = subjects_of(FOLDER / "asyncapi.yaml")

    assert subjects_of(RELEASED / "asyncapi.yaml") <= today


def subjects_of(document: Path) -> set[tuple[str, str]]:
    """Each channel's subject and messages."""
    channels = yaml.safe_load(document.read_text(encoding="utf-8"))["channels"].values()
    return {(channel["address"], name) for channel in channels for name in channel["messages"]}


def test_there_is_a_release_of_every_document() -> None:
    assert {path.name for path in (FOLDER / "events").glob("*.json")} >= set(EVENTS)
    assert subjects_of(RELEASED / "asyncapi.yaml")


def _schema(document: Any, name: str) -> Any:
    return document["components"]["schemas"][name]


BREAKS: dict[str, Callable[[Any], Any]] = {
    "removed": lambda api: api["paths"].pop("/problems"),
    "POST /v1/wallet: removed": lambda api: api["paths"]["/v1/wallet"].pop("post"),
    "409: removed": lambda api: api["paths"][DEBIT]["post"]["responses"].pop("409"),
    "header Location removed": lambda api: api["paths"][DEBIT]["post"]["responses"]["201"][
        "headers"
    ].pop("Location"),
    "problem wallet_frozen removed": lambda api: api["paths"][DEBIT]["post"]["responses"]["409"][
        "content"
    ]["application/problem+json"]["examples"].pop("wallet_frozen"),
    "/balance: removed": lambda api: _schema(api, "Wallet")["properties"].pop("balance"),
    "/balance: may be missing now": lambda api: _schema(api, "Wallet")["required"].remove(
        "balance"
    ),
    "value 'failed' removed": lambda api: _schema(api, "TransferStatus")["enum"].remove("failed"),
    "/failure_reason: value 'reverted' removed": lambda api: _schema(api, "FailureReason")[
        "enum"
    ].remove("reverted"),
    "value 'completed' removed": lambda api: _schema(api, "NewTransferStatus")["enum"].remove(
        "completed"
    ),
    "/balance: may be null now": lambda api: _schema(api, "Wallet")["properties"].update(
        balance={"anyOf": [{"$ref": "#/components/schemas/Balance"}, {"type": "null"}]}
    ),
    "[][]/revert: not taken any more": lambda api: _schema(api, "BatchReversal")["properties"].pop(
        "revert"
    ),
    "operationId is not debit_wallet any more": lambda api: api["paths"][DEBIT]["post"].update(
        operationId="put_in"
    ),
    "/status: is required now": lambda api: _schema(api, "CreateTransfer")["required"].append(
        "status"
    ),
    "/metadata: not taken any more": lambda api: _schema(api, "CreateTransfer")["properties"].pop(
        "metadata"
    ),
    "/version: is no integer any more": lambda api: _schema(api, "Wallet")["properties"][
        "version"
    ].update(type="string"),
    "a body is required now": lambda api: api["paths"]["/v1/wallet"]["post"]["requestBody"].update(
        required=True
    ),
    "parameter cursor removed": lambda api: _drop_parameter(api, "cursor"),
    "no application/x-ndjson body any more": lambda api: api["paths"]["/v1/transfers/batch"][
        "post"
    ]["requestBody"]["content"].pop("application/x-ndjson"),
}


def _drop_parameter(api: Any, name: str) -> None:
    operation = api["paths"]["/v1/wallet/{wallet_id}/transfers"]["get"]
    operation["parameters"] = [one for one in operation["parameters"] if one["name"] != name]


@pytest.mark.parametrize("reported", BREAKS)
def test_a_breaking_change_is_reported(reported: str) -> None:
    changed = copy.deepcopy(TODAY["openapi.json"])
    BREAKS[reported](changed)

    found = api_breaks(TODAY["openapi.json"], changed)

    assert any(reported in one for one in found), found


def test_an_addition_breaks_nothing() -> None:
    changed = copy.deepcopy(TODAY["openapi.json"])
    changed["paths"]["/v1/new"] = {"get": {"responses": {}}}
    _schema(changed, "Wallet")["properties"]["owner"] = {"type": "string"}
    _schema(changed, "Wallet")["required"].append("owner")
    _schema(changed, "CreateTransfer")["properties"]["memo"] = {"type": "string"}
    _schema(changed, "TransferStatus")["enum"].append("expired")

    assert api_breaks(TODAY["openapi.json"], changed) == []
