"""Rules of snapshots: names, schedules, what is kept."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lxpy.errors import BadRequest, Failed
from lxpy.instances.snapshots import Planner, at_startup, next_name, next_time, surplus

MADE = datetime(2026, 11, 25, 4, 5, 6, tzinfo=UTC)
NOW = datetime(2026, 11, 25, 4, 5, 6)


@pytest.mark.parametrize(
    ("pattern", "taken", "name"),
    [
        ("", [], "snap0"),
        ("snap%d", ["snap0", "snap7", "snapx", "other9"], "snap8"),
        ("auto-%d-x", ["auto-1-x", "auto-5"], "auto-2-x"),
        ("plain", [], "plain"),
        ("plain", ["plain"], "plain-0"),
        ("plain", ["plain", "plain-0", "plain-4"], "plain-5"),
        ("{{ creation_date }}", [], "2026-11-25_04-05-06"),
        ('{{ creation_date|date:"2006-01-02" }}-%d', [], "2026-11-25-0"),
        ("a.b%d", ["aXb0"], "a.b0"),
    ],
)
def test_next_name(pattern: str, taken: list[str], name: str) -> None:
    assert next_name(pattern, taken, MADE) == name


@pytest.mark.parametrize(
    ("pattern", "error"),
    [
        ("%d-%d", BadRequest),
        ("two words", BadRequest),
        ("x" * 80, BadRequest),
        ("{{ creation_date|date:'2006/01/02' }}", BadRequest),
        ("{{ creation_date|shell }}", Failed),
        ("{% x", Failed),
    ],
)
def test_bad_patterns(pattern: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        next_name(pattern, [], MADE)


@given(st.sets(st.from_regex(r"snap[0-9]{1,4}", fullmatch=True)))
def test_numbers_are_new(taken: set[str]) -> None:
    assert next_name("snap%d", taken, MADE) not in taken


def test_next_time() -> None:
    assert next_time("30 4 * * *", "c1", NOW) == datetime(2026, 11, 25, 4, 30)
    assert next_time("0 4 * * *, 15 4 * * *", "c1", NOW) == datetime(2026, 11, 25, 4, 15)
    assert next_time("* * * * *", "c1", NOW) == datetime(2026, 11, 25, 4, 6)
    for none in ("@startup", "@never", "@never, @startup"):
        assert next_time(none, "c1", NOW) is None
    assert at_startup("@daily, @startup") and not at_startup("@daily")


@pytest.mark.parametrize(
    ("alias", "days"),
    [("@hourly", 1 / 24), ("@daily", 1), ("@midnight", 1), ("@weekly", 7), ("@yearly", 365)],
)
def test_aliases_are_spread(alias: str, days: float) -> None:
    times = [next_time(alias, f"c{number}", NOW) for number in range(200)]
    assert all(each is not None and each <= NOW + timedelta(days=days) for each in times)
    assert len({each.minute for each in times if each}) > 30
    if alias == "@midnight":
        assert {each.hour for each in times if each} == {0}


def test_planner() -> None:
    planner = Planner(NOW)
    schedules = {"a": "*/10 * * * *", "b": "@never", "c": "6 4 * * *"}
    assert planner.due(schedules, NOW.replace(second=30)) == []
    assert planner.due(schedules, NOW.replace(minute=6, second=0)) == ["c"]
    assert planner.due(schedules, NOW.replace(minute=6, second=30)) == []
    assert planner.due(schedules, NOW.replace(minute=35)) == ["a"], "late, but once"
    changed = {"a": "36 * * * *"}
    assert planner.due(changed, NOW.replace(minute=35, second=1)) == []
    assert planner.due(changed, NOW.replace(minute=36, second=0)) == ["a"]
    new = {"new": "37 * * * *", "old": "36 * * * *"}
    assert planner.due(new, NOW.replace(minute=37)) == ["new"], "seen first when it is due"
    assert planner.due({}, NOW.replace(hour=9)) == []


def test_planner_when_the_clock_is_set_back() -> None:
    planner = Planner(NOW)
    every = {"a": "0 * * * *"}
    assert planner.due(every, NOW.replace(hour=5)) == ["a"]
    assert planner.due(every, NOW) == [], "in autumn an hour comes twice"
    assert planner.due(every, NOW.replace(hour=5)) == []
    long_ago = NOW - timedelta(days=400)
    assert planner.due(every, long_ago) == []
    assert planner.due(every, long_ago + timedelta(hours=1)) == ["a"]


def test_keep_a_number() -> None:
    made = {f"s{number}": MADE + timedelta(minutes=number) for number in range(10)}
    assert surplus("3", made) == [f"s{number}" for number in range(7)]
    assert surplus("10", made) == []


def test_keep_generations() -> None:
    made = {f"h{number:04}": MADE - timedelta(hours=number) for number in range(24 * 40)}
    kept = made.keys() - set(surplus("hourly=3,daily=2,weekly=2,monthly=2", made))
    days = sorted(made[name] for name in kept)
    assert days == [
        datetime(2026, 10, 31, 23, 5, 6, tzinfo=UTC),  # the last of October
        datetime(2026, 11, 22, 23, 5, 6, tzinfo=UTC),  # of the week before
        datetime(2026, 11, 24, 23, 5, 6, tzinfo=UTC),  # of yesterday
        *(MADE - timedelta(hours=number) for number in (2, 1, 0)),
    ]


@given(
    st.dictionaries(st.text("abc", min_size=1), st.datetimes(), max_size=40),
    st.sampled_from(["1", "5", "hourly=2", "daily=3,yearly=1", "weekly=1,monthly=2,last=3"]),
)
def test_keeping_is_stable(made: dict[str, datetime], keep: str) -> None:
    gone = surplus(keep, made)
    left = {name: when for name, when in made.items() if name not in gone}
    assert surplus(keep, left) == []
    if made:
        assert max(made.values()) in left.values()
