"""Limits that are part of the API's contract: the same in every deployment."""

from typing import Final

METADATA_ENTRIES_MAX: Final = 20
METADATA_KEY_MAX: Final = 64
METADATA_VALUE_MAX: Final = 512
REFERENCE_ID_MAX: Final = 255
IDEMPOTENCY_KEY_MAX: Final = 255
REQUEST_ID_MAX: Final = 128
EXPIRES_IN_S_MAX: Final = 315_576_000
"""Ten years: what a number of seconds may be at all. The settings have narrower bounds."""
PAGE_LIMIT_DEFAULT: Final = 50
PAGE_LIMIT_MAX: Final = 200
VERSION_MAX: Final = 2**63 - 1

TEXT_PATTERN: Final = r"^[^\x00-\x1f\x7f]+$"
"""Printable text: no control characters (Postgres can't store NUL, and people can't read them)."""

VISIBLE_ASCII_PATTERN: Final = r"^[\x21-\x7e]+$"
"""Idempotency keys and request ids."""
