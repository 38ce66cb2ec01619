"""Times in Go's way of writing their form: "2006-01-02_15-04-05" stands for year, month and so on.

Patterns of snapshots use it: `{{ creation_date|date:"2006-01-02" }}`.
Source: Go's documentation, package time, "Constants".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime

_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September",
    "October", "November", "December",
)  # fmt: skip


def _zone(when: datetime, separator: str, *, z: bool) -> str:
    text = when.strftime("%z") or "+0000"
    return "Z" if z and text[1:5] == "0000" else f"{text[:3]}{separator}{text[3:5]}"


_PARTS: Mapping[str, Callable[[datetime], str]] = {
    "2006": lambda when: f"{when.year:04}",
    "06": lambda when: f"{when.year % 100:02}",
    "January": lambda when: _MONTHS[when.month - 1],
    "Jan": lambda when: _MONTHS[when.month - 1][:3],
    "01": lambda when: f"{when.month:02}",
    "1": lambda when: str(when.month),
    "Monday": lambda when: _DAYS[when.weekday()],
    "Mon": lambda when: _DAYS[when.weekday()][:3],
    "002": lambda when: f"{when.timetuple().tm_yday:03}",
    "02": lambda when: f"{when.day:02}",
    "_2": lambda when: f"{when.day:2}",
    "2": lambda when: str(when.day),
    "15": lambda when: f"{when.hour:02}",
    "03": lambda when: f"{when.hour % 12 or 12:02}",
    "3": lambda when: str(when.hour % 12 or 12),
    "04": lambda when: f"{when.minute:02}",
    "4": lambda when: str(when.minute),
    "05": lambda when: f"{when.second:02}",
    "5": lambda when: str(when.second),
    "PM": lambda when: "AM" if when.hour < 12 else "PM",
    "pm": lambda when: "am" if when.hour < 12 else "pm",
    "MST": lambda when: when.tzname() or "UTC",
    "-07:00": lambda when: _zone(when, ":", z=False),
    "-0700": lambda when: _zone(when, "", z=False),
    "-07": lambda when: _zone(when, "", z=False)[:3],
    "Z07:00": lambda when: _zone(when, ":", z=True),
    "Z0700": lambda when: _zone(when, "", z=True),
    ".000000": lambda when: f".{when.microsecond:06}",
    ".000": lambda when: f".{when.microsecond // 1000:03}",
}
_PART = re.compile("|".join(re.escape(part) for part in sorted(_PARTS, key=len, reverse=True)))


def written(when: datetime, layout: str) -> str:
    """Return a time in the form that `layout` shows for 2006-01-02 15:04:05."""
    return _PART.sub(lambda found: _PARTS[found[0]](when), layout)
