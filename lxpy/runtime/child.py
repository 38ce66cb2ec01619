"""The child's half of a start: it builds the container around itself and becomes its init.

Two processes: the stage, root of the host in a mount namespace of its own, mounts what comes from
the host and enters the user namespace; its child, PID 1 of the new namespaces, mounts the rest,
waits for the network and executes init.
"""

from __future__ import annotations

import _socket
import os

from lxpy.kernel import mounts, namespaces, processes
from lxpy.runtime.fs import Confined
from lxpy.runtime.phases import Report
from lxpy.runtime.steps import confine, console, devices, guest, identity, live, views
from lxpy.runtime.steps import mounts as mount_steps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from lxpy.runtime.cgroups import Group
    from lxpy.runtime.plain import Disk, Spec

_LEGACY_ENVIRONMENT = {"SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE": "1"}


class Plan:
    """All that the child needs; descriptors are the supervisor's until `keep_descriptors`."""

    __slots__ = (
        "disks",
        "gid",
        "group",
        "notifies",
        "notify",
        "program",
        "report_fd",
        "slave",
        "spec",
        "stage",
        "uid",
        "userns_fd",
    )

    def __init__(
        self, spec: Spec, group: Group, stage: str, program: bytes, *, notifies: bool,
        report_fd: int, slave: int, notify: int, userns_fd: int,
    ) -> None:  # fmt: skip
        self.spec = spec
        self.group = group
        self.stage = stage
        self.program = program
        self.notifies = notifies
        self.report_fd = report_fd
        self.slave = slave
        self.notify = notify
        self.userns_fd = userns_fd
        self.disks: list[tuple[int, Disk]] = []  # those that are there, with their places
        self.uid = identity.outside(spec["idmap"], "u", 0)
        self.gid = identity.outside(spec["idmap"], "g", 0)

    def keep_descriptors(self) -> None:
        """Close whatever else the supervisor holds."""
        fds = [self.report_fd, self.slave, self.notify]
        if self.userns_fd >= 0:
            fds.append(self.userns_fd)
        kept = processes.keep_only(fds)
        self.report_fd, self.slave, self.notify = kept[:3]
        self.userns_fd = kept[3] if len(kept) > 3 else -1


def run(plan: Plan, work: Callable[[Plan, Report], None]) -> NoReturn:
    """Be the child: do the work, tell what fails. Entered right after fork; never returns."""
    try:
        plan.keep_descriptors()
        report = Report(plan.report_fd)
    except BaseException:
        os._exit(1)
    try:
        work(plan, report)
    except BaseException as error:
        report.fail(error)
    os._exit(0)


def start(plan: Plan, report: Report) -> None:
    """Be the stage of a start."""
    spec, uid, gid = plan.spec, plan.uid, plan.gid
    processes.protect()
    os.umask(0o022)
    report.begin("cgroups")
    plan.group.create_v1()
    plan.group.limit(spec["limits"])
    plan.group.set_files(spec["control_files"])
    plan.group.enter_v1()
    confine.set_rlimits(spec["rlimits"])
    confine.reset_oom_score()
    opened = _open_disks(plan, report)
    report.begin("rootfs")
    mounts.make_private()
    mount_steps.enter_scratch(plan.stage)
    nodes = "mknod" in spec["intercept"]
    root = mount_steps.mount_rootfs(spec["rootfs"], plan.userns_fd, uid, gid, nodes=nodes)
    mount_steps.make_mount_points(root, uid, gid)
    seen = guest.inspect(root, spec["init"][0])
    report.begin("/dev")
    dev = devices.mount_dev(root, uid, gid)
    console.bind_console(dev, plan.slave)
    for node in spec["nodes"]:
        owner = identity.outside(spec["idmap"], "u", node["uid"])
        group = identity.outside(spec["idmap"], "g", node["gid"])
        devices.make_node(dev, node, owner, group)
    bind_notify(plan, dev)
    os.close(dev)
    if seen.systemd and spec["live"]:
        report.begin("/run")
        live.mount_run(root, uid, gid)
    if spec["files"]:
        report.begin("files")
        identity.write_files(root, spec["files"], uid, gid)
    plan.disks = _prepare_disks(plan, report, opened)
    root.close()
    legacy = spec["cgroup_view"] == "legacy" or (
        spec["cgroup_view"] == "auto" and seen.wants_legacy_cgroups()
    )
    if legacy:
        report.begin("legacy cgroups")
        mount = plan.group.layout.named.get("systemd") or mount_steps.mount_systemd()
        plan.group.delegate_systemd(uid, gid, mount)
    report.begin("namespaces")
    identity.enter_namespaces(plan.userns_fd, spec["hostname"])
    pid, _ = processes.fork(processes.CLONE_PARENT)
    if pid:
        report.say(pid=pid, legacy=legacy, steps=report.steps)
        return
    report.steps = []
    try:
        _init(plan, report, seen, legacy=legacy)
    except BaseException as error:
        report.fail(error)


def _disks(spec: Spec) -> list[Disk]:
    """Return the disks, last what shows the guest API."""
    directory = spec["guest_api"]
    return [*spec["disks"], *([views.guest_api(directory)] if directory else [])]


def _open_disks(plan: Plan, report: Report) -> list[int]:
    """Return the detached mounts of the disks' sources, -1 for one that is not there."""
    opened = []
    for disk in _disks(plan.spec):
        report.begin(f"disk {disk['target']}")
        opened.append(mount_steps.open_if_there(disk, plan.userns_fd))
    return opened


def _prepare_disks(plan: Plan, report: Report, opened: list[int]) -> list[tuple[int, Disk]]:
    """Mount the disks in the scratch directory; return those that are there."""
    prepared = []
    for index, disk in enumerate(_disks(plan.spec)):
        report.begin(f"disk {disk['target']}")
        if mount_steps.prepare_disk(disk, index, opened[index]):
            prepared.append((index, disk))
    return prepared


def bind_notify(plan: Plan, dev: int) -> None:
    """Bind the socket, made by the supervisor, at which PID 1 tells that it is ready."""
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM, 0, plan.notify)
    name = f"/proc/self/fd/{dev}/{identity.NOTIFY_PATH.removeprefix('/dev/')}"
    sock.bind(name)
    os.chown(name, plan.uid, plan.gid)
    os.chmod(name, 0o600)
    sock.detach()


def _init(plan: Plan, report: Report, seen: guest.Guest, *, legacy: bool) -> NoReturn:
    spec = plan.spec
    os.setsid()
    namespaces.unshare(namespaces.NEWCGROUP, "cgroup namespace")
    report.begin("pivot")
    # A locked mount cannot become a root; a clone of it can, and keeps its locked flags.
    tree = mounts.clone_tree(mount_steps.ROOT, recursive=True)
    mounts.attach(tree, "rootfs", path=mount_steps.ROOT)
    root = Confined.at(mount_steps.ROOT)
    for index, disk in plan.disks:
        report.begin(f"disk {disk['target']}")
        mount_steps.attach_disk(root, disk, index)
    for node in spec["nodes"]:
        if not devices.is_in_dev(node["path"]):
            report.begin(f"device {node['path']}")
            devices.show_elsewhere(root, node)
    report.begin("pivot")
    os.fchdir(root.fd)
    root.close()
    os.close(tree)
    host_root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    mounts.pivot_here()
    report.begin("kernel filesystems")
    # New instances of proc and sysfs are allowed only while a full one is still mounted, hence
    # before the old root goes.
    mount_steps.mount_kernel_filesystems(spec, legacy_cgroups=legacy)
    if spec["lxcfs"]:
        report.begin("lxcfs")
        views.bind_lxcfs(host_root, spec["lxcfs"])
    os.fchdir(host_root)
    mounts.unmount(".", mounts.MNT_DETACH)
    os.chdir("/")
    os.close(host_root)
    report.begin("sysctls")
    gids = [e["inside"] + e["size"] for e in spec["idmap"] if e["kind"] == "g"]
    identity.apply_sysctls(spec["sysctls"], min(max(gids, default=65536), 65536) - 1)
    if spec["privileged"]:
        report.begin("read-only kernel settings")
        mount_steps.cover_for_privileged()
    report.begin("console")
    console.name_console()
    console.use_console()
    report.begin("network")
    report.wait_for_go()
    report.begin("confine")
    extra = dict(live.ENVIRONMENT) if seen.systemd and spec["live"] else {}
    if legacy:
        extra |= _LEGACY_ENVIRONMENT
    environment = identity.environment(spec, extra)
    # Told before the filter is set: it may deny what telling needs.
    report.about_to_exec()
    confine.confine_init(spec, plan.program, report if plan.notifies else None)
    os.execve(spec["init"][0], spec["init"], environment)
