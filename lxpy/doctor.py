"""What lxpy needs of its host, whether it is there, and what to do if it is not.

Reads /proc, /sys and PATH; changes nothing. A check is a function from a Host to findings; the
table at the end lists them all.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class Verdict(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"  # something works less well, or not at all, but instances run
    FAILURE = "failure"  # instances can't run


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at."""

    area: str
    subject: str
    verdict: Verdict
    text: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Host:
    """The host as the checks see it; `root` is another directory in tests."""

    root: Path = Path("/")
    path: str = os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
    state_dir: str = "/var/lib/lxpy"

    def file(self, name: str) -> Path:
        return self.root / name.lstrip("/")

    def read(self, name: str) -> str:
        """Return a file's text without the last newline; empty if it can't be read."""
        try:
            return self.file(name).read_text(errors="replace").rstrip("\n")
        except OSError:
            return ""

    def number(self, name: str) -> int | None:
        """Return the number a file holds, None if there is none."""
        text = self.read(name).strip()
        return int(text) if re.fullmatch(r"-?\d+", text) else None

    def tool(self, name: str) -> str | None:
        """Return where a program is; the system's directories count even if PATH lacks them."""
        return shutil.which(name, path=f"{self.path}:/usr/sbin:/sbin")

    def succeeds(self, *argv: str) -> bool:
        """Run a program that changes nothing."""
        try:
            return subprocess.run(argv, capture_output=True, timeout=10).returncode == 0
        except (OSError, subprocess.TimeoutExpired):
            return False


# Oldest kernel with overlayfs on idmapped layers, and the first with all that lxpy makes use of.
KERNEL_NEEDED = (5, 19)
KERNEL_WANTED = (6, 1)

NAMESPACES = ("mnt", "pid", "net", "ipc", "uts", "user", "cgroup")

FILESYSTEMS = {
    "overlay": "CONFIG_OVERLAY_FS (modprobe overlay): instances share their image's files by it",
    "tmpfs": "CONFIG_TMPFS",
    "devpts": "CONFIG_UNIX98_PTYS",
    "mqueue": "CONFIG_POSIX_MQUEUE",
    "cgroup2": "CONFIG_CGROUPS",
}

# File systems whose mounts can be idmapped, by the first kernel that can.
IDMAPPED = {
    "ext4": (5, 12),
    "vfat": (5, 12),
    "xfs": (5, 12),
    "btrfs": (5, 15),
    "f2fs": (5, 18),
    "erofs": (5, 19),
    "tmpfs": (6, 3),
    "zfs": (6, 1),
    "bcachefs": (6, 10),
}

CONTROLLERS = {
    "memory": "limits.memory",
    "cpu": "limits.cpu.allowance and limits.cpu.priority",
    "cpuset": "limits.cpu",
    "pids": "limits.processes",
}

# Programs: what for, Debian's package, and whether instances can't run without it.
TOOLS = {
    "dnsmasq": ("DHCP and DNS on bridges", "dnsmasq-base", True),
    "nft": ("NAT and filters of bridges", "nftables", True),
    "tar": ("unpacking images", "tar", True),
    "xz": ("images compressed by xz", "xz-utils", False),
    "zstd": ("images compressed by zstd", "zstd", False),
    "unsquashfs": ("images whose rootfs is a squashfs", "squashfs-tools", False),
    "lxcfs": (
        "/proc/meminfo, cpuinfo and uptime as an instance's limits have them",
        "lxcfs",
        False,
    ),
    "mmdebstrap": ("building Debian and Ubuntu images", "mmdebstrap", False),
    "mkfs.btrfs": (
        "storage pools on btrfs; sizes of volumes where there are no project quotas",
        "btrfs-progs",
        False,
    ),
}

# Module -> how `ip link add NAME` makes what it is for.
_NIC_LINKS = {
    "macvlan": "link lxpytry1 type macvlan",
    "ipvlan": "link lxpytry1 type ipvlan",
    "8021q": "link lxpytry1 type vlan id 2",
    "vxlan": "type vxlan id 2 dstport 8472 local 127.0.0.1 remote 127.0.0.2",
    "ip_gre": "type gretap local 127.0.0.1 remote 127.0.0.2",
}

# Kernel settings: file below /proc/sys, the least that carries a hundred instances, what for.
SETTINGS = {
    "fs/inotify/max_user_instances": (1024, "a booted system holds about ten"),
    "fs/inotify/max_user_watches": (65536, "a booted system holds some hundreds"),
    "kernel/keys/maxkeys": (2000, "each instance has a session keyring, its services have theirs"),
    "kernel/pid_max": (65536, "processes of all instances together"),
    "user/max_user_namespaces": (1024, "one for each instance, and what runs nested in it"),
    "user/max_net_namespaces": (1024, "one for each instance"),
}

DESCRIPTORS_WANTED = 16384
SPACE_WANTED_BYTES = 2 * 1024**3


def release(host: Host) -> tuple[int, int]:
    """Return the kernel's version."""
    found = re.match(r"(\d+)\.(\d+)", host.read("/proc/sys/kernel/osrelease"))
    return (int(found[1]), int(found[2])) if found else (0, 0)


def check_kernel(host: Host) -> Iterator[Finding]:
    """Version, namespaces, file systems, seccomp, keyrings."""
    have, text = release(host), host.read("/proc/sys/kernel/osrelease") or "unknown"
    wanted = ".".join(map(str, KERNEL_WANTED))
    remedy = f"install a kernel of version {wanted} or later"
    verdict = Verdict.OK
    if have < KERNEL_WANTED:
        verdict = Verdict.WARNING if have >= KERNEL_NEEDED else Verdict.FAILURE
    yield Finding("kernel", "version", verdict, text, "" if verdict is Verdict.OK else remedy)

    missing = [name for name in NAMESPACES if not host.file(f"/proc/self/ns/{name}").is_symlink()]
    yield _needed("kernel", "namespaces", missing, "all seven", "use a kernel that has them")

    known = {line.split()[-1] for line in host.read("/proc/filesystems").splitlines() if line}
    for name, why in FILESYSTEMS.items():
        # What is a module still to be loaded is not listed yet.
        if name in known or host.succeeds("modprobe", "--dry-run", "--quiet", name):
            yield Finding("kernel", f"{name} file system", Verdict.OK, "present")
        else:
            yield Finding("kernel", f"{name} file system", Verdict.FAILURE, "missing", why)

    if "errno" in host.read("/proc/sys/kernel/seccomp/actions_avail").split():
        yield Finding("kernel", "seccomp filters", Verdict.OK, "present")
    else:
        why = "use a kernel with CONFIG_SECCOMP_FILTER"
        yield Finding("kernel", "seccomp filters", Verdict.FAILURE, "missing", why)


def check_cgroups(host: Host) -> Iterator[Finding]:
    """Where the controllers are that limits need."""
    where = controllers(host)
    layout = cgroup_layout(host)
    if layout == "none":
        remedy = "mount -t cgroup2 cgroup2 /sys/fs/cgroup"
        yield Finding("control groups", "layout", Verdict.FAILURE, "not mounted", remedy)
    elif layout == "v1":
        remedy = "mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified"
        text = "version 1 only: cgroup2 is missing"
        yield Finding("control groups", "layout", Verdict.FAILURE, text, remedy)
    else:
        yield Finding("control groups", "layout", Verdict.OK, layout)
    for name, keys in CONTROLLERS.items():
        if name in where:
            yield Finding("control groups", name, Verdict.OK, where[name])
        else:
            remedy = f"without it {keys} have no effect; boot with cgroup_enable={name}"
            yield Finding("control groups", name, Verdict.WARNING, "missing", remedy)


def _mounts(host: Host) -> list[list[str]]:
    return [line.split() for line in host.read("/proc/self/mounts").splitlines()]


def cgroup_layout(host: Host) -> str:
    """Return "pure cgroup2", "hybrid", "v1" or "none"."""
    kinds = {fields[1]: fields[2] for fields in _mounts(host) if fields[2].startswith("cgroup")}
    if kinds.get("/sys/fs/cgroup") == "cgroup2":
        return "pure cgroup2"
    if "cgroup2" in kinds.values():
        return "hybrid"
    return "v1" if kinds else "none"


def controllers(host: Host) -> dict[str, str]:
    """Return each controller with the version that has it."""
    found: dict[str, str] = {}
    for _, target, kind, options, *_ in _mounts(host):
        if kind == "cgroup":
            found |= {name: "version 1" for name in options.split(",") if name in CONTROLLERS}
        elif kind == "cgroup2":
            names = host.read(f"{target}/cgroup.controllers").split()
            found |= {name: "version 2" for name in names if name in CONTROLLERS}
    return found


def check_tools(host: Host) -> Iterator[Finding]:
    """Programs that lxpy calls."""
    for name, (purpose, package, needed) in TOOLS.items():
        if where := host.tool(name):
            yield Finding("programs", name, Verdict.OK, where)
        else:
            verdict = Verdict.FAILURE if needed else Verdict.WARNING
            remedy = f"for {purpose}: install {package}"
            yield Finding("programs", name, verdict, "missing", remedy)


def check_criu(host: Host) -> Iterator[Finding]:
    """CRIU 4.2 or newer, for memory snapshots, stateful stops and live moves."""
    programs = (host.tool("/opt/lxpy-criu/bin/criu"), host.tool("criu"))
    works = any(each and host.succeeds(each, "check") for each in programs)
    yield Finding(
        "programs", "criu", Verdict.OK if works else Verdict.WARNING,
        "saves the memory of instances" if works else "no usable CRIU: no memory snapshots",
        "" if works else "run packaging/criu.sh, or install CRIU 4.2 or newer",
    )  # fmt: skip


def check_network(host: Host) -> Iterator[Finding]:
    """Bridges, veth pairs and nftables: tried in a network namespace that is gone at once."""
    if os.geteuid() != 0 or not (host.tool("unshare") and host.tool("ip")):
        return
    for kind in ("bridge", "veth"):
        if host.succeeds("unshare", "--net", "ip", "link", "add", "lxpytry0", "type", kind):
            yield Finding("network", f"{kind} links", Verdict.OK, "present")
        else:
            remedy = f"load it: modprobe {kind}"
            yield Finding("network", f"{kind} links", Verdict.FAILURE, "missing", remedy)
    lacking = [kind for kind in _NIC_LINKS if not _makes(host, kind)]
    if lacking:
        remedy = f"load them if you want such nics, VLANs or tunnels: modprobe {' '.join(lacking)}"
        yield Finding("network", "more links", Verdict.WARNING, f"no {', '.join(lacking)}", remedy)
    if not host.tool("nft"):
        return
    rules = "table inet try { chain c { type nat hook postrouting priority 100; masquerade; }; }"
    if host.succeeds("unshare", "--net", "nft", rules):
        yield Finding("network", "nftables with NAT", Verdict.OK, "present")
    else:
        remedy = "use a kernel with CONFIG_NF_TABLES, CONFIG_NFT_NAT and CONFIG_NFT_MASQ"
        yield Finding("network", "nftables with NAT", Verdict.FAILURE, "missing", remedy)


def _makes(host: Host, kind: str) -> bool:
    """Whether this kernel makes links of a kind, of a parent where they need one."""
    words = _NIC_LINKS[kind]
    parent = "ip link add lxpytry1 type veth && " if "lxpytry1" in words else ""
    return host.succeeds("unshare", "--net", "sh", "-c", f"{parent}ip link add lxpytry0 {words}")


def check_settings(host: Host) -> Iterator[Finding]:
    """Kernel settings and process limits that many instances share."""
    for name, (least, why) in SETTINGS.items():
        have = host.number(f"/proc/sys/{name}")
        key = name.replace("/", ".")
        if have is None:
            continue
        if have >= least:
            yield Finding("limits", key, Verdict.OK, str(have))
        else:
            verdict = Verdict.FAILURE if have == 0 else Verdict.WARNING
            remedy = f"sysctl -w {key}={least} or more ({why})"
            yield Finding("limits", key, verdict, str(have), remedy)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard == resource.RLIM_INFINITY or hard >= DESCRIPTORS_WANTED:
        yield Finding("limits", "open files", Verdict.OK, str(hard))
    else:
        remedy = (
            f"ulimit -Hn {DESCRIPTORS_WANTED} before the daemon starts, or LimitNOFILE= in its unit"
        )
        yield Finding("limits", "open files", Verdict.WARNING, str(hard), remedy)


def check_storage(host: Host) -> Iterator[Finding]:
    """The file system of the state directory: idmapped mounts, room."""
    kind, target = filesystem_of(host, host.state_dir)
    since = IDMAPPED.get(kind)
    if since is not None and release(host) >= since:
        yield Finding("storage", "file system", Verdict.OK, f"{kind} at {target}")
    else:
        good = ", ".join(name for name in ("ext4", "xfs", "btrfs"))
        remedy = f"put {host.state_dir} on a file system with idmapped mounts: {good}"
        if is_nested(host):
            remedy = f"attach a custom volume of the outer lxpyd at {host.state_dir}"
        text = f"{kind or 'unknown'} at {target or '?'}"
        yield Finding("storage", "file system", Verdict.FAILURE, text, remedy)
    try:
        numbers = os.statvfs(host.file(target or "/"))
    except OSError:
        return
    free = numbers.f_bavail * numbers.f_frsize
    text = f"{free / 1024**3:.1f} GiB"
    if free >= SPACE_WANTED_BYTES:
        yield Finding("storage", "free space", Verdict.OK, text)
    else:
        remedy = f"make room at {target}: an image takes about half a GiB"
        yield Finding("storage", "free space", Verdict.WARNING, text, remedy)


def filesystem_of(host: Host, path: str) -> tuple[str, str]:
    """Return type and mount point of what holds `path`, which need not exist yet."""
    best = ("", "")
    for line in host.read("/proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        target = before.split()[4]
        # The last of several mounts at one place is the one seen.
        if Path(path).is_relative_to(target) and len(target) >= len(best[1]):
            best = (after.split()[0], target)
    return best


def check_ids(host: Host) -> Iterator[Finding]:
    """The ids that instances are given, and root itself."""
    if os.geteuid() == 0:
        yield Finding("identity", "user", Verdict.OK, "root")
    else:
        text = "not root: some checks were left out"
        yield Finding("identity", "user", Verdict.WARNING, text, "run lxpy doctor as root")
    subject = "ids for instances"
    if is_nested(host):
        text = "those of this instance, for all of them: lxpyd is nested"
        remedy = "run instances that must not trust each other beside this one, not in it"
        yield Finding("identity", subject, Verdict.WARNING, text, remedy)
        return
    ranges = [_subids(line) for line in host.read("/etc/subuid").splitlines()]
    others = [(first, end) for user, first, end in ranges if user != "root"]
    sizes = [
        end - first
        for user, first, end in ranges
        if user == "root" and not any(low < end and first < high for low, high in others)
    ]
    instances = sum(size // 65536 for size in sizes)
    if not instances:
        text = "from 1000000 on, but those of others in /etc/subuid"
        yield Finding("identity", subject, Verdict.OK, text)
    elif instances < 100:
        text = f"/etc/subuid gives root enough for {instances} instances"
        remedy = "give root more, or none, in /etc/subuid and /etc/subgid"
        yield Finding("identity", subject, Verdict.WARNING, text, remedy)
    else:
        text = f"{sum(sizes)} from /etc/subuid"
        yield Finding("identity", subject, Verdict.OK, text)


def is_nested(host: Host) -> bool:
    """Tell whether the host is itself a container, in a user namespace of its own."""
    return host.read("/proc/self/uid_map").split() not in ([], ["0", "0", "4294967295"])


def _subids(line: str) -> tuple[str, int, int]:
    """Return user, first and end of a line of subuid(5); an empty range when it is none."""
    user, _, numbers = line.partition(":")
    if not re.fullmatch(r"[0-9]{1,10}:[0-9]{1,10}", numbers):
        return "", 0, 0
    first, count = map(int, numbers.split(":"))
    return user, first, first + count


def _needed(area: str, subject: str, missing: list[str], fine: str, remedy: str) -> Finding:
    if missing:
        text = f"missing: {', '.join(missing)}"
        return Finding(area, subject, Verdict.FAILURE, text, remedy)
    return Finding(area, subject, Verdict.OK, fine)


CHECKS: tuple[Callable[[Host], Iterator[Finding]], ...] = (
    check_kernel,
    check_cgroups,
    check_tools,
    check_criu,
    check_network,
    check_settings,
    check_storage,
    check_ids,
)


def examine(host: Host) -> list[Finding]:
    """Carry out every check."""
    return [finding for check in CHECKS for finding in check(host)]
