"""Sizes, rates, shares and periods as users write them ("1GiB", "100Mbit", "50%", "1d 2H").

Source: LXD docs, "Units for storage and network limits".
"""

from __future__ import annotations

import re
from calendar import monthrange
from datetime import datetime, timedelta

from lxpy.errors import InvalidConfig

_MAX = (1 << 63) - 1
_NUMBER = re.compile(r"([0-9]+)(.*)", re.DOTALL)
_PREFIXES = ("k", "M", "G", "T", "P", "E")
_BINARY = ("Ki", "Mi", "Gi", "Ti", "Pi", "Ei")

BYTES = {
    "": 1,
    "B": 1,
    " bytes": 1,
    **{f"{prefix}B": 1000**power for power, prefix in enumerate(_PREFIXES, 1)},
    **{f"{prefix}B": 1024**power for power, prefix in enumerate(_BINARY, 1)},
}
BITS = {
    "": 1,
    "bit": 1,
    **{f"{prefix}bit": 1000**power for power, prefix in enumerate(_PREFIXES, 1)},
    **{f"{prefix}bit": 1024**power for power, prefix in enumerate(_BINARY, 1)},
}

_TRUE = frozenset(("true", "1", "yes", "on"))
_FALSE = frozenset(("false", "0", "no", "off"))
_EXPIRY = re.compile(r"([0-9]{1,6})([SMHdwmy])")
_EXPIRY_SECONDS = {"S": 1, "M": 60, "H": 3600, "d": 86_400, "w": 604_800}
_EXPIRY_MONTHS = {"m": 1, "y": 12}


def parse_size(text: str) -> int:
    """Return the bytes of "10GiB" (1024-based), "10GB" (1000-based) or "10"; "" is 0.

    Raises InvalidConfig.
    """
    return _scaled(text, BYTES, 'a whole number with a unit such as "512MB" or "2GiB"')


def parse_bits(text: str) -> int:
    """Return the bits (each second) of a rate such as "100Mbit"; "" is 0. Raises InvalidConfig."""
    return _scaled(text, BITS, 'a whole number with a unit such as "100Mbit" or "1Gbit"')


def _scaled(text: str, units: dict[str, int], wanted: str) -> int:
    if not text:
        return 0
    match = _NUMBER.fullmatch(text)
    if match is None or not text.isascii():
        raise InvalidConfig(f"Invalid value: {text}: it takes {wanted}")
    unit = units.get(match[2])
    if unit is None:
        known = ", ".join(each for each in units if each.strip() == each and each)
        raise InvalidConfig(f'Invalid value: {text}: unknown unit "{match[2]}", use one of {known}')
    if len(match[1]) > 20 or int(match[1]) * unit > _MAX:
        raise InvalidConfig(f"Invalid value: {text}: it is larger than 2^63-1")
    return int(match[1]) * unit


def format_size(size: int, precision: int = 2) -> str:
    """Write bytes with a 1024-based unit: 1536 is "1.50KiB"; below 1024, "12B"."""
    return _format(size, 1024, ("B", *(f"{prefix}B" for prefix in _BINARY)), precision)


def format_size_decimal(size: int, precision: int = 2) -> str:
    """Write bytes with a 1000-based unit: 1500 is "1.50kB"; below 1000, "12B"."""
    return _format(size, 1000, ("B", *(f"{prefix}B" for prefix in _PREFIXES)), precision)


def _format(size: int, base: int, units: tuple[str, ...], precision: int) -> str:
    if abs(size) < base:
        return f"{size}{units[0]}"
    value, unit = float(size), units[0]
    for unit in units[1:]:  # noqa: B007 - the last unit is used after the loop
        value /= base
        if abs(value) < base:
            break
    return f"{value:.{precision}f}{unit}"


def parse_percent(text: str) -> int:
    """Return 50 for "50%". Raises InvalidConfig unless it is a whole number of percent."""
    digits = text.removesuffix("%")
    if digits == text or not digits.isascii() or not digits.isdigit() or len(digits) > 9:
        raise InvalidConfig(f'Invalid value: {text}: it takes a percentage such as "50%"')
    return int(digits)


def parse_share(text: str, whole: int) -> int:
    """Return the bytes of a size, or of a percentage of `whole`. Raises InvalidConfig."""
    if text.endswith("%"):
        return whole * parse_percent(text) // 100
    return parse_size(text)


def parse_bool(text: str) -> bool:
    """Return the truth of true/false, 1/0, yes/no, on/off in any case; "" is False.

    Raises InvalidConfig.
    """
    word = text.lower()
    if word in _TRUE:
        return True
    if not word or word in _FALSE:
        return False
    raise InvalidConfig(f'Invalid value for a boolean "{text}": use true or false')


def is_true(text: str | None) -> bool:
    """Whether a value, checked before, says yes; anything else, unset included, does not."""
    return text is not None and text.lower() in _TRUE


def is_false(text: str | None) -> bool:
    """Whether a value says no explicitly; unset does not."""
    return text is not None and text.lower() in _FALSE


def expiry_date(text: str, start: datetime) -> datetime | None:
    """Return when something made at `start` expires by "1S 2M 3H 4d 5w 6m 7y"; None for "".

    S are seconds, M minutes, H hours, d days, w weeks, m calendar months, y years; 31 January + 1m
    is the last of February. Raises InvalidConfig.
    """
    seconds, months = 0, 0
    for number, unit in _expiry(text):
        seconds += number * _EXPIRY_SECONDS.get(unit, 0)
        months += number * _EXPIRY_MONTHS.get(unit, 0)
    if not seconds and not months:
        return None
    try:
        return _add_months(start, months) + timedelta(seconds=seconds)
    except (OverflowError, ValueError) as error:
        raise InvalidConfig(f"Invalid expiry expression: {text}: it ends after 9999") from error


def _expiry(text: str) -> list[tuple[int, str]]:
    parts: list[tuple[int, str]] = []
    for word in text.split():
        match = _EXPIRY.fullmatch(word)
        if match is None:
            raise InvalidConfig(
                f"Invalid expiry expression: {text}: use numbers with S, M, H, d, w, m or y, such "
                'as "2w 3d"'
            )
        if any(unit == match[2] for _, unit in parts):
            raise InvalidConfig(f'Invalid expiry expression: {text}: "{match[2]}" is given twice')
        parts.append((int(match[1]), match[2]))
    return parts


def _add_months(start: datetime, months: int) -> datetime:
    if not months:
        return start
    year, month = divmod(start.year * 12 + start.month - 1 + months, 12)
    if year > 9999:
        raise ValueError(f"year {year} is out of range")
    day = min(start.day, monthrange(year, month + 1)[1])
    return start.replace(year=year, month=month + 1, day=day)
