"""What nics that are on no bridge have on the host, noted before it is made.

    LXPY_DIR/run/nics/INSTANCE:DEVICE.json    what to take back; it goes when that is done
    LXPY_DIR/run/nics/INSTANCE:DEVICE.net     the instance's network namespace, held by a mount

A namespace that is held outlives its processes: an interface of the host comes back out of it even
when supervisor and daemon are killed and the instance ends before they return. Blocking.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import quote

from lxpy.kernel import mounts

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(slots=True)
class Record:
    """One nic. `link` is the host's end of a pair, or the interface that was moved inside.

    `index` is its number inside, 0 until it is there. What a moved interface had on the host is in
    `hwaddr`, `mtu` and `up`. `vlan` is an interface that we made for it; `proxies` are addresses
    that the host answers for on `parent`; `routes` are (subnet, table) that lead to the host
    itself; `filtered` tells of rules for `link`. Of another `boot` of the host nothing is left.
    """

    instance: str
    device: str
    kind: str
    name: str
    parent: str = ""
    link: str = ""
    index: int = 0
    hwaddr: str = ""
    mtu: int = 0
    up: bool = False
    function: int | None = None
    vlan: str = ""
    filtered: bool = False
    proxies: list[str] = field(default_factory=list)
    routes: list[tuple[str, int]] = field(default_factory=list)
    boot: str = ""


class Records:
    """The directory of records."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._boot = _BOOT_ID.read_text().strip()

    def write(self, record: Record) -> None:
        """Note a nic, or what is new of it, such that it is on the disk. Raises OSError."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        record.boot = self._boot
        path = self._path(record, "json")
        temporary = path.with_suffix(".new")
        with temporary.open("w") as file:
            json.dump(asdict(record), file)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)

    def all(self) -> Iterator[Record]:
        """Yield every record of this boot, and remove others; one that cannot be read is none."""
        for path in sorted(self._directory.glob("*.json")):
            with contextlib.suppress(OSError, ValueError, TypeError):
                record = Record(**json.loads(path.read_text()))
                if record.boot == self._boot:
                    yield record
                else:
                    self.remove(record)

    def pin(self, record: Record, pid: int) -> None:
        """Hold the network namespace of a process. Raises OSError."""
        place = self._path(record, "net")
        place.touch(mode=0o600)
        mounts.mount(f"/proc/{pid}/ns/net", str(place), "", mounts.MS_BIND)

    def pinned(self, record: Record) -> Path | None:
        """Return the file that is the namespace held for a nic, None when none is."""
        place = self._path(record, "net")
        return place if os.path.ismount(place) else None

    def remove(self, record: Record) -> None:
        """Forget a nic, and let go of its namespace. Raises OSError."""
        place = self._path(record, "net")
        if place.exists():
            try:
                while True:
                    mounts.unmount(str(place), mounts.MNT_DETACH)
            except OSError as error:
                if error.errno != errno.EINVAL:  # it is no mount, or not any more
                    raise
            place.unlink()
        self._path(record, "json").unlink(missing_ok=True)

    def _path(self, record: Record, suffix: str) -> Path:
        name = quote(f"{record.instance}:{record.device}", safe=":")
        return self._directory / f"{name}.{suffix}"
