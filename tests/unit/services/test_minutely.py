"""Work of every minute: one job that fails does not keep the others from theirs."""

from __future__ import annotations

from datetime import UTC, datetime

from lxpy.errors import Failed
from lxpy.services.minutely import Minutely


async def test_a_turn() -> None:
    done: list[str] = []
    minutely = Minutely()

    async def refused(_: datetime) -> None:
        raise Failed("not now")

    async def broken(_: datetime) -> None:
        raise ZeroDivisionError

    async def works(now: datetime) -> None:
        done.append(now.isoformat())

    for job in (refused, broken, works):
        minutely.add(job)
    now = datetime(2026, 11, 25, tzinfo=UTC)
    await minutely.turn(now)
    await minutely.turn(now)
    assert done == ["2026-11-25T00:00:00+00:00"] * 2
