"""Exact amounts: integers in minor units internally, decimal strings in the API.

Nothing is rounded. An amount that does not fit its scale is refused, never adjusted.
"""

import re
from typing import Final

MINOR_MAX: Final = 10**38 - 1
"""Largest amount and largest balance, in minor units (``NUMERIC(38,0)``)."""

SCALE_MAX: Final = 18
"""Largest number of decimals of an asset."""

INTEGER_DIGITS_MAX: Final = 38

AMOUNT_PATTERN: Final = r"^(0|[1-9][0-9]{0,37})(\.[0-9]{1,18})?$"
"""Format of an amount in JSON: no sign, no exponent, no leading zeros."""

_AMOUNT = re.compile(AMOUNT_PATTERN)
_ZERO = re.compile(r"0(\.0{1,18})?")


class AmountError(ValueError):
    """An invalid amount. The message says what to send instead."""


def canonical_amount(text: str) -> str:
    """``text`` without redundant zeros: ``"10.50"`` → ``"10.5"``, ``"3.00"`` → ``"3"``.

    Two spellings of one amount have the same idempotency fingerprint.

    Raises:
        AmountError: ``text`` is not a plain decimal, or is zero.
    """
    if not _AMOUNT.fullmatch(text):
        raise AmountError(
            'send a plain decimal string such as "10.50": no sign, no exponent, '
            f"at most {INTEGER_DIGITS_MAX} digits before and {SCALE_MAX} after the point"
        )
    whole, _, fraction = text.partition(".")
    fraction = fraction.rstrip("0")
    if whole == "0" and not fraction:
        raise AmountError("send an amount greater than zero")
    return f"{whole}.{fraction}" if fraction else whole


def canonical_limit(text: str) -> str:
    """``text`` as `canonical_amount` has it; zero is ``"0"``.

    Raises:
        AmountError: ``text`` is not a plain decimal.
    """
    return "0" if _ZERO.fullmatch(text) else canonical_amount(text)


def to_minor(canonical: str, scale: int) -> int:
    """A canonical amount in minor units, up to ``MINOR_MAX``.

    Raises:
        AmountError: more decimals than ``scale``, or more than ``MINOR_MAX``.
    """
    whole, _, fraction = canonical.partition(".")
    if len(fraction) > scale:
        raise AmountError(
            f"send at most {scale} decimals: nothing is rounded"
            if scale
            else "send a whole number: this currency has no decimals"
        )
    minor = int(whole + fraction.ljust(scale, "0"))
    if minor > MINOR_MAX:
        raise AmountError(f"send at most {from_minor(MINOR_MAX, scale)}")
    return minor


def from_minor(minor: int, scale: int) -> str:
    """Minor units as a decimal string with exactly ``scale`` decimals; may be negative."""
    if scale == 0:
        return str(minor)
    digits = str(minor)
    sign = ""
    if minor < 0 or len(digits) <= scale:
        digits = str(abs(minor)).rjust(scale + 1, "0")
        sign = "-" if minor < 0 else ""
    return f"{sign}{digits[:-scale]}.{digits[-scale:]}"
