"""Content negotiation as RFC 9110 has it."""

import pytest

from serve_app.http.accept import preferred

OFFERED = ("application/json", "text/csv")


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        *((accept, "application/json") for accept in ("", " ", "*/*", "application/*")),
        *((accept, "text/csv") for accept in ("text/csv", "TEXT/CSV; charset=utf-8", "text/*")),
        ("text/html, text/csv;q=0.5, */*;q=0.1", "text/csv"),
        ("text/csv;q=0.5, application/json;q=0.8", "application/json"),
        ("text/csv, application/json", "application/json"),
        ("application/json;q=0, */*", "text/csv"),
        ("text/csv;q=0, text/*;q=0.9, application/json;q=0.1", "application/json"),
        ("text/csv;q=x, application/json;q=0.1", "application/json"),
        *((accept, None) for accept in ("text/html", "application/xml, image/*", "text/csv;q=0")),
    ],
)
def test_the_preferred_type_is_the_best_that_is_accepted(accept: str, expected: str | None) -> None:
    assert preferred(accept, OFFERED) == expected
