"""Units by LXD's rules."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lxpy import units
from lxpy.errors import InvalidConfig

START = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("", 0), ("0", 0), ("10", 10), ("10B", 10), ("12 bytes", 12), ("10kB", 10_000),
        ("10MB", 10_000_000), ("10KiB", 10_240), ("10MiB", 10 << 20), ("1GiB", 1 << 30),
        ("2TiB", 2 << 40), ("1PiB", 1 << 50), ("1EiB", 1 << 60), ("007", 7),
    ],
)  # fmt: skip
def test_sizes(text: str, size: int) -> None:
    assert units.parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    ["x", "-1", "1.5GiB", "10KB", "10 MB", "10mib", "GiB", " 1", "1 ", "9223372036854775808",
     "8EiB", "1" * 5000, "١٢", "1\n"],
)  # fmt: skip
def test_not_sizes(text: str) -> None:
    with pytest.raises(InvalidConfig, match="Invalid value"):
        units.parse_size(text)


@pytest.mark.parametrize(
    ("text", "rate"), [("100Mbit", 10**8), ("1Gibit", 1 << 30), ("5", 5), ("8kbit", 8000)]
)
def test_rates(text: str, rate: int) -> None:
    assert units.parse_bits(text) == rate


def test_a_rate_is_no_size() -> None:
    with pytest.raises(InvalidConfig, match="unknown unit"):
        units.parse_bits("10MB")


@given(st.integers(0, 2**53), st.sampled_from(sorted(units.BYTES)))
def test_a_size_is_number_times_unit(number: int, unit: str) -> None:
    if number * units.BYTES[unit] < 1 << 63:
        assert units.parse_size(f"{number}{unit}") == number * units.BYTES[unit]


@given(st.text())
def test_any_text_is_a_size_or_refused(text: str) -> None:
    try:
        assert 0 <= units.parse_size(text) < 1 << 63
    except InvalidConfig as error:
        assert str(error).startswith(f"Invalid value: {text}")


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0B"), (1023, "1023B"), (1024, "1.00KiB"), (1536, "1.50KiB"), (27577549, "26.30MiB"),
     (1 << 62, "4.00EiB")],
)  # fmt: skip
def test_sizes_are_shown(size: int, text: str) -> None:
    assert units.format_size(size) == text


def test_sizes_are_shown_in_decimal() -> None:
    assert units.format_size_decimal(999) == "999B"
    assert units.format_size_decimal(1500, 1) == "1.5kB"


@given(st.integers(0, (1 << 63) - 1))
def test_a_shown_size_is_near(size: int) -> None:
    text = units.format_size(size)
    number = text.rstrip("KMGTPEiB")
    near = float(number) * units.BYTES[text[len(number) :]]
    assert abs(near - size) <= size * 0.006


def test_shares() -> None:
    assert units.parse_share("50%", 1000) == 500
    assert units.parse_share("1kB", 7) == 1000
    assert units.parse_percent("7%") == 7
    for wrong in ("%", "5", "-5%", "5.5%", "5%%"):
        with pytest.raises(InvalidConfig):
            units.parse_percent(wrong)


def test_truth() -> None:
    assert all(map(units.parse_bool, ("true", "1", "YES", "On")))
    assert not any(map(units.parse_bool, ("false", "0", "NO", "Off", "")))
    with pytest.raises(InvalidConfig, match='^Invalid value for a boolean "x"'):
        units.parse_bool("x")
    assert units.is_true("True")
    assert not units.is_true(None)
    assert units.is_false("off")
    assert not units.is_false("")


@pytest.mark.parametrize(
    ("text", "date"),
    [
        ("5S", START + timedelta(seconds=5)), ("1M", START + timedelta(minutes=1)),
        ("2H 3d", START + timedelta(days=3, hours=2)),
        ("4w", START + timedelta(weeks=4)), ("1m", datetime(2026, 2, 28, 12, 0, tzinfo=UTC)),
        ("2y", datetime(2028, 1, 31, 12, 0, tzinfo=UTC)),
        ("11m 1d", datetime(2027, 1, 1, 12, 0, tzinfo=UTC)),
    ],
)  # fmt: skip
def test_expiry(text: str, date: datetime) -> None:
    assert units.expiry_date(text, START) == date


def test_no_expiry() -> None:
    assert units.expiry_date("", START) is None
    assert units.expiry_date("0d", START) is None


@pytest.mark.parametrize(
    "text", ["3", "d", "3 d", "3x", "1d 2d", "-1d", "9999y", "999999y", "1.5d"]
)
def test_not_an_expiry(text: str) -> None:
    with pytest.raises(InvalidConfig, match="^Invalid expiry expression"):
        units.expiry_date(text, START)


@given(st.lists(st.sampled_from("MHdwmy"), unique=True), st.integers(1, 50))
def test_expiry_is_later(which: list[str], number: int) -> None:
    date = units.expiry_date(" ".join(f"{number}{unit}" for unit in which), START)
    assert date is None if not which else date is not None and date > START
