"""The database looked after: examined at the start, copied by the hour, replaced when damaged.

While it does not tell all that there is, nothing may be changed: instances run on, and what can
be read is shown.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

import structlog

from lxpy.db.engine import Database
from lxpy.db.safety import Condition, Replacement, Safety, State
from lxpy.db.upgrade import upgrade
from lxpy.errors import LxpyError
from lxpy.services.directories import Directories
from lxpy.services.server.warnings import Trouble
from lxpy.threads import in_thread

_LOOK_S = 60.0
_WORDS = {
    State.DAMAGED: (
        "Database is damaged",
        'The database is damaged ({}): nothing can be changed, instances run on; "lxpy recover '
        '--database" puts what is sound in its place',
    ),
    State.LOST: (
        "Database was lost",
        'The database was lost ({}): nothing can be changed until it is found again; "lxpy '
        'recover --database" takes the last copy of it, if there is one, "lxpy recover" finds '
        'what is on the storage pools, "lxpy recover --start-over" begins with nothing',
    ),
    State.RESTORED: (
        "Database is an older copy",
        'The database is not the newest ({}): nothing can be changed until "lxpy recover" has '
        "looked on the storage pools for what is missing in it",
    ),
}
_COPIES = "Database could not be copied"

_log = structlog.get_logger()


class Care:
    """Tells how the database is (`condition`), and keeps copies of it."""

    def __init__(self, db: Database, directories: Directories) -> None:
        self.condition = Condition()
        self._db = db
        self._directories = directories
        self._safety = Safety(
            directories.database, directories.database_care, lambda: evidence(directories)
        )
        self._troubles: dict[str, str] = {}
        db.on_damage = self._damaged

    @property
    def is_sound(self) -> bool:
        """Whether the database tells all that there is."""
        return self.condition.state is State.SOUND

    @property
    def reason(self) -> str:
        """Why nothing can be changed, and the remedy; "" when all is well."""
        if self.is_sound:
            return ""
        return _WORDS[self.condition.state][1].format(self.condition.cause)

    async def open(self) -> None:
        """Make the database ready for use, by this version's schema.

        Raises Failed where not even an empty one can be made.
        """
        self.condition = await in_thread(self._safety.examine)
        if self.condition.state is State.DAMAGED:
            read = self.condition.read
            if read is None:
                read = await in_thread(self._make_empty)
            self._db.read_instead(read, self.reason)
        else:
            await in_thread(upgrade, self._directories.database)
            await in_thread(self._safety.opened)
        if not self.is_sound:
            self._tell(_WORDS[self.condition.state][0], self.reason)

    def _make_empty(self) -> Path:
        path = self._directories.database_care / "empty.db"
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        upgrade(path)
        return path

    def _damaged(self, said: str) -> None:
        """Stop writing to a file that has become unsound."""
        self.condition = Condition(State.DAMAGED, said)
        self._db.read_only = self.reason
        self._tell(_WORDS[State.DAMAGED][0], self.reason)

    async def close(self) -> None:
        """Note an orderly end, once the database is closed."""
        if self.condition.state is not State.DAMAGED:
            await in_thread(self._safety.closed)

    async def keep(self) -> None:
        """Copy the database each hour in which it has changed, for as long as it is sound."""
        while self.is_sound:
            try:
                if await in_thread(self._safety.dumps.due):
                    await in_thread(self._safety.dumps.make)
                self._troubles.pop(_COPIES, None)
            except (LxpyError, OSError) as error:
                self._tell(_COPIES, str(error))
            await asyncio.sleep(_LOOK_S)

    async def copy(self) -> None:
        """Copy the database now. Raises Failed."""
        await in_thread(self._safety.dumps.make)

    async def replace(self) -> Replacement:
        """Put what is sound in the place of the database; the daemon has to begin anew then.

        Raises Failed.
        """
        await self._db.close()
        found = await in_thread(self._safety.restore)
        _log.warning("database replaced", by=str(found.path or "nothing"))
        return found

    async def recovered(self) -> None:
        """Note that all has been found that there is."""
        await in_thread(self._safety.recovered)

    def troubles(self) -> Iterable[Trouble]:
        """Return what is wrong with the database now."""
        return [Trouble(kind, text) for kind, text in self._troubles.items()]

    def _tell(self, kind: str, text: str) -> None:
        _log.error(kind.lower(), cause=text)
        self._troubles[kind] = text


def evidence(directories: Directories) -> str:
    """Return what an installation has that its database should know; "" for a new one."""
    pools = directories.pools
    for what, pattern in (
        (directories.records, "*.yaml"),
        (pools, "*/records/*.yaml"),
        (pools, "*/containers/*"),
        (pools, "*/custom/*"),
        (directories.run, "journal/*"),
    ):
        found = next(what.glob(pattern), None)
        if found is not None:
            return f"{directories.database} is not there, but {found} is"
    return ""
