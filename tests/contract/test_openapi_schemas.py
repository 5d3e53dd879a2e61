"""The schemas have the forms that client generators read, and one name for one thing."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from serve_app.app import create_app
from serve_app.openapi import version_3_0
from serve_app.openapi.components import component_schemas
from serve_app.openapi.document import ROUTES
from serve_app.openapi.shared_components import SHARED, share

DOCUMENT: Any = create_app().openapi()
SCHEMAS: Any = DOCUMENT["components"]["schemas"]
RENDERED: Any = version_3_0.rendered(DOCUMENT)

FIELDS = [
    pytest.param(name, field, schema, id=f"{name}-{field}")
    for name, component in SCHEMAS.items()
    for field, schema in component.get("properties", {}).items()
]
_REQUESTS = {name for name, one in SCHEMAS.items() if one.get("additionalProperties") is False}


def _inner(part: Any) -> Iterator[Any]:
    """Every object in ``part``."""
    if isinstance(part, dict):
        yield part
    values = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
    for value in values:
        yield from _inner(value)


@pytest.mark.parametrize(("name", "field", "schema"), FIELDS)
def test_a_field_with_choices_refers_to_their_component(name: str, field: str, schema: Any) -> None:
    assert not [inner for inner in _inner(schema) if "enum" in inner]
    assert "title" not in schema, "generators would name a type after it"


@pytest.mark.parametrize(("name", "field", "schema"), FIELDS)
def test_a_field_has_no_default_and_a_request_no_null(name: str, field: str, schema: Any) -> None:
    assert "default" not in schema
    if name in _REQUESTS:
        assert {"type": "null"} not in list(_inner(schema))


def test_only_entries_of_a_merge_patch_can_be_null_in_a_request() -> None:
    values = SCHEMAS["MetadataPatch"]["additionalProperties"]
    assert {"type": "null"} in values["anyOf"]
    assert SCHEMAS["UpdateWallet"]["properties"]["metadata"]["$ref"].endswith("/MetadataPatch")


def test_requests_are_found() -> None:
    assert {"CreateWallet", "CreateTransfer", "WalletBatch", "MultiBatchReversal"} <= _REQUESTS


def test_nothing_that_a_response_may_lack_can_be_null() -> None:
    for name, component in SCHEMAS.items():
        for field, schema in component.get("properties", {}).items():
            if field not in component.get("required", ()):
                assert {"type": "null"} not in list(_inner(schema)), f"{name}.{field}"


def test_every_id_is_a_uuid() -> None:
    fields = {"id", "wallet_id", "transfer_id", "complete", "revert"}
    parameters = [
        (parameter["name"], parameter["schema"])
        for methods in DOCUMENT["paths"].values()
        for operation in methods.values()
        for parameter in operation["parameters"]
    ]
    # An event's id is unique and opaque.
    members = [param.values[1:] for param in FIELDS if param.values[:2] != ("Event", "id")]
    ids: list[Any] = [schema for name, schema in [*parameters, *members] if name in fields]

    assert len(ids) > 20
    assert all((schema["type"], schema["format"]) == ("string", "uuid") for schema in ids)


@pytest.mark.parametrize("choice", [name for name, one in SHARED.items() if "enum" in one])
def test_choices_are_listed_once(choice: str) -> None:
    listed = [inner for inner in _inner(DOCUMENT) if inner.get("enum") == SHARED[choice]["enum"]]

    assert listed == [SCHEMAS[choice]]


def test_every_shared_component_is_used() -> None:
    text = json.dumps(DOCUMENT)

    assert [name for name in SHARED if f'"#/components/schemas/{name}"' not in text] == []


def test_patterns_need_no_lookaround() -> None:
    patterns = [inner["pattern"] for inner in _inner(DOCUMENT) if "pattern" in inner]

    assert patterns
    assert [one for one in patterns if re.search(r"\(\?|\\[AZzbB]", one)] == []


def test_a_new_amount_is_an_amount_without_any_mark() -> None:
    schemas = component_schemas(model for route in ROUTES for model in route.models)
    reference = {"$ref": "#/components/schemas/Amount"}

    for name in ("CreateTransfer", "BatchTransfer", "MultiBatchTransfer", "Transfer"):
        assert schemas[name]["properties"]["amount"] == reference


def test_a_new_field_that_may_be_null_stays_so() -> None:
    null = {"type": "null"}
    text = {"anyOf": [{"type": "string"}, null], "description": "One."}

    fields = share({"properties": {"amount": text, "id": text, "name": text}})["properties"]

    reference = {"$ref": "#/components/schemas/Amount", "description": "One."}
    assert fields["amount"] == {"anyOf": [reference, null]}
    uuid = {"type": "string", "format": "uuid", "description": "One."}
    assert fields["id"] == {"anyOf": [uuid, null]}
    assert fields["name"] == text


def test_version_3_0_has_what_3_1_has() -> None:
    assert RENDERED["openapi"] == "3.0.3"
    assert RENDERED["paths"].keys() == DOCUMENT["paths"].keys()
    more = RENDERED["components"]["schemas"].keys() - SCHEMAS.keys()
    assert SCHEMAS.keys() <= RENDERED["components"]["schemas"].keys()
    assert {name.removeprefix("Nullable") for name in more} <= SCHEMAS.keys()
    for name, component in SCHEMAS.items():
        rendered = RENDERED["components"]["schemas"][name]
        assert rendered.get("properties", {}).keys() == component.get("properties", {}).keys()
        assert rendered.get("required") == component.get("required")
    assert DOCUMENT["openapi"] == "3.1.0", "the document itself is not changed"


def test_version_3_0_has_nothing_that_3_0_lacks() -> None:
    for schema in _inner(RENDERED["components"]["schemas"]):
        assert not {"const", "examples", "propertyNames"} & schema.keys()
        assert schema.get("type") != "null"
        assert "$ref" not in schema or len(schema) == 1


def test_version_3_0_marks_what_can_be_null() -> None:
    schemas = RENDERED["components"]["schemas"]
    transfer = schemas["Transfer"]["properties"]

    assert transfer["reference_id"] == {"type": "string", "nullable": True}
    assert transfer["failure_reason"] == {"$ref": "#/components/schemas/FailureReason"}
    assert schemas["FailureReason"]["nullable"] is True
    assert schemas["FailureReason"]["enum"] == ["reverted", "expired", None]
    assert schemas["WalletBatchResults"]["properties"]["wallet"] == {
        "allOf": [{"$ref": "#/components/schemas/Balances"}],
        "description": "null: the wallet doesn't exist.",
        "type": "object",
        "nullable": True,
    }
    assert "nullable" not in schemas["Balances"], "a transfer's wallet is never null"


def test_version_3_0_has_a_second_component_for_what_is_sometimes_null() -> None:
    side = {"type": "string", "enum": ["in", "out"], "title": "Side"}
    reference = {"$ref": "#/components/schemas/Side"}
    fields = {"always": reference, "at_times": {"anyOf": [reference, {"type": "null"}]}}
    components = {"schemas": {"Side": side, "One": {"properties": fields}}}

    schemas = version_3_0.rendered({"components": components})["components"]["schemas"]

    assert schemas["One"]["properties"] == {
        "always": reference,
        "at_times": {"$ref": "#/components/schemas/NullableSide"},
    }
    assert schemas["Side"] == side
    assert schemas["NullableSide"]["enum"] == ["in", "out", None]
    assert schemas["NullableSide"]["nullable"] is True


def test_version_3_0_has_scopes_in_words_only() -> None:
    operation = RENDERED["paths"]["/v1/wallet/{wallet_id}"]["get"]

    assert operation["security"] == [{"apiKey": []}, {}]
    assert "wallets:read" in RENDERED["info"]["description"]
