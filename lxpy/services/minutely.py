"""What is looked after once a minute: schedules and ends of snapshots, for one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime

import structlog

from lxpy.errors import LxpyError

#: called once a minute with the host's local time, aware of its zone
Job = Callable[[datetime], Awaitable[None]]

_log = structlog.get_logger()


class Minutely:
    """Wakes at every full minute, and for nothing else."""

    def __init__(self) -> None:
        self._jobs: list[Job] = []

    def add(self, job: Job) -> None:
        """Have a job done every minute; the jobs wait for one another."""
        self._jobs.append(job)

    async def run(self) -> None:
        """Do the jobs until cancelled. One that fails is told of, and comes again."""
        while True:
            now = datetime.now().astimezone()
            await asyncio.sleep(60 - now.second - now.microsecond / 1_000_000 + 0.001)
            await self.turn(datetime.now().astimezone())

    async def turn(self, now: datetime) -> None:
        """Do each job once."""
        for job in self._jobs:
            try:
                await job(now)
            except LxpyError as error:
                _log.warning("minutely work failed", error=str(error))
            except Exception:
                _log.exception("minutely work broke")
