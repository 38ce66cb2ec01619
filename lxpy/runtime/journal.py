"""What the supervisor holds, on disk: so that its successor finds the containers again.

One file for an instance. A container is recognised by pid, start time and cgroup id together. What
ran when the host went down is forgotten: nobody asked for its end, so there is none to tell.
"""

from __future__ import annotations

import json
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxpy.runtime.plain import Entry


def boot_id() -> str:
    """Return what tells this boot of the host from all others."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


class Journal:
    """The directory of entries, named by instance."""

    def __init__(self, directory: str, boot: str) -> None:
        """Use `directory`; `boot` is the id of this boot of the host."""
        self._directory = directory
        self._boot = boot
        os.makedirs(directory, mode=0o700, exist_ok=True)

    def write(self, name: str, entry: Entry) -> None:
        """Replace the entry at once: a reader sees the old one or the new one."""
        path = f"{self._directory}/{name}"
        data = json.dumps({**entry, "boot": self._boot}).encode()
        fd = os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, data)
        finally:
            os.close(fd)
        os.rename(f"{path}.new", path)

    def remove(self, name: str) -> None:
        """Forget an instance. Idempotent."""
        try:
            os.unlink(f"{self._directory}/{name}")
        except FileNotFoundError:
            return

    def load(self) -> dict[str, Entry]:
        """Return all entries but damaged ones and what ran in another boot, which is removed.

        An end of another boot stays: the daemon has not noted it yet.
        """
        entries: dict[str, Entry] = {}
        for name in os.listdir(self._directory):
            if name.endswith(".new"):
                continue
            try:
                with open(f"{self._directory}/{name}", encoding="utf-8") as file:
                    entry = json.load(file)
            except (OSError, ValueError):
                continue
            if entry.get("boot") == self._boot or "end" in entry:
                entries[name] = entry
            else:
                self.remove(name)
        return entries
