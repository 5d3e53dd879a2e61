"""Former names of settings: read for one release, with a warning."""

import os
import warnings
from collections.abc import Mapping
from typing import Any, Final

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

RENAMED: Final[Mapping[str, str]] = {
    "auth_off_anywhere": "allow_unauthenticated_remote",
    "key_staleness_s": "api_key_cache_ttl_s",
    "keys_cached_max": "api_keys_cached_max",
    "key_rate_per_s": "api_key_rate_per_s",
    "key_burst_s": "api_key_burst_s",
    "key_last_use_s": "api_key_last_used_flush_interval_s",
    "ingress_calls_max": "shard_calls_in_flight_max",
    "call_wallet_share_max": "call_wallet_commands_max",
    "batch_wallet_share_max": "batch_wallet_commands_max",
    "mailbox_max": "mailbox_commands_max",
    "mailbox_wallet_max": "mailbox_wallet_commands_max",
    "stall_s": "database_stall_timeout_s",
    "outbox_max": "outbox_events_max",
    "outbox_memory_max": "outbox_memory_events_max",
    "outbox_sweep_s": "outbox_sweep_interval_s",
    "stream_sync_s": "stream_sync_interval_s",
    "projection_poll_s": "projection_pull_expires_s",
}
"""Former names of settings, read for one release with a warning. In the environment the new name
takes precedence. An application's args should have only one of the two."""


def with_present_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` by their present names. What has a former name takes precedence: the `args` of an
    application do so over the environment, by either name."""
    present = {name: value for name, value in values.items() if name not in RENAMED}
    for former in values.keys() & RENAMED.keys():
        _warn_renamed(former, RENAMED[former])
        present[RENAMED[former]] = values[former]
    return present


class FormerNames(PydanticBaseSettingsSource):
    """Environment variables by their former names; lower precedence than the present names."""

    def __init__(self, settings_cls: type[BaseSettings], *, prefix: str) -> None:
        super().__init__(settings_cls)
        self._prefix = prefix

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        raise NotImplementedError("this source only supports __call__")

    def __call__(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for former, name in RENAMED.items():
            value = os.environ.get(f"{self._prefix}{former.upper()}")
            if value is not None:
                _warn_renamed(f"{self._prefix}{former.upper()}", f"{self._prefix}{name.upper()}")
                found[name] = value
        return found


def _warn_renamed(former: str, name: str) -> None:
    warnings.warn(f"{former} is now called {name}", FutureWarning, stacklevel=2)
