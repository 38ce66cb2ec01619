"""Rules of snapshots, of instances as of volumes: names, schedules, and which ones go."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Collection, Mapping
from datetime import datetime, timedelta

from cronsim import CronSim

from lxpy.errors import BadRequest
from lxpy.instances.names import check_snapshot_name
from lxpy.instances.pongo import Renderer
from lxpy.keys import parse_keep, split_schedule

DEFAULT_PATTERN = "snap%d"
_NUMBER = "%d"
_NEVER = "@never"
_STARTUP = "@startup"
#: the clock may go back an hour in autumn; by more, somebody has set it
_BACK = timedelta(hours=2)

#: what of a time tells one period from the next
_PERIODS: Mapping[str, Callable[[datetime], tuple[int, ...]]] = {
    "hourly": lambda when: (when.year, when.month, when.day, when.hour),
    "daily": lambda when: (when.year, when.month, when.day),
    "weekly": lambda when: tuple(when.isocalendar()[:2]),
    "monthly": lambda when: (when.year, when.month),
    "yearly": lambda when: (when.year,),
}


class _Moment(datetime):
    """A time that a template shows in a form that a name can have."""

    def __str__(self) -> str:
        return self.strftime("%Y-%m-%d_%H-%M-%S")


def next_name(pattern: str, taken: Collection[str], created_at: datetime) -> str:
    """Return the name of a new snapshot by "snapshots.pattern".

    The pattern is a template that sees `creation_date` (an aware time); "%d" becomes the number
    after the highest taken one; a name that is taken gets "-0", "-1" and so on.
    Raises BadRequest, Failed.
    """
    text = pattern or DEFAULT_PATTERN
    if "{" in text:
        moment = _Moment.fromtimestamp(created_at.timestamp(), created_at.tzinfo)
        text = Renderer({"creation_date": moment}).render("snapshots.pattern", text)
    if text.count(_NUMBER) > 1:
        raise BadRequest(f'Snapshot pattern may contain "%d" only once, it is "{pattern}"')
    if _NUMBER not in text and text in taken:
        text += f"-{_NUMBER}"
    return check_snapshot_name(text.replace(_NUMBER, str(_next_number(text, taken))))


def _next_number(text: str, taken: Collection[str]) -> int:
    start, _, end = text.partition(_NUMBER)
    numbered = re.compile(f"{re.escape(start)}([0-9]{{1,18}}){re.escape(end)}")
    found = [int(match[1]) for match in map(numbered.fullmatch, taken) if match]
    return max(found, default=-1) + 1


# Schedules


def at_startup(schedule: str) -> bool:
    """Whether the schedule asks for a snapshot whenever the instance is about to start."""
    return _STARTUP in split_schedule(schedule)


def next_time(schedule: str, subject: str, after: datetime) -> datetime | None:
    """Return the first time of a schedule after a local time; None when there is none.

    Aliases such as "@daily" come at a minute (and hour) of the subject's own, so that not all
    instances of a host have their snapshots made at once. Raises InvalidConfig.
    """
    found: list[datetime] = []
    for part in split_schedule(schedule):
        if part in (_STARTUP, _NEVER):
            continue
        moment = next(CronSim(_cron(part, subject), after), None)
        if moment is not None:
            found.append(moment)
    return min(found, default=None)


def _cron(part: str, subject: str) -> str:
    own = zlib.crc32(subject.encode())
    minute, hour = own % 60, own // 60 % 24
    aliases = {
        "@hourly": f"{minute} * * * *",
        "@daily": f"{minute} {hour} * * *",
        "@midnight": f"{minute} 0 * * *",
        "@weekly": f"{minute} {hour} * * 0",
        "@monthly": f"{minute} {hour} 1 * *",
        "@annually": f"{minute} {hour} 1 1 *",
        "@yearly": f"{minute} {hour} 1 1 *",
    }
    return aliases.get(part, part)


class Planner:
    """Tells what is due, asked about once a minute; a schedule is calculated when it was due.

    Times are the host's local ones, without a zone. `start` is when it begins to look.
    """

    def __init__(self, start: datetime) -> None:
        self._next: dict[str, tuple[str, datetime | None]] = {}
        self._last = start

    def due(self, schedules: Mapping[str, str], now: datetime) -> list[str]:
        """Return the subjects with a time since the last call; `schedules` has all, by subject."""
        if now < self._last - _BACK:
            self._next.clear()
            self._last = now
        found: list[str] = []
        planned: dict[str, tuple[str, datetime | None]] = {}
        for subject, schedule in schedules.items():
            known = self._next.get(subject)
            if known is None or known[0] != schedule:
                known = (schedule, next_time(schedule, subject, self._last))
            if known[1] is not None and known[1] <= now:
                found.append(subject)
                known = (schedule, next_time(schedule, subject, now))
            planned[subject] = known
        self._next, self._last = planned, now
        return found


# Which ones go


def surplus(keep: str, made: Mapping[str, datetime]) -> list[str]:
    """Return the names of the snapshots that "snapshots.keep" does not keep, oldest first.

    "7" keeps the newest seven; "daily=7,weekly=4" the newest of each of the latest seven days that
    have one, and of four weeks. Days are those of the times' own zone. Raises InvalidConfig.
    """
    newest_first = sorted(made, key=lambda name: (made[name], name), reverse=True)
    kept: set[str] = set()
    for period, count in parse_keep(keep).items():
        if period == "last":
            kept.update(newest_first[:count])
            continue
        latest: dict[object, str] = {}
        for name in newest_first:
            latest.setdefault(_PERIODS[period](made[name]), name)
        kept.update(list(latest.values())[:count])
    return [name for name in reversed(newest_first) if name not in kept]
