"""limits.cpu.allowance: a share ("50%") or a quota ("25ms/100ms")."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lxpy.errors import InvalidConfig

_SHARE = re.compile(r"([0-9]{1,5})%")
_QUOTA = re.compile(r"([0-9]{1,7})ms/([0-9]{1,4})ms")


@dataclass(frozen=True, slots=True)
class Allowance:
    """A weight of 100 for a whole share; with a quota, microseconds of cpu in each period."""

    percent: int = 100
    quota_us: int | None = None
    period_us: int = 100_000


def parse_allowance(text: str) -> Allowance:
    """Return the allowance; "" is 100%. Raises InvalidConfig in LXD's words."""
    if not text:
        return Allowance()
    if match := _SHARE.fullmatch(text):
        percent = int(match[1])
        if 1 <= percent <= 10_000:
            return Allowance(percent)
        raise InvalidConfig(f"Invalid allowance: {text}: use between 1% and 10000%")
    if match := _QUOTA.fullmatch(text):
        quota, period = int(match[1]), int(match[2])
        if quota >= 1 and 1 <= period <= 1000:
            return Allowance(100, quota * 1000, period * 1000)
        raise InvalidConfig(f"Invalid allowance: {text}: the period is 1ms to 1000ms")
    raise InvalidConfig(
        f'Invalid allowance: {text}: use a share such as "50%" or a quota such as "25ms/100ms"'
    )
