"""Dates and answers as `lxc` writes them. Sizes are in lxpy.units."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import datetime

#: Dates before this year stand for "never": LXD sends year 1 or 1970.
_FIRST_YEAR = 1971


def date(text: str) -> str:
    """Return "2026/11/24 20:30 UTC", in local time, of an RFC 3339 date; "" for never."""
    moment = _local(text)
    return moment.strftime("%Y/%m/%d %H:%M %Z") if moment else ""


def long_date(text: str) -> str:
    """Return "Nov 24, 2026 at 8:30pm (UTC)", in local time, of an RFC 3339 date; "" for never."""
    moment = _local(text)
    if moment is None:
        return ""
    hour, half = moment.hour % 12 or 12, "am" if moment.hour < 12 else "pm"
    return moment.strftime(f"%b {moment.day}, %Y at {hour}:%M{half} (%Z)")


def _local(text: str) -> datetime | None:
    from datetime import datetime  # 2 ms, and most lists have no dates

    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment.astimezone() if moment.year >= _FIRST_YEAR else None


def yes(true: object) -> str:
    """Return "YES" or "NO"."""
    return "YES" if true else "NO"
