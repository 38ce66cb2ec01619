"""Every key of an instance does what it says, seen inside or at the kernel."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.support import processes
from tests.support.api import ApiError
from tests.support.daemon import Daemon
from tests.support.fixtures import Launch, change
from tests.support.hosted import launch_hosted, python
from tests.support.processes import wait_until
from tests.system.test_distribution import boot

#: makes system calls and tells what came of them
CALLS = """
import os, ctypes
def tell(name, call):
    try:
        call(); print(name, "ok")
    except OSError as error:
        print(name, error.errno)
tell("mkdir", lambda: os.mkdir("/tmp/d"))
tell("mknod", lambda: os.mknod("/tmp/fifo", 0o010600))
tell("symlink", lambda: os.symlink("a", "/tmp/l"))
tell("nice5", lambda: os.setpriority(0, 0, 5))
tell("nice6", lambda: os.setpriority(0, 0, 6))
"""


def called(daemon: Daemon, name: str) -> dict[str, str]:
    lines = python(daemon, name, CALLS).splitlines()
    daemon.exec(name, "rm", "-rf", "/tmp/d", "/tmp/fifo", "/tmp/l")
    return dict(line.split(None, 1) for line in lines)


def set_keys(daemon: Daemon, name: str, config: dict[str, str]) -> None:
    daemon.api.patch(f"/1.0/instances/{name}", {"config": config})


def refused(daemon: Daemon, name: str, config: dict[str, str]) -> str:
    with pytest.raises(ApiError) as error:
        set_keys(daemon, name, config)
    assert error.value.status == 400
    return str(error.value)


RAW = ("2", "denylist errno 3", "[all]", "mknod errno 40", "mknodat errno 40", "symlink")
FINE = {"mkdir": "ok", "mknod": "ok", "symlink": "ok", "nice5": "ok", "nice6": "ok"}


@pytest.mark.parametrize(
    ("config", "different"),
    [
        ({}, {}),
        ({"security.syscalls.deny": "mkdir errno 5\nsymlink"}, {"mkdir": "5", "symlink": "1"}),
        ({"security.syscalls.blacklist": "mkdir errno 7"}, {"mkdir": "7"}),
        (
            {"security.syscalls.deny": "setpriority errno 9 [2,6,SCMP_CMP_EQ]"},
            {"nice6": "9"},
        ),
        (
            {"raw.seccomp": "\n".join(RAW)},
            {"mknod": "40", "symlink": "3"},
        ),
    ],
)
def test_calls_are_denied(
    daemon: Daemon, launch: Launch, config: dict[str, str], different: dict[str, str]
) -> None:
    name = launch_hosted(launch, config=config)
    assert called(daemon, name) == FINE | different
    # Init and all it begets are confined alike.
    assert "Seccomp:\t2" in daemon.out(name, "cat", "/proc/1/status")


def test_only_what_is_allowed_can_be_called(daemon: Daemon, launch: Launch) -> None:
    from lxpy.kernel.libc import MACHINE
    from lxpy.kernel.syscalls import numbers

    allowed = [each for each in numbers(MACHINE) if each not in ("mkdir", "mkdirat")]
    config = {"security.syscalls.allow": "\n".join([*allowed, "mkdir errno 1", "mkdirat errno 1"])}
    name = launch_hosted(launch, config=config)
    assert called(daemon, name) == FINE | {"mkdir": "1"}
    # What is not in the list is not refused, it ends who calls it.
    config = {"security.syscalls.allow": "\n".join(allowed)}
    set_keys(daemon, name, config)
    change(daemon, name, "restart", force=True)
    done = daemon.exec(name, "mkdir", "/tmp/d", check=False)
    assert done.returncode == 128 + 31  # SIGSYS
    assert "execve" in refused(daemon, name, {"security.syscalls.allow": "read"})


def test_programs_of_32_bits_can_be_refused(daemon: Daemon, launch: Launch) -> None:
    program = """
import ctypes, mmap, os, signal
code = bytes.fromhex("b814000000cd80c3")  # getpid() of i386: mov eax, 20; int 0x80; ret
page = mmap.mmap(-1, 4096, prot=7); page.write(code)
call = ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
print(call() == os.getpid())
"""
    name = launch_hosted(launch)
    words = ("/usr/bin/python3", "-I", "-c", program)
    before = daemon.exec(name, *words, check=False)
    if before.stdout != "True\n":
        pytest.skip("this kernel has no 32 bit programs")
    set_keys(daemon, name, {"security.syscalls.deny_compat": "true"})
    change(daemon, name, "restart", force=True)
    assert daemon.out(name, *words) == "False"


def test_the_default_list_is_there_unless_it_is_not_wanted(daemon: Daemon, launch: Launch) -> None:
    program = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall(304, 0, 0, 0)  # open_by_handle_at
print(ctypes.get_errno())
"""
    name = launch_hosted(launch)
    words = ("/usr/bin/python3", "-I", "-c", program)
    assert daemon.out(name, *words) == "38"  # ENOSYS
    set_keys(daemon, name, {"security.syscalls.deny_default": "false"})
    change(daemon, name, "restart", force=True)
    assert daemon.out(name, *words) != "38"


def test_lines_of_liblxc(daemon: Daemon, launch: Launch, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "file").write_text("of the host")
    lines = (
        "lxc.environment = FROM_RAW=yes",
        "lxc.sysctl.net.ipv4.ip_forward = 1",
        "lxc.prlimit.nofile = 1000:2000",
        f"lxc.mount.entry = {tmp_path} srv/raw none bind,ro,create=dir 0 0",
        "lxc.mount.entry = /nosuch srv/not none bind,optional,create=dir 0 0",
        "lxc.cap.drop = sys_chroot net_raw",
        "lxc.mount.auto = proc:rw sys:rw",
        "lxc.apparmor.profile = unconfined",
    )
    name = launch(config={"raw.lxc": "\n".join(lines)})
    init = daemon.out(name, "sh", "-c", "tr '\\0' '\\n' </proc/1/environ")
    assert "FROM_RAW=yes" in init.split()
    assert daemon.out(name, "cat", "/proc/sys/net/ipv4/ip_forward") == "1"
    assert daemon.out(name, "cat", "/srv/raw/file") == "of the host"
    assert daemon.exec(name, "touch", "/srv/raw/x", check=False).returncode
    assert daemon.exec(name, "mount", "-o", "remount,rw", "/srv/raw", check=False).returncode
    assert daemon.exec(name, "ls", "/srv/not", check=False).returncode
    for process in ("1", "self"):
        status = daemon.out(name, "cat", f"/proc/{process}/status")
        bounding = next(each for each in status.splitlines() if each.startswith("CapBnd"))
        assert not int(bounding.split()[1], 16) & (1 << 18 | 1 << 13), process
        limits = daemon.out(name, "grep", "open files", f"/proc/{process}/limits")
        assert limits.split()[3:5] == ["1000", "2000"], process
    assert daemon.exec(name, "chroot", "/", "true", check=False).returncode
    text = refused(daemon, name, {"raw.lxc": "lxc.hook.pre-start = /bin/true"})
    assert "lxc.hook.pre-start" in text and "programs that run on the host" in text


def test_control_files_of_liblxc(daemon: Daemon, launch: Launch) -> None:
    group = Path("/sys/fs/cgroup/pids")
    line = "lxc.cgroup.pids.max = 99" if group.is_dir() else "lxc.cgroup2.pids.max = 99"
    name = launch(config={"raw.lxc": line})
    base = group if group.is_dir() else Path("/sys/fs/cgroup")
    assert (base / daemon.cgroup / name / "pids.max").read_text() == "99\n"
    set_keys(daemon, name, {"raw.lxc": "lxc.cgroup2.memory.nosuch = 1"})
    with pytest.raises(ApiError, match="this host has no such control file"):
        change(daemon, name, "restart", force=True)


def test_lines_that_would_give_a_privileged_instance_the_host(
    daemon: Daemon, launch: Launch
) -> None:
    config = {"raw.lxc": "lxc.cgroup.devices.allow = a", "security.privileged": "true"}
    name = launch(start=False, config=config)
    with pytest.raises(ApiError, match="would give a privileged instance the host"):
        change(daemon, name, "start")
    set_keys(daemon, name, {"security.privileged": ""})
    change(daemon, name, "start")


INTERCEPTED = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def tell(name, call):
    try:
        print(name, call())
    except OSError as error:
        print(name, "errno", error.errno)
def node(path, kind, major, minor):
    os.mknod(path, kind | 0o666, os.makedev(major, minor))
    try:
        with open(path, "rb+", buffering=0) as file:
            return file.write(b"x")
    finally:
        os.unlink(path)
place = sys.argv[1]
tell("null", lambda: node(place + "/null", 0o020000, 1, 3))
tell("relative", lambda: (os.chdir(place), node("zero", 0o020000, 1, 5))[1])
tell("nowhere", lambda: os.mknod("x", 0o020666, os.makedev(1, 3), dir_fd=999))
tell("kmsg", lambda: node(place + "/kmsg", 0o020000, 1, 11))
tell("disk", lambda: node(place + "/disk", 0o060000, 8, 0))
tell("fifo", lambda: (os.mkfifo(place + "/fifo"), os.unlink(place + "/fifo"))[1])
os.makedirs(place + "/d")
tell("opaque", lambda: os.setxattr(place + "/d", "trusted.overlay.opaque", b"y"))
tell("trusted", lambda: os.setxattr(place + "/d", "trusted.other", b"y"))
os.rmdir(place + "/d")
tell("fifo-priority", lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)))
tell("policy", lambda: os.sched_getscheduler(0))
if os.getuid() == 0:
    os.setresuid(1000, 1000, 1000)
    tell("user", lambda: node("/tmp/user", 0o020000, 1, 3))
"""


def intercepted(daemon: Daemon, name: str, place: str = "/root") -> dict[str, str]:
    words = ("/usr/bin/python3", "-I", "-S", "-c", INTERCEPTED, place)
    return dict(line.split(None, 1) for line in daemon.out(name, *words).splitlines())


def real_time(daemon: Daemon, name: str) -> None:
    """Give an instance real time where the kernel shares it out among groups; it has none."""
    for group in (daemon.cgroup, f"{daemon.cgroup}/{name}"):
        file = Path("/sys/fs/cgroup/cpu", group, "cpu.rt_runtime_us")
        if file.exists():
            file.write_text("10000")


def test_calls_that_are_carried_out(daemon: Daemon, launch: Launch) -> None:
    keys = ("mknod", "setxattr", "sched_setscheduler")
    config = {f"security.syscalls.intercept.{key}": "true" for key in keys}
    name, plain = launch_hosted(launch, config=config), launch_hosted(launch)
    eperm = "errno 1"
    refusing = {
        "null": eperm, "relative": eperm, "nowhere": "errno 9", "kmsg": eperm, "disk": eperm,
        "fifo": "None", "opaque": eperm, "trusted": eperm, "fifo-priority": eperm, "policy": "0",
        "user": eperm,
    }  # fmt: skip
    assert intercepted(daemon, plain) == refusing
    real_time(daemon, name)
    granted = {"null": "1", "relative": "1", "fifo-priority": "None", "policy": "1"}
    found = intercepted(daemon, name)
    opaque = found.pop("opaque")
    assert found == {k: v for k, v in (refusing | granted).items() if k != "opaque"}
    assert opaque in ("None", "errno 95")  # the pool's own overlay keeps the attribute to itself
    # On file systems that nodes do not count on, they can be made and not be used.
    assert intercepted(daemon, name, "/dev/shm")["null"] in (eperm, "errno 13")
    # Who has made a user namespace is root there, and of no account here.
    inner = ("unshare", "-Ur", "/bin/busybox", "mknod", "/tmp/inner", "c", "1", "3")
    assert daemon.exec(name, *inner, check=False).returncode
    # Init's own descendants are under the same filter.
    script = "mknod /root/by-init c 1 3"
    daemon.exec(name, "sh", "-c", f"echo '{script}' >/etc/rc.local")
    change(daemon, name, "restart", force=True)
    wait_until(
        lambda: daemon.exec(name, "test", "-c", "/root/by-init", check=False).returncode == 0
    )
    owner = daemon.out(name, "stat", "-c", "%u:%g:%a", "/root/by-init")
    assert owner == "0:0:644"
    # A node that is none of those counts for nothing, wherever it comes from.
    places = (daemon.directory / "storage-pools/default").glob("**/root/by-init")
    os.mknod(next(places).with_name("smuggled"), 0o020666, os.makedev(1, 1))
    change(daemon, name, "restart", force=True)
    assert daemon.exec(name, "dd", "if=/root/smuggled", "count=1", check=False).returncode
    assert daemon.exec(name, "sh", "-c", "echo x >/root/by-init").returncode == 0


def own_group(daemon: Daemon, name: str) -> Path:
    roots = (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup"))
    root = next(each for each in roots if (each / daemon.cgroup).is_dir())
    return root / daemon.cgroup / name / ".intercept/cgroup.procs"


def test_who_carries_calls_out_ends_with_those_who_ask(daemon: Daemon, launch: Launch) -> None:
    def helpers() -> int:
        return len(processes.matching("lxpy-intercept"))

    before = helpers()
    name = launch(config={"security.syscalls.intercept.mknod": "true"})
    assert helpers() == before + 1
    # In the instance's own group: what it has done for it, it pays for.
    (pid,) = (int(each) for each in own_group(daemon, name).read_text().split())
    assert Path(f"/proc/{pid}/comm").read_text() == "lxpy-intercept\n"
    assert "lxpy-intercept" not in daemon.out(name, "ps")
    daemon.exec(name, "true")
    wait_until(lambda: helpers() == before + 1)
    # They work for a new supervisor's instances, and without one.
    old = daemon.supervisor
    os.kill(old, signal.SIGKILL)
    wait_until(lambda: daemon.supervisors not in ([], [old]))
    daemon.wait_status(name, "Running")
    daemon.exec(name, "mknod", "/root/n", "c", "1", "3")
    assert daemon.lxpy("snapshot", name, "--stateful", check=False).returncode
    change(daemon, name, "stop")
    wait_until(lambda: helpers() == before)


def test_sysinfo_is_the_instances_own(daemon: Daemon, launch: Launch) -> None:
    program = """
import ctypes, struct
data = ctypes.create_string_buffer(112)
ctypes.CDLL(None).sysinfo(data)
found = struct.unpack("=q3Q6QHH4x2QI4x", data.raw)
print(found[4] * found[14] >> 20, found[10], found[0])
"""
    config = {"security.syscalls.intercept.sysinfo": "true", "limits.memory": "200MiB"}
    name = launch_hosted(launch, config=config)
    memory, count, uptime = map(int, python(daemon, name, program).split())
    assert memory == 200 and 1 < count < 50 and uptime < 60


@pytest.mark.parametrize(
    ("key", "value"),
    [("mount.allowed", "ext4"), ("mount.fuse", "ext4=fuse2fs"), ("mount.shift", "true"),
     ("bpf.devices", "true")],
)  # fmt: skip
def test_calls_that_are_not_carried_out(
    daemon: Daemon, launch: Launch, key: str, value: str
) -> None:
    name = launch(start=False)
    prefix = "security.syscalls.intercept."
    text = refused(daemon, name, {f"{prefix}{key}": value})
    assert "not carried out for instances: " in text
    daemon.lxpy("config", "set", name, f"{prefix}{key.partition('.')[0]}=true")
    change(daemon, name, "start")


@pytest.mark.slow
@pytest.mark.distribution
@pytest.mark.timeout(600)
def test_a_distribution_whose_calls_are_carried_out(
    daemon: Daemon, launch: Launch, debian13: str
) -> None:
    keys = ("mknod", "setxattr", "sched_setscheduler", "sysinfo")
    config = {f"security.syscalls.intercept.{key}": "true" for key in keys}
    name = launch(debian13, config=config)
    assert boot(daemon, name) == "running", daemon.out(name, "systemctl", "--failed")
    daemon.out(name, "mknod", "-m", "666", "/root/null", "c", "1", "3")
    daemon.out(name, "sh", "-c", "echo x >/root/null && rm /root/null")
    # A service of its own, with a sandbox of its own, is under the filter, too.
    service = ("systemd-run", "--wait", "--pipe", "-q", "-p", "PrivateTmp=yes")
    daemon.out(name, *service, "mknod", "/tmp/zero", "c", "1", "5")
    assert daemon.out(name, "id", "-u") == "0"
    begin = time.monotonic()
    daemon.out(name, "sh", "-c", "for i in $(seq 200); do mknod /root/n c 1 3; rm /root/n; done")
    assert time.monotonic() - begin < 20
