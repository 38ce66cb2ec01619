"""Log files of instances: of their start, their console, their recorded commands."""

from __future__ import annotations

import os
import re
from pathlib import Path

from lxpy.errors import BadRequest, NotFound
from lxpy.events.lifecycle import Lifecycle
from lxpy.services.directories import Directories
from lxpy.services.instances.store import InstanceStore
from lxpy.threads import in_thread

#: what `lxc info --show-log` asks for: how the last start went
START = "lxc.log"
#: what it was started with
CONFIG = "lxc.conf"
CONSOLE = "console.log"
_NAME = re.compile(
    r"lxc\.log|lxc\.conf|criu\.log|console\.log|(exec|migration|snapshot)_[A-Za-z0-9._-]+"
)
_KEPT = (START, CONFIG)


class Logs:
    """Reads and removes them."""

    def __init__(
        self, directories: Directories, store: InstanceStore, lifecycle: Lifecycle
    ) -> None:
        self._directories = directories
        self._store = store
        self._lifecycle = lifecycle

    async def list(self, project: str, name: str) -> list[str]:
        """Return the names of an instance's logs. Raises NotFound."""
        directory = self._directory(project, name)

        def found() -> list[str]:
            if not directory.is_dir():
                return []
            return sorted(each for each in os.listdir(directory) if _NAME.fullmatch(each))

        return await in_thread(found)

    async def path(self, project: str, name: str, log: str) -> Path:
        """Return the path of a log. Raises NotFound, BadRequest for a name that is none."""
        path = self._checked(project, name, log)
        if not await in_thread(path.is_file):
            raise NotFound(f'Log file "{log}" of instance "{name}" not found')
        self._lifecycle.emit(
            "instance-log-retrieved", f"/1.0/instances/{name}/logs/{log}", project, {"file": log}
        )
        return path

    async def delete(self, project: str, name: str, log: str) -> None:
        """Remove a log. Raises NotFound, BadRequest."""
        path = self._checked(project, name, log)
        if log in _KEPT:
            raise BadRequest("lxc.log and lxc.conf may not be deleted")
        try:
            await in_thread(path.unlink)
        except FileNotFoundError:
            raise NotFound(f'Log file "{log}" of instance "{name}" not found') from None
        self._lifecycle.emit("instance-log-deleted", f"/1.0/instances/{name}/logs/{log}", project)

    def _checked(self, project: str, name: str, log: str) -> Path:
        directory = self._directory(project, name)
        if not _NAME.fullmatch(log):
            raise BadRequest(f"log file name {log} not valid")
        return directory / log

    def _directory(self, project: str, name: str) -> Path:
        return self._directories.logs(self._store.get(project, name).unique_name)
