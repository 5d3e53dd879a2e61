"""Currencies of wallets: ISO 4217, or custom assets with an explicit scale."""

import re
from typing import Final

import iso4217

from wallet.money import SCALE_MAX

CURRENCY_PATTERN: Final = r"^[A-Z][A-Z0-9]{2,11}$"
"""A currency or asset code: 3 to 12 capital letters and digits, a letter first."""

_CODE = re.compile(CURRENCY_PATTERN)

ISO_SCALES: Final[dict[str, int]] = {
    currency.code: currency.exponent
    for currency in iso4217.Currency
    if currency.exponent is not None
}
"""ISO 4217 code → decimals. Codes without decimals (gold, test codes) are not in it."""

_ISO_CODES_WITHOUT_SCALE: Final = frozenset(
    currency.code for currency in iso4217.Currency if currency.exponent is None
)


class CurrencyError(ValueError):
    """An invalid currency or scale. ``field`` names the one to correct."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


def resolve_scale(code: str, scale: int | None) -> int:
    """Decimals of ``code``: ISO 4217's, or the explicit ``scale`` (0-18) of a custom asset.

    Raises:
        CurrencyError: unknown code without a scale, ISO code with another scale, or a bad code.
    """
    if not _CODE.fullmatch(code):
        raise CurrencyError("currency", "send 3 to 12 capital letters and digits, a letter first")
    iso = ISO_SCALES.get(code)
    if iso is not None:
        if scale not in (None, iso):
            raise CurrencyError("scale", f"{code} has {iso} decimals by ISO 4217: leave scale out")
        return iso
    if scale is None:
        what = (
            "has no decimals of its own"
            if code in _ISO_CODES_WITHOUT_SCALE
            else "is not in ISO 4217"
        )
        raise CurrencyError("scale", f"{code} {what}: send its scale (0 to {SCALE_MAX})")
    if not 0 <= scale <= SCALE_MAX:
        raise CurrencyError("scale", f"send a scale from 0 to {SCALE_MAX}")
    return scale
