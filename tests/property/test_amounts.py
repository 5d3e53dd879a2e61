"""For all amounts: the round trip is exact, and an invalid amount is never accepted in part."""

from decimal import Context, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wallet.money import MINOR_MAX, SCALE_MAX, AmountError, canonical_amount, from_minor, to_minor

EXACT = Context(prec=200)
scales = st.integers(0, SCALE_MAX)
minors = st.one_of(st.integers(1, MINOR_MAX), st.integers(1, 10_000))
digits = st.text("0123456789", min_size=0, max_size=40)


@given(minor=minors, scale=scales)
def test_minor_units_survive_being_printed_and_read(minor: int, scale: int) -> None:
    printed = from_minor(minor, scale)
    assert Decimal(printed) == Decimal(minor).scaleb(-scale, EXACT)
    assert to_minor(canonical_amount(printed), scale) == minor


@given(minor=st.integers(-MINOR_MAX, MINOR_MAX), scale=scales)
def test_printed_amounts_have_exactly_the_scale_s_decimals(minor: int, scale: int) -> None:
    whole, _, fraction = from_minor(minor, scale).partition(".")
    assert len(fraction) == scale
    assert whole.removeprefix("-").isdecimal()
    assert Decimal(from_minor(minor, scale)) == Decimal(minor).scaleb(-scale, EXACT)


@given(minor=minors, scale=scales, zeros=st.integers(0, 5))
def test_superfluous_zeros_change_nothing(minor: int, scale: int, zeros: int) -> None:
    printed = from_minor(minor, scale)
    fraction = printed.partition(".")[2]
    longer = printed + ("" if fraction else ".") + "0" * zeros if zeros else printed
    if len(longer.partition(".")[2]) > SCALE_MAX:
        return
    assert canonical_amount(longer) == canonical_amount(printed)


@given(whole=digits, fraction=digits, scale=scales)
def test_a_decimal_is_taken_exactly_or_refused(whole: str, fraction: str, scale: int) -> None:
    sent = f"{whole}.{fraction}" if fraction else whole
    try:
        minor = to_minor(canonical_amount(sent), scale)
    except AmountError:
        return
    assert 1 <= minor <= MINOR_MAX
    assert Decimal(minor).scaleb(-scale, EXACT) == Decimal(sent)


@given(sent=st.text(max_size=60))
def test_any_other_text_is_refused(sent: str) -> None:
    try:
        canonical = canonical_amount(sent)
    except AmountError:
        return
    assert Decimal(canonical) == Decimal(sent) > 0
    assert set(sent) <= set("0123456789.")


@given(minor=minors, scale=st.integers(0, SCALE_MAX - 1), extra=st.integers(1, 9))
def test_a_digit_beyond_the_scale_is_refused(minor: int, scale: int, extra: int) -> None:
    printed = from_minor(minor, scale)
    with pytest.raises(AmountError):
        to_minor(f"{printed}{'' if scale else '.'}{extra}", scale)
