"""`specification/openapi.json` is generated from the code, and complete."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from typer.testing import CliRunner

from deploy.cli.main import app
from serve_app.app import create_app
from serve_app.http.problems import PROBLEM_JSON, PROBLEM_TYPES
from specification.generators.openapi import FOLDER, documents, outdated, write

DOCUMENT: Any = create_app().openapi()

OPERATIONS = [
    pytest.param(path, method, operation, id=operation["operationId"])
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
]

# Problems that no route lists: those of unknown routes, and the last line of a stream whose client
# does not read.
_NOWHERE = {"not_found", "method_not_allowed", "answers_not_read"}


def _media(operation: Any) -> Iterator[tuple[str, Any]]:
    """Every content of an operation, with its location."""
    for media, content in operation.get("requestBody", {}).get("content", {}).items():
        yield f"request {media}", content
    for status, answer in operation["responses"].items():
        for media, content in answer.get("content", {}).items():
            yield f"{status} {media}", content


def test_the_exported_documents_are_what_the_code_says() -> None:
    assert outdated() == [], "run `make specification` and review what changed"


def test_no_exported_document_is_left_over() -> None:
    exported = {path.name for path in (FOLDER / "events").glob("*.json")}

    openapi = {path.name for path in FOLDER.glob("openapi*.json")}
    assert {f"events/{name}" for name in exported} | openapi == set(documents())


def test_writing_the_documents_again_changes_nothing(tmp_path: Any) -> None:
    assert set(write(tmp_path)) == set(documents())
    assert write(tmp_path) == []
    (tmp_path / "openapi.json").write_text("{}")
    assert outdated(tmp_path) == ["openapi.json"]


def test_the_command_writes_them_to_the_given_folder(tmp_path: Path) -> None:
    first = CliRunner().invoke(app, ["specification", str(tmp_path)])
    second = CliRunner().invoke(app, ["specification", str(tmp_path)])

    assert first.exit_code == second.exit_code == 0
    assert len(first.output.splitlines()) == len(documents())
    assert outdated(tmp_path) == []
    assert second.output.startswith("Nothing to write")


def test_the_description_begins_with_the_meaning_of_debit_and_credit() -> None:
    description = DOCUMENT["info"]["description"]

    assert "Debit puts money INTO a wallet, credit takes money OUT of it" in description
    debit = DOCUMENT["paths"]["/v1/wallet/{wallet_id}/transfers/debit"]["post"]
    credit = DOCUMENT["paths"]["/v1/wallet/{wallet_id}/transfers/credit"]["post"]
    assert "INTO" in debit["summary"] + debit["description"]
    assert "OUT" in credit["summary"] + credit["description"]


@pytest.mark.parametrize(("path", "method", "operation"), OPERATIONS)
def test_every_route_is_described(path: str, method: str, operation: Any) -> None:
    assert operation["summary"]
    assert operation["description"]
    assert operation["tags"]
    for parameter in operation.get("parameters", []):
        assert parameter["description"], parameter["name"]
    for status, answer in operation["responses"].items():
        assert answer["description"], status
        assert answer["headers"]["X-Request-Id"], status
        assert status == "304" or answer["content"], status


@pytest.mark.parametrize(("path", "method", "operation"), OPERATIONS)
def test_every_json_content_has_an_example_that_is_valid(
    path: str, method: str, operation: Any
) -> None:
    for where, content in _media(operation):
        if "json" not in where or "ndjson" in where:
            continue
        examples = [one["value"] for one in content.get("examples", {}).values()]
        examples += [content["example"]] if "example" in content else []
        assert examples, where
        for example in examples:
            schema = {**content["schema"], "components": DOCUMENT["components"]}
            jsonschema.validate(example, schema, jsonschema.Draft202012Validator)


@pytest.mark.parametrize(("path", "method", "operation"), OPERATIONS)
def test_a_status_shows_each_of_its_problems(path: str, method: str, operation: Any) -> None:
    for status, answer in operation["responses"].items():
        shown = answer.get("content", {}).get(PROBLEM_JSON)
        if shown is None:
            continue
        assert shown["schema"] == {"$ref": "#/components/schemas/Problem"}
        for code, example in shown["examples"].items():
            assert f"`{code}`" in answer["description"]
            assert PROBLEM_TYPES[code].status == int(status) == example["value"]["status"]


def test_every_problem_belongs_to_a_route() -> None:
    shown = {
        code
        for parameters in OPERATIONS
        for _, content in _media(parameters.values[2])
        for code in content.get("examples", {})
    }

    assert shown | _NOWHERE == set(PROBLEM_TYPES)


def test_every_reference_leads_somewhere() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    text = json.dumps(DOCUMENT)

    named = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}

    assert named <= set(schemas)


@pytest.mark.parametrize(("path", "method", "operation"), OPERATIONS)
def test_every_write_takes_a_key_and_marks_replays(path: str, method: str, operation: Any) -> None:
    names = {parameter["name"] for parameter in operation.get("parameters", [])}
    if method == "get":
        assert "Idempotency-Key" not in names
        return
    assert "Idempotency-Key" in names
    for status in {"200", "201", "409", "412"} & set(operation["responses"]):
        assert "Idempotency-Replayed" in operation["responses"][status]["headers"]


@pytest.mark.parametrize(("path", "method", "operation"), OPERATIONS)
def test_every_route_of_the_api_asks_for_a_key_and_says_which(
    path: str, method: str, operation: Any
) -> None:
    if not path.startswith("/v1/"):
        assert "security" not in operation
        return
    scope = "wallets:read" if method == "get" else "wallets:write"
    if path.rsplit("/", 1)[-1] in ("freeze", "unfreeze", "close"):
        scope = "admin"
    assert operation["security"] == [{"apiKey": [scope]}, {}], "WALLET_AUTH=off needs no key"
    for status, codes in {
        "401": {"key_required", "key_invalid"},
        "403": {"scope_missing"},
        "429": {"rate_limited"},
    }.items():
        answer = operation["responses"][status]
        assert codes <= set(answer["content"][PROBLEM_JSON]["examples"])
        header = "Retry-After" if status == "429" else "WWW-Authenticate"
        assert header in answer["headers"]


def test_the_document_says_how_a_key_is_sent() -> None:
    scheme = DOCUMENT["components"]["securitySchemes"]["apiKey"]

    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    assert DOCUMENT["security"] == []
