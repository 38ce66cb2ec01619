"""Where one installation keeps what: everything lies below LXPY_DIR."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

DEFAULT = Path("/var/lib/lxpy")


@dataclass(frozen=True, slots=True)
class Directories:
    """The directories and files of one installation, and the names it has on its host."""

    root: Path

    @property
    def is_default(self) -> bool:
        """Whether this is the host's own installation, which bears the plain names."""
        return self.root == DEFAULT

    @property
    def cgroup(self) -> str:
        """The name of its control group."""
        return "lxpy" if self.is_default else f"lxpy-{self._tag}"

    @property
    def bridge(self) -> str:
        """The name of its default network."""
        return "lxpybr0" if self.is_default else f"lxpy-{self._tag}"

    @property
    def _tag(self) -> str:
        return hashlib.sha256(str(self.root).encode()).hexdigest()[:8]

    @property
    def socket(self) -> Path:
        """The API's unix socket."""
        return self.root / "unix.socket"

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.root / "lxpy.db"

    @property
    def database_care(self) -> Path:
        """Copies of the database, and marks of how it is."""
        return self.root / "database"

    @property
    def records(self) -> Path:
        """What a lost database is rebuilt from, beside what lies on the pools."""
        return self.root / "records"

    @property
    def images(self) -> Path:
        """Image files, by fingerprint."""
        return self.root / "images"

    @property
    def cache(self) -> Path:
        """What can be fetched again."""
        return self.root / "cache"

    @property
    def pools(self) -> Path:
        """Storage pools that lie here."""
        return self.root / "storage-pools"

    @property
    def networks(self) -> Path:
        """dnsmasq's files, by network."""
        return self.root / "networks"

    @property
    def backups(self) -> Path:
        """Backups that are kept for a while."""
        return self.root / "backups"

    @property
    def transfers(self) -> Path:
        """Where volumes on their way to or from other servers are put together."""
        return self.root / "transfers"

    @property
    def states(self) -> Path:
        """Memory of instances: of those stopped with their state, and of snapshots."""
        return self.root / "states"

    @property
    def run(self) -> Path:
        """The supervisor's socket and journal."""
        return self.root / "run"

    @property
    def guest_api(self) -> Path:
        """The directory with the guests' socket, which instances see at /dev/lxd."""
        return self.root / "devlxd"

    @property
    def lxcfs(self) -> Path:
        """Where lxcfs is mounted."""
        return self.root / "lxcfs"

    @property
    def mounts(self) -> Path:
        """Where file systems of ISO volumes are mounted for the instances that show them."""
        return self.root / "mounts"

    @property
    def snapshot_mounts(self) -> Path:
        """What says which snapshots are mounted where on the host."""
        return self.root / "snapshot-mounts.json"

    @property
    def all_logs(self) -> Path:
        """Logs of the daemon, the supervisor and of each instance."""
        return self.root / "logs"

    def logs(self, unique_name: str) -> Path:
        """Return the directory of one instance's logs."""
        return self.all_logs / unique_name

    def states_of(self, unique_name: str) -> Path:
        """Return the directory of one instance's memory."""
        return self.states / unique_name

    def make(self) -> None:
        """Make what must be there before anything else. Raises OSError."""
        self.root.mkdir(mode=0o711, parents=True, exist_ok=True)
        for path in (self.images, self.pools, self.networks, self.run):
            if not path.is_symlink():  # to what may not be mounted yet
                path.mkdir(mode=0o711, exist_ok=True)
        self.guest_api.mkdir(mode=0o755, exist_ok=True)
        for path in (self.all_logs, self.cache, self.states):
            path.mkdir(mode=0o700, exist_ok=True)
