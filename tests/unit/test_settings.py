"""Settings that don't fit together are refused at the start, not met in an outage."""

import pytest
from pydantic import ValidationError

from wallet.settings import Settings


def test_rows_are_kept_for_longer_than_the_stream_s_disk_takes() -> None:
    assert Settings(stream_sync_s=1.0).outbox_keep_s == 3.0


def test_a_duplicate_window_shorter_than_rows_are_kept_is_refused() -> None:
    with pytest.raises(ValidationError, match="must be more than 2 \\* stream_sync_s \\+ 1 = 21"):
        Settings(stream_sync_s=10.0, stream_duplicate_window_s=21.0)
    Settings(stream_sync_s=10.0, stream_duplicate_window_s=22.0)
