"""Control groups: one interface over the hybrid layout (v1 controllers) and pure cgroup2.

    cgroup2   ROOT/NAME       ours, holds the limits
              ROOT/NAME/p     the payload, delegated: the container's own cgroup root
              ROOT/NAME/p/.lxc  commands executed in the instance
    v1        ROOT/NAME       in every hierarchy; limits where no v2 controller is to be had

Source: cgroups(7), the kernel's cgroup-v2.rst.
"""

from __future__ import annotations

import os

from lxpy.kernel import mounts
from lxpy.runtime import blockio
from lxpy.runtime.files import read, write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxpy.runtime.plain import Limits

WANTED = ("cpuset", "cpu", "io", "memory", "pids", "hugetlb")
_V1_NAMES = {
    "cpuset", "cpu", "cpuacct", "blkio", "memory", "devices", "freezer", "net_cls", "perf_event",
    "net_prio", "hugetlb", "pids", "rdma", "misc",
}  # fmt: skip
MAX_DEPTH = "100"  # a container nests as it likes, but not until the host cannot clean up
#: The last name of where an installation mounts `name=systemd` on a host that has none.
OWN_SYSTEMD = "systemd-cgroup"
DELEGATED = ("cgroup.procs", "cgroup.threads", "cgroup.subtree_control")


class Layout:
    """Where this host's hierarchies are mounted."""

    __slots__ = ("named", "v1", "v2", "v2_controllers")

    def __init__(self, v2: str, v1: dict[str, str], named: dict[str, str]) -> None:
        self.v2 = v2
        self.v1 = v1  # controller -> mount point
        self.named = named  # "systemd" -> mount point
        controllers = read(f"{v2}/cgroup.controllers").split() if v2 else []
        self.v2_controllers = frozenset(controllers)

    @classmethod
    def detect(cls, mountinfo: str = "/proc/self/mountinfo", *, run_dir: str = "") -> Layout:
        """Find the hierarchies, without those that other installations than `run_dir` have mounted.

        Raises FileNotFoundError when cgroup2 is not mounted.
        """
        v2 = ""
        v1: dict[str, str] = {}
        named: dict[str, str] = {}
        with open(mountinfo, encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                before, _, after = line.partition(" - ")
                point = before.split()[4].encode().decode("unicode_escape")
                kind, _, options = (after.split() + ["", "", ""])[:3]
                if os.path.basename(point) == OWN_SYSTEMD and os.path.dirname(point) != run_dir:
                    continue
                if kind == "cgroup2" and not v2:
                    v2 = point
                elif kind == "cgroup":
                    for option in options.split(","):
                        if option in _V1_NAMES:
                            v1.setdefault(option, point)
                        elif option.startswith("name="):
                            named.setdefault(option[5:], point)
        if not v2:
            raise FileNotFoundError(2, "cgroup2 is mounted nowhere: mount it at /sys/fs/cgroup")
        return cls(v2, v1, named)

    def mount_systemd(self, run_dir: str) -> None:
        """Mount `name=systemd` for guests that know nothing else, where the host has none."""
        if "systemd" not in self.named:
            point = f"{run_dir}/{OWN_SYSTEMD}"
            os.makedirs(point, exist_ok=True)
            mounts.mount("cgroup", point, "cgroup", data="none,name=systemd")
            self.named["systemd"] = point

    def unmount_systemd(self, run_dir: str) -> None:
        """Take away what `mount_systemd` has mounted, when its groups are gone."""
        point = f"{run_dir}/{OWN_SYSTEMD}"
        if self.named.get("systemd") == point:
            mounts.unmount(point, mounts.MNT_DETACH)
            os.rmdir(point)
            del self.named["systemd"]

    def mounts_v1(self) -> list[str]:
        """Return the mount point of every v1 hierarchy once."""
        return list(dict.fromkeys([*self.v1.values(), *self.named.values()]))


class Root:
    """Our own group in every hierarchy, `path` below the mount points ("lxpy")."""

    def __init__(self, layout: Layout, path: str) -> None:
        self.layout = layout
        self.path = path.strip("/")

    def prepare(self) -> None:
        """Make the groups and hand every controller down to them. Idempotent."""
        for mount in [self.layout.v2, *self.layout.mounts_v1()]:
            os.makedirs(f"{mount}/{self.path}", exist_ok=True)
        if "cpuset" in self.layout.v1:
            self._fill_cpuset(self.layout.v1["cpuset"])
        self._leave_root()
        walked = self.layout.v2
        for name in ["", *self.path.split("/")]:
            walked = f"{walked}/{name}" if name else walked
            enable_controllers(walked)

    def _fill_cpuset(self, mount: str) -> None:
        walked = mount
        for name in self.path.split("/"):
            parent, walked = walked, f"{walked}/{name}"
            for file in ("cpuset.cpus", "cpuset.mems"):
                if not read(f"{walked}/{file}").strip():
                    write(f"{walked}/{file}", read(f"{parent}/{file}").strip())
        write(f"{walked}/cgroup.clone_children", "1")

    def _leave_root(self) -> None:
        """Move ourselves out of the group when a service manager started us in it.

        A group of cgroup2 holds processes or hands controllers down, never both.
        """
        root = f"{self.layout.v2}/{self.path}"
        pids = read(f"{root}/cgroup.procs").split()
        if pids:
            os.makedirs(f"{root}/.supervisor", exist_ok=True)
            for pid in pids:
                write(f"{root}/.supervisor/cgroup.procs", pid)

    def remove(self) -> None:
        """Remove our groups where nothing is left in them."""
        for mount in [self.layout.v2, *self.layout.mounts_v1()]:
            _remove_tree(f"{mount}/{self.path}")

    def names(self) -> list[str]:
        """Return the names of the instances that have a group."""
        with os.scandir(f"{self.layout.v2}/{self.path}") as entries:
            return [e.name for e in entries if e.is_dir() and not e.name.startswith(".")]

    def group(self, name: str) -> Group:
        """Return the groups of one instance. Raises ValueError for what is no plain name."""
        if not name or "/" in name or name.startswith("."):
            raise ValueError(f"invalid name {name!r}")
        return Group(self.layout, f"{self.path}/{name}")


class Group:
    """The groups of one instance."""

    __slots__ = ("layout", "path", "v2")

    def __init__(self, layout: Layout, path: str) -> None:
        self.layout = layout
        self.path = path
        self.v2 = f"{layout.v2}/{path}"

    def create(self, uid: int, gid: int) -> int:
        """Make the cgroup2 part, its payload owned by `uid`:`gid`; return the payload's fd."""
        payload = f"{self.v2}/p"
        os.mkdir(self.v2)
        write(f"{self.v2}/cgroup.max.depth", MAX_DEPTH)
        enable_controllers(self.v2)
        for directory in (payload, f"{payload}/.lxc"):
            os.mkdir(directory)
            os.chown(directory, uid, gid)
            for name in DELEGATED:
                os.chown(f"{directory}/{name}", uid, gid)
        return os.open(payload, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def create_v1(self) -> None:
        """Make the v1 part."""
        for mount in self.layout.mounts_v1():
            os.makedirs(f"{mount}/{self.path}", exist_ok=True)

    def delegate_systemd(self, uid: int, gid: int, mount: str) -> None:
        """Enter the group in the `name=systemd` hierarchy at `mount`; give it to an old systemd."""
        directory = f"{mount}/{self.path}"
        os.makedirs(directory, exist_ok=True)
        os.chown(directory, uid, gid)
        for name in ("cgroup.procs", "tasks"):
            os.chown(f"{directory}/{name}", uid, gid)
        write(f"{directory}/tasks", "0")

    def enter_v1(self) -> None:
        """Move the calling, single-threaded process into every v1 group.

        "0" to `tasks` skips the global lock that a pid in `cgroup.procs` takes: 0.3 against 7 ms.
        """
        for mount in self.layout.mounts_v1():
            write(f"{mount}/{self.path}/tasks", "0")

    def identity(self) -> int:
        """Return the cgroup's id, which no later group will have."""
        return os.stat(self.v2).st_ino

    def pids(self) -> list[int]:
        """Return its processes, those of the groups below included."""
        found = []
        for path, _, _ in os.walk(self.v2):
            try:
                found += [int(line) for line in read(f"{path}/cgroup.procs").split()]
            except OSError:
                continue  # a group that has gone
        return found

    def memory(self) -> tuple[int, int]:
        """Return the limit of memory (0: none) and what is used, in bytes."""
        if "memory" in self.layout.v1:
            base = self._base("memory")
            limit = int(read(f"{base}/memory.limit_in_bytes"))
            return (limit if limit < 1 << 60 else 0), int(read(f"{base}/memory.usage_in_bytes"))
        if "memory" not in self.layout.v2_controllers:
            return 0, 0
        text = read(f"{self.v2}/memory.max").strip()
        return (0 if text == "max" else int(text)), int(read(f"{self.v2}/memory.current"))

    def open_exec(self) -> int:
        """Open the group of executed commands."""
        return os.open(f"{self.v2}/p/.lxc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def open_own(self, name: str) -> int:
        """Open a group of ours beside the payload, made where it is missing."""
        directory = f"{self.v2}/{name}"
        os.makedirs(directory, exist_ok=True)
        return os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def kill(self) -> None:
        """Kill every process in it, executed commands included."""
        try:
            write(f"{self.v2}/cgroup.kill", "1")
        except FileNotFoundError:
            return

    def freeze(self, *, frozen: bool) -> None:
        """Ask for the freezer; `is_frozen` tells when it is done."""
        write(f"{self.v2}/cgroup.freeze", "1" if frozen else "0")

    def is_frozen(self) -> bool:
        """Tell whether every process is frozen."""
        try:
            return "frozen 1" in read(f"{self.v2}/cgroup.events")
        except OSError:
            return False

    def remove(self) -> bool:
        """Remove the groups; False when a process is still in one: try again a little later."""
        done = _remove_tree(self.v2)
        for mount in self.layout.mounts_v1():
            done = _remove_tree(f"{mount}/{self.path}") and done
        return done

    def limit(self, limits: Limits) -> None:
        """Apply limits, at start or live. Raises OSError when one cannot be had here."""
        self._limit_memory(limits)
        self._limit_cpu(limits)
        self._limit_cpus(limits["cpus"])
        pids = limits["pids"]
        self._set("pids", "pids.max", "max" if pids is None else str(pids), pids is not None)
        v1 = self.layout.v1
        name = "blkio" if "blkio" in v1 else "io"
        blockio.limit_devices(self._base(name), limits["io"], v1=name in v1)
        blockio.set_weight(self._base(name), limits["io_weight"])
        blockio.limit_huge_pages(self._base("hugetlb"), limits, v1="hugetlb" in v1)
        swappiness = limits["swappiness"]
        if "memory" in v1 and not limits["swap"]:
            swappiness = 0  # also without a limit of memory, which would include swap
        blockio.set_swappiness(self._base("memory"), swappiness, v1="memory" in v1)

    def set_files(self, files: list[list[str]]) -> None:
        """Write control files, "cgroup2/memory.high" or "cgroup/..." of version 1.

        Raises OSError where the hierarchy has no such file.
        """
        for name, text in files:
            hierarchy, _, file = name.partition("/")
            controller = file.partition(".")[0]
            mount = self.layout.v2 if hierarchy == "cgroup2" else self.layout.v1.get(controller)
            if not mount or not os.path.exists(f"{mount}/{self.path}/{file}"):
                raise OSError(95, f"lxc.{hierarchy}.{file}: this host has no such control file")
            write(f"{mount}/{self.path}/{file}", text)

    def _set(self, controller: str, file: str, text: str, required: bool) -> None:
        """Write a control file that v1 and v2 name alike."""
        base = self._base(controller)
        if base:
            write(f"{base}/{file}", text)
        elif required:
            raise OSError(95, f"limit {file}={text}: this host has no {controller} controller")

    def _base(self, controller: str) -> str:
        if controller in self.layout.v1:
            return f"{self.layout.v1[controller]}/{self.path}"
        return self.v2 if controller in self.layout.v2_controllers else ""

    def _limit_memory(self, limits: Limits) -> None:
        size, soft = limits["memory_bytes"], limits["memory_soft_bytes"]
        if "memory" not in self.layout.v1:
            swap = "max" if limits["swap"] else "0"
            self._set("memory", "memory.max", _or(size, "max"), size is not None)
            self._set("memory", "memory.high", _or(soft, "max"), soft is not None)
            if os.path.exists(f"{self.v2}/memory.swap.max"):
                write(f"{self.v2}/memory.swap.max", swap)
            return
        base = self._base("memory")
        both = f"{base}/memory.memsw.limit_in_bytes"
        accounts_swap = os.path.exists(both)
        if accounts_swap:
            write(both, "-1")  # never below the limit of memory alone, whichever way that moves
        write(f"{base}/memory.limit_in_bytes", _or(size, "-1"))
        write(f"{base}/memory.soft_limit_in_bytes", _or(soft, "-1"))
        if accounts_swap and size is not None and not limits["swap"]:
            write(both, str(size))

    def _limit_cpu(self, limits: Limits) -> None:
        quota, period, weight = (
            limits["cpu_quota_us"],
            limits["cpu_period_us"],
            limits["cpu_weight"],
        )
        if "cpu" not in self.layout.v1:
            self._set("cpu", "cpu.max", f"{_or(quota, 'max')} {period}", quota is not None)
            self._set("cpu", "cpu.weight", str(weight), weight != 100)
            return
        base = self._base("cpu")
        write(f"{base}/cpu.cfs_quota_us", "-1")
        write(f"{base}/cpu.cfs_period_us", str(period))
        write(f"{base}/cpu.cfs_quota_us", _or(quota, "-1"))
        write(f"{base}/cpu.shares", str(max(2, weight * 1024 // 100)))

    def _limit_cpus(self, cpus: str | None) -> None:
        """An empty set means all cpus, but none can be emptied while processes run in the group."""
        base = self._base("cpuset")
        if cpus is not None:
            self._set("cpuset", "cpuset.cpus", cpus, required=True)
        elif base and read(f"{base}/cpuset.cpus").strip():
            above = os.path.dirname(base)
            file = "cpuset.cpus" if "cpuset" in self.layout.v1 else "cpuset.cpus.effective"
            write(f"{base}/cpuset.cpus", read(f"{above}/{file}").strip())


def _or(value: int | None, otherwise: str) -> str:
    return otherwise if value is None else str(value)


def enable_controllers(directory: str) -> None:
    """Hand the controllers that a group has down to its children, as far as it can."""
    try:
        enabled = read(f"{directory}/cgroup.subtree_control").split()
        for name in read(f"{directory}/cgroup.controllers").split():
            if name in WANTED and name not in enabled:
                try:
                    write(f"{directory}/cgroup.subtree_control", f"+{name}")
                except OSError:
                    continue  # the group above keeps it to itself
    except FileNotFoundError:
        return


def _remove_tree(path: str, above: int | None = None) -> bool:
    """Remove a group and those below; False when a process is in one.

    By descriptors: the container chooses the names below, and their paths may be too long.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=above)
    except FileNotFoundError:
        return True
    done = True
    try:
        with os.scandir(fd) as entries:
            below = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        for name in below:
            done = _remove_tree(name, fd) and done
    finally:
        os.close(fd)
    try:
        if done:
            os.rmdir(path, dir_fd=above)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return done
