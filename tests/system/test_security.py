"""What an instance cannot do to its host, and what it cannot see of it."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.support import execution
from tests.support.api import ApiError
from tests.support.daemon import Daemon
from tests.support.fixtures import Launch, change

SYS_MODULE, SYS_RAWIO = 16, 17
SESSION_KEYRING, UNLINK = -3, 9


def sh(daemon: Daemon, name: str, script: str) -> subprocess.CompletedProcess[str]:
    """Run a script inside, whether it succeeds or not."""
    return daemon.exec(name, "sh", "-c", script, check=False)


def status(pid: int | str, key: str) -> str:
    """One line of /proc/PID/status."""
    text = Path(f"/proc/{pid}/status").read_text()
    (value,) = re.findall(rf"^{key}:\s*(.*)$", text, re.MULTILINE)
    return str(value)


def test_every_instance_has_ids_of_its_own(daemon: Daemon, launch: Launch) -> None:
    ranges = []
    for name in (launch(), launch()):
        pid = daemon.init_pid(name)
        for kind in ("uid", "gid"):
            (line,) = Path(f"/proc/{pid}/{kind}_map").read_text().splitlines()
            inside, outside, size = map(int, line.split())
            assert inside == 0 and outside > 65535 and size == 65536
        assert status(pid, "Uid").split() == [str(outside)] * 4
        ranges.append(range(outside, outside + size))
    first, second = sorted(ranges, key=lambda each: each.start)
    assert first.stop <= second.start


def test_all_seven_namespaces_are_its_own(daemon: Daemon, launch: Launch) -> None:
    pid = daemon.init_pid(launch())
    for kind in ("mnt", "pid", "net", "ipc", "uts", "user", "cgroup"):
        assert os.readlink(f"/proc/{pid}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}")


def test_files_on_disk_are_not_shifted(daemon: Daemon, launch: Launch) -> None:
    name = launch()
    daemon.exec(name, "sh", "-c", "echo x >/root/mark; chown 1000:1000 /root/mark; sync")
    found = list((daemon.directory / "storage-pools").rglob("root/mark"))
    assert {(path.lstat().st_uid, path.lstat().st_gid) for path in found} == {(1000, 1000)}


def test_init_and_commands_are_confined_alike(daemon: Daemon, launch: Launch) -> None:
    name = launch()
    inside = daemon.out(name, "cat", "/proc/self/status")
    for pid in (str(daemon.init_pid(name)), "exec"):
        text = inside if pid == "exec" else Path(f"/proc/{pid}/status").read_text()
        found = dict(line.split(":", 1) for line in text.splitlines())
        bounding = int(found["CapBnd"], 16)
        assert found["Seccomp"].strip() == "2", pid
        assert not bounding & (1 << SYS_MODULE) and not bounding & (1 << SYS_RAWIO), pid


def test_the_host_is_out_of_sight(daemon: Daemon, launch: Launch) -> None:
    name = launch()
    pids = daemon.out(name, "sh", "-c", "cd /proc; echo [0-9]*").split()
    assert len(pids) < 20 and daemon.out(name, "cat", "/proc/1/comm") == "init"
    assert sh(daemon, name, "kill -9 $((1 + $(cat /proc/sys/kernel/pid_max) / 2))").returncode
    links = daemon.out(name, "sh", "-c", "cd /sys/class/net; echo *").split()
    assert set(links) <= {"lo", "eth0"}
    mounts = daemon.out(name, "cat", "/proc/self/mounts")
    assert str(daemon.directory) not in mounts.replace("upperdir=", "")
    assert daemon.out(name, "sh", "-c", "cat /proc/self/cgroup | grep ^0").strip() in (
        "0::/",
        "0::/.lxc",
    )
    # The daemon's environment, descriptors and keys stay outside.
    assert set(daemon.out(name, "sh", "-c", "cd /proc/1/fd; echo *").split()) >= {"0", "1", "2"}
    held = daemon.out(name, "sh", "-c", "ls -l /proc/self/fd")
    assert "/var/" not in held and "socket" not in held


def test_no_key_of_the_host(daemon: Daemon, launch: Launch) -> None:
    """Neither init nor a command possesses the session keyring that the daemon was started with."""
    numbers = {"x86_64": (248, 250), "aarch64": (217, 219)}
    if os.uname().machine not in numbers or not Path("/proc/keys").exists():
        pytest.skip("needs /proc/keys, and to know the numbers of the calls")
    add_key, keyctl = numbers[os.uname().machine]
    libc = ctypes.CDLL(None)
    secret = f"lxpy-test-{os.getpid()}".encode()
    key = libc.syscall(add_key, b"user", secret, b"x", 1, SESSION_KEYRING)
    assert key > 0 and secret.decode() in Path("/proc/keys").read_text()
    try:
        name = launch()
        script = "cat /proc/keys; nsenter -t 1 -a cat /proc/keys 2>/dev/null"
        assert secret.decode() not in sh(daemon, name, script).stdout
    finally:
        libc.syscall(keyctl, UNLINK, key, SESSION_KEYRING)


def test_what_root_inside_cannot_do(daemon: Daemon, launch: Launch) -> None:
    name = launch()
    cannot = (
        "mknod /root/sda b 8 0",
        "mount -o remount,dev /",
        "echo x >/proc/sys/kernel/core_pattern",
        "echo h >/proc/sysrq-trigger",
        "echo 1 >/proc/sys/vm/drop_caches",
        "dmesg",
        "mount -t ext4 /dev/vda /mnt",
        "mount -t devtmpfs none /mnt",
        "swapon /root",
        f"chroot /proc/1/root{'/..' * 3} test -e {daemon.socket}",
        "echo 1 >/sys/fs/cgroup/cgroup.freeze",
        "echo max >/sys/fs/cgroup/pids.max",
        "mkdir -p /mnt/c && mount -t cgroup -o memory none /mnt/c && mkdir /mnt/c/x",
    )
    allowed = [script for script in cannot if sh(daemon, name, script).returncode == 0]
    assert allowed == []
    limits = "for f in $(find /sys/fs/cgroup -name memory.max -o -name '*limit_in_bytes'); do"
    assert sh(daemon, name, f"{limits} [ ! -w $f ] || echo $f; done").stdout == ""


def test_a_device_node_in_the_image_is_no_device(daemon: Daemon, launch: Launch) -> None:
    """Mounts are nodev, and the flag is locked."""
    options = daemon.out(launch(), "sh", "-c", "grep ' / ' /proc/self/mountinfo").split()[5]
    assert "nodev" in options.split(",")


def test_a_read_only_disk_stays_read_only(daemon: Daemon, launch: Launch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("host")
    os.chmod(tmp_path, 0o777)
    disk = {"type": "disk", "source": str(tmp_path), "path": "/mnt/data", "readonly": "true"}
    plugged = {**disk, "path": "/mnt/plugged"}
    name = launch(devices={"data": disk})
    daemon.api.patch(f"/1.0/instances/{name}", {"devices": {"plugged": plugged}})
    for path in ("/mnt/data", "/mnt/plugged"):
        assert daemon.out(name, "cat", f"{path}/file") == "host"
        for script in (
            f"echo x >{path}/new",
            f"mount -o remount,rw,bind {path} && echo x >{path}/new",
            f"mount -o remount,rw {path} && echo x >{path}/new",
            f"mkdir -p /mnt/b && mount --bind {path} /mnt/b && "
            f"mount -o remount,rw,bind /mnt/b && echo x >/mnt/b/new",
            f"unshare -m sh -c 'mount -o remount,rw,bind {path} && echo x >{path}/new'",
        ):
            assert sh(daemon, name, script).returncode != 0, script
        line = daemon.out(name, "sh", "-c", f"grep ' {path} ' /proc/self/mountinfo")
        assert {"ro", "nodev"} <= set(line.split()[5].split(","))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("link", ["{outside}", "../../../../../../../../../..{outside}"])
def test_a_symlink_does_not_lead_a_disk_out(
    daemon: Daemon, launch: Launch, tmp_path: Path, link: str
) -> None:
    """The instance plants a link where the host is about to make a mount point."""
    source, outside = tmp_path / "source", tmp_path / "outside"
    for path in (source, outside):
        path.mkdir(mode=0o777)
    name = launch()
    target = link.format(outside=outside)
    daemon.exec(name, "sh", "-c", f"ln -s {target} /trap; ln -s {target} /etc/trap")
    change(daemon, name, "stop")
    disks = {
        f"disk{number}": {"type": "disk", "source": str(source), "path": path}
        for number, path in enumerate(("/trap/a/b", "/etc/trap/c"))
    }
    try:
        daemon.api.patch(f"/1.0/instances/{name}", {"devices": disks})
        change(daemon, name, "start")
    except ApiError:
        assert daemon.status(name) == "Stopped"  # refusing is as good as staying inside
    assert list(outside.iterdir()) == []


def test_links_at_system_directories_lead_nowhere(
    daemon: Daemon, launch: Launch, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    name = launch()
    change(daemon, name, "stop")
    upper = daemon.directory / "storage-pools/default/containers" / name / "head/upper"
    for entry in ("dev", "proc", "sys", "run"):
        (upper / entry).rmdir() if (upper / entry).exists() else None
        (upper / entry).symlink_to(outside)
    try:
        change(daemon, name, "start")
    except ApiError:
        assert daemon.status(name) == "Stopped"
    assert list(outside.iterdir()) == []


def test_joining_processes_cannot_be_taken_over(daemon: Daemon, launch: Launch) -> None:
    """Commands do not run as a process that the instance could trace while it enters."""
    name = launch()
    watch = (
        "end=$(($(date +%s) + 3)); while [ $(date +%s) -lt $end ]; do for p in /proc/[0-9]*; do "
        "readlink $p/exe; done; done 2>/dev/null | sort -u"
    )
    with execution.start(daemon.api, name, "sh", "-c", watch) as watcher:
        for _ in range(20):
            execution.run(daemon.api, name, "true")
        seen = watcher.rest("1").decode().split()
    assert seen and not [path for path in seen if "python" in path]
