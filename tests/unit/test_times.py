"""Times in queries: RFC 3339 with an offset, and nothing else."""

from datetime import UTC, datetime

import pytest

from serve_app.http.times import parse_time


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ("2026-01-02T03:04:05Z", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("2026-01-02T03:04:05.5Z", datetime(2026, 1, 2, 3, 4, 5, 500_000, tzinfo=UTC)),
        ("2026-01-02T03:04:05.678900+01:30", datetime(2026, 1, 2, 1, 34, 5, 678_900, tzinfo=UTC)),
        ("2026-01-01T00:00:00-12:00", datetime(2026, 1, 1, 12, tzinfo=UTC)),
    ],
)
def test_a_time_is_read_in_its_offset(sent: str, expected: datetime) -> None:
    assert parse_time(sent) == expected


@pytest.mark.parametrize(
    "sent",
    [
        *("", "now", "1767322800", "2026-01-02", "2026-01-02T03:04:05", "2026-01-02 03:04:05Z"),
        *("2026-13-01T00:00:00Z", "2026-02-30T00:00:00Z", "2026-01-01T24:00:01Z"),
        *("2026-01-01T00:00:60Z", "2026-01-01T00:00:00.1234567Z", "2026-01-01T00:00:00Z\n"),
        *("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "２026-01-01T00:00:00Z"),
    ],
)
def test_anything_else_is_refused_with_an_example(sent: str) -> None:
    with pytest.raises(ValueError, match="2026-01-02T03:04:05Z"):
        parse_time(sent)


def test_a_plus_sign_that_was_not_encoded_is_explained() -> None:
    with pytest.raises(ValueError, match="%2B"):
        parse_time("2026-01-02T03:04:05 01:00")
