"""Finds environment variables that look like settings and are none: probably misspelt."""

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Final

from runtime.renamed_settings import RENAMED
from runtime.settings import PREFIX, Settings

_OTHER_VARIABLES: Final = frozenset(
    {"WALLET_HOME", "WALLET_STACK_ID", "WALLET_URL", "WALLET_API_KEY", "WALLET_ID"}
)
"""Read elsewhere, or used in the documents' examples."""

_OTHER_PREFIXES: Final = (
    "WALLET_HAPROXY_",
    "WALLET_TEST_",
    "WALLET_DRILLS",
    "WALLET_CLUSTER_",
)

# Kubernetes sets these in every pod beside a service called `wallet` or `wallet-…`.
_OF_KUBERNETES: Final = re.compile(r"WALLET_(\w+_)?(SERVICE_(HOST|PORT)|PORT)(_\w+)?")

_SIMILARITY_MIN: Final = 0.55


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """One sentence for each variable with the prefix of settings that is not a setting."""
    known = {name.upper() for name in (*Settings.model_fields, *RENAMED)}
    unknown = sorted(
        name
        for name in environment
        if name.upper().startswith(PREFIX)  # as pydantic reads them
        and name.upper().removeprefix(PREFIX) not in known
        and not _is_of_others(name.upper())
    )
    return [_sentence(name, known) for name in unknown]


def _is_of_others(name: str) -> bool:
    return (
        name in _OTHER_VARIABLES
        or name.startswith(_OTHER_PREFIXES)
        or _OF_KUBERNETES.fullmatch(name) is not None
    )


def _sentence(name: str, known: Iterable[str]) -> str:
    close = get_close_matches(name.upper().removeprefix(PREFIX), known, n=1, cutoff=_SIMILARITY_MIN)
    hint = f" Did you mean {PREFIX}{close[0]}?" if close else ""
    return f"{name} is not a setting, and is ignored.{hint}"
