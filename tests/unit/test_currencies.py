"""Currencies: ISO 4217 with its own decimals, custom assets with theirs."""

import pytest

from wallet.currencies import ISO_SCALES, CurrencyError, resolve_scale


@pytest.mark.parametrize(("code", "scale"), [("USD", 2), ("JPY", 0), ("KWD", 3), ("CLF", 4)])
def test_an_iso_currency_has_its_own_decimals(code: str, scale: int) -> None:
    assert ISO_SCALES[code] == scale
    assert resolve_scale(code, None) == scale
    assert resolve_scale(code, scale) == scale


def test_an_iso_currency_refuses_other_decimals() -> None:
    with pytest.raises(CurrencyError, match="2 decimals by ISO 4217") as refused:
        resolve_scale("USD", 3)
    assert refused.value.field == "scale"


@pytest.mark.parametrize("scale", [0, 8, 18])
def test_a_custom_asset_has_the_scale_that_it_comes_with(scale: int) -> None:
    assert resolve_scale("ETH", scale) == scale


@pytest.mark.parametrize("scale", [-1, 19, 1_000])
def test_a_scale_outside_0_to_18_is_refused(scale: int) -> None:
    with pytest.raises(CurrencyError, match="0 to 18") as refused:
        resolve_scale("ETH", scale)
    assert refused.value.field == "scale"


def test_a_custom_asset_without_a_scale_is_refused_with_a_hint() -> None:
    with pytest.raises(CurrencyError, match="not in ISO 4217: send its scale") as refused:
        resolve_scale("ETH", None)
    assert refused.value.field == "scale"


def test_an_iso_code_without_decimals_of_its_own_needs_a_scale() -> None:
    with pytest.raises(CurrencyError, match="XAU has no decimals of its own"):
        resolve_scale("XAU", None)
    assert resolve_scale("XAU", 4) == 4


@pytest.mark.parametrize("code", ["", "US", "usd", "1USD", "U$D", "USD ", "A" * 13, "ÜSD", "USD\n"])
def test_a_code_of_another_shape_is_refused(code: str) -> None:
    with pytest.raises(CurrencyError, match="3 to 12 capital letters") as refused:
        resolve_scale(code, 2)
    assert refused.value.field == "currency"


def test_a_code_may_have_12_characters_and_digits() -> None:
    assert resolve_scale("A23456789012", 0) == 0
