"""Cursors of lists: what was encoded is decoded, and what a client makes up does no harm."""

from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from projections import transfer_list, wallet_list
from projections.transfer_list import CursorError

_characters = st.sampled_from("ABCXYZabcxyz0189-_")


@given(st.integers(0, 2**63 - 1))
def test_a_version_is_read_back(version: int) -> None:
    assert transfer_list._decode_cursor(transfer_list._encode_cursor(version)) == version


@given(st.datetimes(timezones=st.just(UTC)), st.uuids())
def test_a_position_is_read_back(created_at: datetime, wallet_id: UUID) -> None:
    position = (created_at, wallet_id)
    assert wallet_list._decode_cursor(wallet_list._encode_cursor(position)) == position


@given(st.text(_characters, min_size=32, max_size=32))
def test_whatever_looks_like_a_cursor_is_a_position(cursor: str) -> None:
    created_at, _ = wallet_list._decode_cursor(cursor)
    assert created_at.tzinfo is UTC


@pytest.mark.parametrize("cursor", ["", "x", "A" * 31, "A" * 36, "ü" * 32, "!" * 32])
def test_anything_else_is_no_cursor(cursor: str) -> None:
    with pytest.raises(CursorError):
        wallet_list._decode_cursor(cursor)
