"""A restore: the supervisor's half, and the child that mounts what comes from the host for CRIU.

CRIU is a child of the child: what it restores is left to the supervisor, which adopts orphans, and
so becomes the parent of the restored init.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import stat

from lxpy.kernel import mounts, namespaces, processes
from lxpy.runtime import child, criu
from lxpy.runtime.cgroups import DELEGATED
from lxpy.runtime.files import read, write
from lxpy.runtime.fs import Confined
from lxpy.runtime.launch import Start
from lxpy.runtime.phases import Report
from lxpy.runtime.steps import confine, devices, identity
from lxpy.runtime.steps import mounts as mount_steps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from lxpy.runtime.child import Plan
    from lxpy.runtime.plain import Spec
    from lxpy.runtime.server import Supervisor

_NODES = "nodes"
#: the control group that CRIU itself runs in, below the instance's
_OWN = ".restore"
_PATIENCE_S = 0.2
_HOOK = """#!/bin/sh
[ "$CRTOOLS_SCRIPT_ACTION" = pre-resume ] || exit 0
cd {stage} && echo "$CRTOOLS_INIT_PID" >ask && read answer <answer && [ "$answer" = go ]
"""


class Restore(Start):
    """One restore under way; `dump` is what the daemon says about it (`Runtime.restore`)."""

    def __init__(
        self, supervisor: Supervisor, request: int, spec: Spec, dump: dict[str, Any]
    ) -> None:
        super().__init__(supervisor, request, spec)
        with open(f"{dump['images']}/{criu.MANIFEST}", encoding="utf-8") as file:
            self._dump = {**json.load(file), **dump}

    def make_group(self, uid: int, gid: int) -> int:
        """Make the groups as they were, and one that CRIU itself runs in."""
        os.close(super().make_group(uid, gid))
        payload = f"{self.group.v2}/p"
        for path, owner, group, _ in self._dump["cgroups"]:
            directory = os.path.normpath(f"{payload}/{path}")
            os.makedirs(directory, exist_ok=True)
            for name in (".", *DELEGATED):
                os.chown(f"{directory}/{name}", owner, group)
        for path, _, _, controllers in self._dump["cgroups"]:
            for name in controllers:
                write(f"{payload}/{path}/cgroup.subtree_control", f"+{name}")
        own = f"{self.group.v2}/{_OWN}"
        os.mkdir(own)
        return os.open(own, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def run_child(self, plan: Plan) -> None:
        """Be the child."""
        child.run(plan, lambda plan, report: _stage(plan, report, self._dump))

    def discard(self) -> None:
        """Undo everything; collect CRIU and what it has restored, which come to us as orphans."""
        orphans = []
        for pid in self.group.pids():
            if pid not in (self.stage_pid, self.container.pid):
                with contextlib.suppress(ProcessLookupError):
                    orphans.append(os.pidfd_open(pid))
        super().discard()
        for pidfd in orphans:
            self.supervisor.reap_orphan(pidfd)
        # Who had ended already is in no list of the group's.
        self.supervisor.loop.later(_PATIENCE_S, lambda: _reap_ended(f"{self.group.path}/{_OWN}"))


def _reap_ended(group: str) -> None:
    """Collect those of our children that have ended in a group, which nobody waits for."""
    for thread in os.listdir("/proc/self/task"):
        for pid in read(f"/proc/self/task/{thread}/children").split():
            with contextlib.suppress(OSError):
                where = read(f"/proc/{pid}/cgroup").splitlines()
                if any(line.startswith(f"0::/{group}") for line in where):
                    os.waitpid(int(pid), os.WNOHANG)


def _stage(plan: Plan, report: Report, dump: dict[str, Any]) -> None:
    spec = plan.spec
    processes.protect()
    os.umask(0)
    report.begin("cgroups")
    plan.group.create_v1()
    plan.group.limit(spec["limits"])
    plan.group.set_files(spec["control_files"])
    plan.group.enter_v1()
    confine.reset_oom_score()
    report.begin("rootfs")
    mounts.make_private()
    mount_steps.enter_scratch(plan.stage)
    mount_steps.mount_rootfs(spec["rootfs"], plan.userns_fd, plan.uid, plan.gid).close()
    report.begin("/dev")
    _make_nodes(plan)
    for index, disk in enumerate(spec["disks"]):
        report.begin(f"disk {disk['target']}")
        fd = mount_steps.open_if_there(disk, plan.userns_fd)
        mount_steps.prepare_disk(disk, index, fd)
    report.begin("criu")
    _restore(plan, report, dump)


def _make_nodes(plan: Plan) -> None:
    os.mkdir(_NODES, 0o755)
    store = mounts.make("tmpfs", {"size": "64k", "mode": "0755"}, mounts.NOSUID)
    mounts.attach(store, _NODES, path=_NODES)
    os.close(store)
    for name, major, minor, mode in devices.STANDARD:
        path = f"{_NODES}/{name.rpartition('/')[2]}"
        os.mknod(path, mode | stat.S_IFCHR, os.makedev(major, minor))
        os.chown(path, plan.uid, plan.gid)
    for index, node in enumerate(plan.spec["nodes"]):
        uid = identity.outside(plan.spec["idmap"], "u", node["uid"])
        gid = identity.outside(plan.spec["idmap"], "g", node["gid"])
        devices.store_node(node, _node(index), uid, gid)


def _node(index: int) -> str:
    """Return where in the scratch directory the device of that number is."""
    return f"{_NODES}/device{index}"


def _fill_dev(plan: Plan, init: int, dump: dict[str, Any]) -> None:
    """Put into the restored /dev what no dump holds: the notify socket, nodes of devices.

    Those that are mounts of their own, as a restore before has made them, CRIU has mounted.
    """
    restored = {target for _, _, target in dump["externals"]}
    nodes = [
        (node["path"], mounts.clone_tree(_node(index)))
        for index, node in enumerate(plan.spec["nodes"])
        if node["path"] not in restored
    ]
    root = Confined.at(f"/proc/{init}/root")
    dev = root.plain_directory("dev")
    root.close()
    with processes.file_owner(plan.uid, plan.gid):
        child.bind_notify(plan, dev)
    if nodes:
        own = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        scratch = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        theirs = os.open(f"/proc/{init}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        namespaces.join(theirs, namespaces.NEWNS, "mount namespace")
        for path, tree in nodes:
            with contextlib.suppress(FileNotFoundError):
                devices.remove_node(dev, path)
            devices.bind_node(dev, path, tree, plan.uid, plan.gid)
            os.close(tree)
        namespaces.join(own, namespaces.NEWNS, "mount namespace")
        os.fchdir(scratch)
        for each in (own, scratch, theirs):
            os.close(each)
    os.close(dev)


def _restore(plan: Plan, report: Report, dump: dict[str, Any]) -> None:
    stage, images = plan.stage, dump["images"]
    for name in ("ask", "answer"):
        os.mkfifo(name, 0o600)
    with open("hook", "w", encoding="utf-8") as file:
        file.write(_HOOK.format(stage=stage))
    os.chmod("hook", 0o700)
    pidfile = f"{images}/pid"
    if os.path.exists(pidfile):
        os.unlink(pidfile)
    os.set_inheritable(plan.slave, True)
    ask = os.open("ask", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    command = _command(plan, dump)
    pid, pidfd = processes.fork()
    if pid == 0:
        _execute(dump["program"], command, f"{images}/output.log")
    if not _first(ask, pidfd):
        os.waitpid(pid, 0)
        raise ValueError(criu.cause(f"{images}/{criu.RESTORE_LOG}"))
    init = int(os.read(ask, 64))
    report.begin("restored /dev")
    _fill_dev(plan, init, dump)
    report.say(pid=init, legacy=False, steps=report.steps)
    report.steps = []
    report.begin("network")
    report.wait_for_go()
    report.begin("resume")
    answer = os.open("answer", os.O_RDWR | os.O_CLOEXEC)
    os.write(answer, b"go\n")
    _, status = os.waitpid(pid, 0)
    if status != 0:
        raise ValueError(criu.cause(f"{images}/{criu.RESTORE_LOG}"))
    for name in (pidfile, f"{images}/output.log"):
        os.unlink(name)
    report.about_to_exec()


def _first(ask: int, pidfd: int) -> bool:
    """Wait until the restored processes are about to go on; False when CRIU has ended."""
    poll = select.poll()
    poll.register(ask, select.POLLIN)
    poll.register(pidfd, select.POLLIN)
    return ask in [fd for fd, _ in poll.poll()]


def _execute(program: str, command: list[str], output: str) -> None:
    try:
        log = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.execv(program, command)
    finally:
        os._exit(127)


def _command(plan: Plan, dump: dict[str, Any]) -> list[str]:
    stage = plan.stage
    words = [
        dump["program"], "restore", criu.VERBOSITY[0],
        "--images-dir", dump["images"],
        "--log-file", criu.RESTORE_LOG,
        "--restore-detached",
        "--pidfile", "pid",
        "--root", f"{stage}/{mount_steps.ROOT}",
        "--action-script", f"{stage}/hook",
        *criu.COMMON,
        *criu.cgroup_roots(f"/{plan.group.path}"),
        "--inherit-fd", f"fd[{plan.slave}]:tty[{dump['tty']}]",
    ]  # fmt: skip
    known = {disk["target"]: mount_steps.place(n) for n, disk in enumerate(plan.spec["disks"])}
    known |= {node["path"]: _node(n) for n, node in enumerate(plan.spec["nodes"])}
    for key, kind, target in dump["externals"]:
        if kind in ("device", "disk") and target not in known:
            raise ValueError(f"the saved state needs what it had at {target}: add that again")
        if kind == "api" and not plan.spec["guest_api"]:
            raise ValueError("the saved state needs /dev/lxd: set security.devlxd=true again")
        source = {
            "node": f"{stage}/{_NODES}/{target.rpartition('/')[2]}",
            "console": os.readlink(f"/proc/self/fd/{plan.slave}"),
            "lxcfs": f"{plan.spec['lxcfs']}{target}",
            "api": plan.spec["guest_api"],
            "device": f"{stage}/{known.get(target)}",
            "disk": f"{stage}/{known.get(target)}",
        }[kind]
        words += ["--external", f"mnt[{key}]:{source}"]
    for guest, host in dump["veths"]:
        words += ["--external", f"veth[{guest}]:{host}"]
    return words
