"""Service routes: health, documentation, and pages of the problem types."""

import re

import pytest

from serve_app.http.problems import PROBLEM_TYPES
from tests.e2e.api import Api
from tests.e2e.problems import assert_problem


def test_a_process_that_serves_is_alive(api: Api) -> None:
    answer = api.get("/healthz")

    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_readiness_names_every_part(api: Api) -> None:
    answer = api.get("/readyz")

    assert answer.status_code == 200
    body = answer.json()
    assert body["ready"] is True
    assert set(body["components"]) == {"postgres", "nats", "shards", "projections"}
    for part in body["components"].values():
        assert part["ready"] is True
        assert part["detail"]


def test_readiness_can_be_asked_of_some_parts_alone(api: Api) -> None:
    answer = api.get("/readyz", params={"only": "postgres,shards"})

    assert set(answer.json()["components"]) == {"postgres", "shards"}


def test_readiness_of_a_part_that_does_not_exist_is_refused(api: Api) -> None:
    answer = api.get("/readyz", params={"only": "postgres,moon"})

    assert_problem(answer, 422, "validation_error", pointer="#query/only")


def test_the_docs_page_needs_nothing_from_elsewhere(api: Api) -> None:
    page = api.get("/docs")

    assert page.status_code == 200
    assert "text/html" in page.headers["content-type"]
    assert not re.findall(r"(?:https?:)?//[\w.-]+\.\w+", page.text)
    needed = re.findall(r"""(?:src|href)="([^"]+)\"""", page.text)
    assert any(path.endswith(".js") for path in needed)
    assert any(path.endswith(".css") for path in needed)
    for path in needed:
        asset = api.get(path)
        assert (asset.status_code, asset.headers["content-type"]) != (404, "")
        assert asset.status_code == 200, path
        assert len(asset.content) > 100


def test_the_openapi_document_is_served(api: Api) -> None:
    document = api.get("/openapi.json")

    assert document.status_code == 200
    assert "debit puts money INTO" in document.json()["info"]["description"].replace("D", "d")


@pytest.mark.parametrize("code", list(PROBLEM_TYPES))
def test_every_problem_is_explained_at_its_type(api: Api, code: str) -> None:
    explained = api.get(f"/problems/{code}")
    page = api.get(f"/problems/{code}", headers={"Accept": "text/html,*/*"})

    assert explained.status_code == 200
    assert explained.json()["status"] == PROBLEM_TYPES[code].status
    assert explained.json()["type"] == f"/problems/{code}"
    assert explained.json()["remedy"]
    assert page.status_code == 200
    assert PROBLEM_TYPES[code].title.split("'")[0] in page.text


def test_all_problems_are_listed(api: Api) -> None:
    listed = api.get("/problems").json()["items"]

    assert [one["code"] for one in listed] == list(PROBLEM_TYPES)


def test_a_problem_that_does_not_exist_is_not_found(api: Api) -> None:
    assert_problem(api.get("/problems/none"), 404, "problem_not_found")
