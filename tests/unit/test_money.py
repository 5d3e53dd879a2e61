"""Amounts: exact in both directions, refused rather than rounded."""

import pytest

from wallet.money import (
    MINOR_MAX,
    SCALE_MAX,
    AmountError,
    canonical_amount,
    from_minor,
    to_minor,
)


@pytest.mark.parametrize(
    ("sent", "canonical"),
    [
        ("1", "1"),
        ("10.50", "10.5"),
        ("3.00", "3"),
        ("0.10", "0.1"),
        ("0.000000000000000001", "0.000000000000000001"),
        ("100", "100"),
        ("9" * 38, "9" * 38),
        ("9" * 38 + "." + "9" * 18, "9" * 38 + "." + "9" * 18),
    ],
)
def test_two_spellings_of_one_amount_have_one_canonical_form(sent: str, canonical: str) -> None:
    assert canonical_amount(sent) == canonical
    assert canonical_amount(canonical) == canonical


@pytest.mark.parametrize(
    "sent",
    [
        "",
        " ",
        "-1",
        "+1",
        "01",
        "00.1",
        ".5",
        "1.",
        "1,5",
        "1_000",
        " 1",
        "1 ",
        "1\n",
        "1e3",
        "1E3",
        "0x10",
        "NaN",
        "Infinity",
        "-0",
        "one",
        "１",  # a full-width digit is a digit to `str.isdigit`, not to us
        "٣",
        "1" + "0" * 38,
        "0." + "0" * 18 + "1",
    ],
)
def test_what_is_no_plain_decimal_is_refused_with_what_to_send(sent: str) -> None:
    with pytest.raises(AmountError, match="plain decimal string"):
        canonical_amount(sent)


@pytest.mark.parametrize("sent", ["0", "0.0", "0.00", "0." + "0" * 18])
def test_zero_is_refused_in_every_spelling(sent: str) -> None:
    with pytest.raises(AmountError, match="greater than zero"):
        canonical_amount(sent)


@pytest.mark.parametrize("scale", range(SCALE_MAX + 1))
def test_the_smallest_and_the_largest_amount_fit_every_scale(scale: int) -> None:
    smallest, largest = from_minor(1, scale), from_minor(MINOR_MAX, scale)
    assert to_minor(canonical_amount(smallest), scale) == 1
    assert to_minor(canonical_amount(largest), scale) == MINOR_MAX == 10**38 - 1


@pytest.mark.parametrize("scale", range(1, SCALE_MAX + 1))
def test_one_minor_unit_too_much_is_refused_at_every_scale(scale: int) -> None:
    # At scale 0 the digits alone are too many: `canonical_amount` has refused it before.
    too_much = from_minor(MINOR_MAX + 1, scale)
    with pytest.raises(AmountError, match="send at most") as refused:
        to_minor(canonical_amount(too_much), scale)
    assert from_minor(MINOR_MAX, scale) in str(refused.value)


@pytest.mark.parametrize("scale", range(SCALE_MAX))
def test_one_decimal_too_many_is_refused_and_never_rounded(scale: int) -> None:
    with pytest.raises(AmountError, match=r"nothing is rounded|no decimals"):
        to_minor("1." + "0" * scale + "1", scale)


def test_decimals_of_a_currency_without_them_get_a_message_of_their_own() -> None:
    with pytest.raises(AmountError, match="whole number"):
        to_minor("1.5", 0)
    assert to_minor("15", 0) == 15


@pytest.mark.parametrize(
    ("minor", "scale", "text"),
    [
        (0, 0, "0"),
        (0, 2, "0.00"),
        (5, 2, "0.05"),
        (1050, 2, "10.50"),
        (-5, 2, "-0.05"),
        (-1050, 2, "-10.50"),
        (7, 0, "7"),
        (-7, 0, "-7"),
        (1, 18, "0.000000000000000001"),
        (10**18, 18, "1.000000000000000000"),
        (MINOR_MAX, 0, "9" * 38),
        (MINOR_MAX, 18, "9" * 20 + "." + "9" * 18),
    ],
)
def test_minor_units_are_printed_with_all_decimals_of_the_scale(
    minor: int, scale: int, text: str
) -> None:
    assert from_minor(minor, scale) == text


@pytest.mark.parametrize(
    ("canonical", "scale", "minor"),
    [("10.5", 2, 1050), ("10", 2, 1000), ("0.01", 2, 1), ("7", 0, 7), ("0.5", 18, 5 * 10**17)],
)
def test_canonical_amounts_become_minor_units(canonical: str, scale: int, minor: int) -> None:
    assert to_minor(canonical, scale) == minor
