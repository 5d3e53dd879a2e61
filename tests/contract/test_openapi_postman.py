"""The Postman collection uses routes of the OpenAPI document and asserts each response."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from serve_app.app import create_app
from specification.generators.openapi import FOLDER

COLLECTION: Any = json.loads((FOLDER / "wallet.postman_collection.json").read_text("utf-8"))
ROUTES = {
    (method.upper(), path)
    for path, methods in create_app().openapi()["paths"].items()
    for method in methods
}

_FLOWS = [
    "Create",
    "Put in",
    "Take out",
    "Hold and complete",
    "Hold and revert",
    "Complete a part",
    "Refund",
    "Hold until a time",
    "Keys and replays",
    "Refusals",
    "Batch",
    "Control a wallet",
    "List and filter",
    "Look back",
]
# Requested because they don't exist.
_NO_ROUTES = {"A route that does not exist", "A method that is not for this route"}


def _requests() -> Iterator[Any]:
    for folder in COLLECTION["item"]:
        for item in folder["item"]:
            yield pytest.param(item, id=f"{folder['name']}: {item['name']}")


def _is_route(method: str, path: str) -> bool:
    return any(
        method == known and re.fullmatch(re.sub(r"{\w+}", "[^/]+", template), path)
        for known, template in ROUTES
    )


def test_there_is_a_folder_for_every_flow() -> None:
    assert [folder["name"] for folder in COLLECTION["item"]] == _FLOWS
    assert all(folder["description"] for folder in COLLECTION["item"])


@pytest.mark.parametrize("item", list(_requests()))
def test_a_request_is_for_a_route_of_the_api(item: Any) -> None:
    path = item["request"]["url"]["raw"].removeprefix("{{baseUrl}}").partition("?")[0]

    assert _is_route(item["request"]["method"], path) != (item["name"] in _NO_ROUTES)


@pytest.mark.parametrize("item", list(_requests()))
def test_a_request_asserts_its_answer(item: Any) -> None:
    scripts = [event["script"]["exec"] for event in item["event"] if event["listen"] == "test"]

    assert any("pm.test(" in line for script in scripts for line in script)


def test_every_write_is_shown() -> None:
    shown = {
        (item.values[0]["request"]["method"], item.values[0]["request"]["url"]["raw"])
        for item in _requests()
    }
    paths = {(method, raw.removeprefix("{{baseUrl}}").partition("?")[0]) for method, raw in shown}

    for method, template in ROUTES:
        if method != "GET":
            pattern = re.sub(r"{\w+}", "[^/]+", template)
            assert any(method == sent and re.fullmatch(pattern, path) for sent, path in paths)


def test_the_environment_names_the_local_service() -> None:
    environment = json.loads((FOLDER / "wallet.postman_environment.json").read_text("utf-8"))

    values = {one["key"]: one["value"] for one in environment["values"]}
    assert values == {"baseUrl": "http://localhost:8089"}
