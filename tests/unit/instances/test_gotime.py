"""Times in Go's form."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from lxpy.instances.gotime import written

EAST = timezone(timedelta(hours=5, minutes=30), "IST")
MOMENT = datetime(2026, 3, 9, 4, 5, 6, 7008, EAST)


@pytest.mark.parametrize(
    ("layout", "text"),
    [
        ("2006-01-02_15-04-05", "2026-03-09_04-05-06"),
        ("06.1.2 3:4:5PM", "26.3.9 4:5:6AM"),
        ("Monday, Jan _2 (day 002)", "Monday, Mar  9 (day 068)"),
        ("Mon January 03pm MST", "Mon March 04am IST"),
        ("-0700 -07:00 -07 Z07:00 Z0700", "+0530 +05:30 +05 +05:30 +0530"),
        (".000 .000000", ".007 .007008"),
        ("backup-20060102", "backup-20260309"),
        ("", ""),
    ],
)
def test_layouts(layout: str, text: str) -> None:
    assert written(MOMENT, layout) == text


def test_noon_and_midnight() -> None:
    assert written(MOMENT.replace(hour=0, tzinfo=UTC), "03 PM Z0700") == "12 AM Z"
    assert written(MOMENT.replace(hour=12, tzinfo=UTC), "3 pm -07:00") == "12 pm +00:00"
