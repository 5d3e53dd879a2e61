"""Inconsistent settings are refused at startup."""

import pytest
from pydantic import ValidationError

from runtime.renamed_settings import RENAMED
from runtime.settings import Settings
from serve_app.arguments import ApplicationArguments


def test_rows_are_kept_for_longer_than_the_stream_s_disk_takes() -> None:
    assert Settings(stream_sync_interval_s=1.0).outbox_retention_s == 3.0


def test_a_duplicate_window_shorter_than_rows_are_kept_is_refused() -> None:
    with pytest.raises(
        ValidationError, match="must be more than 2 \\* stream_sync_interval_s \\+ 1 = 21"
    ):
        Settings(stream_sync_interval_s=10.0, stream_duplicate_window_s=21.0)
    Settings(stream_sync_interval_s=10.0, stream_duplicate_window_s=22.0)


def test_a_former_name_in_the_environment_is_read_with_a_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WALLET_OUTBOX_MAX", "7")
    with pytest.warns(FutureWarning, match="WALLET_OUTBOX_MAX is now called WALLET_OUTBOX_EVENTS_"):
        assert Settings().outbox_events_max == 7


def test_the_present_name_outranks_the_former_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WALLET_OUTBOX_MAX", "7")
    monkeypatch.setenv("WALLET_OUTBOX_EVENTS_MAX", "8")
    with pytest.warns(FutureWarning):
        assert Settings().outbox_events_max == 8


@pytest.mark.parametrize("former", RENAMED)
def test_every_former_name_leads_to_a_setting(former: str) -> None:
    assert RENAMED[former] in Settings.model_fields
    assert former not in Settings.model_fields


def test_a_former_name_in_an_applications_arguments_is_read_with_a_warning() -> None:
    with pytest.warns(FutureWarning, match="mailbox_max is now called mailbox_commands_max"):
        arguments = ApplicationArguments.model_validate({"mailbox_max": 5})
    assert arguments.settings().mailbox_commands_max == 5
