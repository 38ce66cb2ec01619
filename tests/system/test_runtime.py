"""The runtime alone: instances without a daemon, and what survives whose death."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from lxpy.runtime.container import StartFailed, SupervisorLost
from lxpy.runtime.spec import Directory, Disk, ExecSpec, FileWrite, Limits, Node
from tests.images import busybox
from tests.support.runtime import PATH, TICKER, Host, no_network, read_until, unpack, until


@pytest.fixture(scope="module")
def image() -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    if not busybox.BUSYBOX.exists():
        pytest.skip("needs busybox-static")
    directory = Path(f"/var/tmp/lxpy-runtime-{os.getpid()}")
    directory.mkdir(mode=0o711)
    yield unpack(directory)
    shutil.rmtree(directory)


@pytest.fixture
async def host(image: Path) -> AsyncIterator[Host]:
    """A host on which nothing is left when the test ends."""
    directory = Path(tempfile.mkdtemp(dir=image.parent))
    directory.chmod(0o711)
    host = Host(directory, image, f"lxpy-runtime-{os.getpid()}")
    await host.runtime.connect()
    try:
        yield host
        await host.close()
    finally:
        shutil.rmtree(directory)


# Commands


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("sh", "-c", "exit 7"), 7),
        (("sh", "-c", "kill -9 $$"), 137),
        (("/nosuch",), 127),
        (("nosuch",), 127),
        (("/etc/passwd",), 126),
    ],
)
async def test_exit_codes(host: Host, command: tuple[str, ...], code: int) -> None:
    await host.start("c1")
    assert (await host.run("c1", *command)).code == code


async def test_a_command_is_who_and_where_it_shall_be(host: Host) -> None:
    await host.start("c1")
    done = await host.run("c1", "cat", stdin=b"through")
    assert (done.code, done.stdout) == (0, "through")
    environment = {**PATH, "A": "b c"}
    script = "id -u; id -g; pwd; umask; echo $A; ls /proc/self/fd | wc -l; echo err >&2"
    done = await host.run(
        "c1", "sh", "-c", script, uid=1000, gid=5, cwd="/home", environment=environment
    )
    assert done.stdout.split("\n")[:6] == ["1000", "5", "/home", "0022", "b c", "4"]
    assert done.stderr == "err\n"
    with pytest.raises(StartFailed, match="working directory /nosuch"):
        await host.run("c1", "true", cwd="/nosuch")


async def test_a_command_is_in_every_namespace_of_the_instance(host: Host) -> None:
    await host.start("c1")
    for kind in ("mnt", "pid", "net", "ipc", "uts", "user", "cgroup", "time"):
        script = f"readlink /proc/self/ns/{kind}; readlink /proc/1/ns/{kind}"
        done = await host.sh("c1", script)
        own, init = done.stdout.split()
        assert own == init


async def test_terminals(host: Host) -> None:
    await host.start("c1")
    script = "stty size; read x; echo got $x; trap 'stty size; exit 3' WINCH; sleep 9 & wait"
    spec = ExecSpec("c1", ("sh", "-c", script), PATH, interactive=True, width=91, height=37)
    process = await host.runtime.exec(spec, None)
    await read_until(process, b"37 91")
    os.write(process.fds["pty"], b"typed\r")
    await read_until(process, b"got typed")
    await asyncio.sleep(0.1)
    process.resize(80, 24)
    assert await asyncio.wait_for(process.wait(), 5) == 3
    await read_until(process, b"24 80")
    process.close()
    for what, code in (
        (lambda p: os.write(p.fds["pty"], b"\x03"), 130),
        (lambda p: p.close(), 129),
    ):
        spec = ExecSpec("c1", ("sleep", "100"), PATH, interactive=True)
        process = await host.runtime.exec(spec, None)
        await asyncio.sleep(0.1)
        what(process)
        assert await asyncio.wait_for(process.wait(), 5) == code
        process.close()


async def test_commands_get_signals_and_die_with_the_instance(host: Host) -> None:
    await host.start("c1")
    spec = ExecSpec("c1", ("sleep", "100"), PATH)
    first, second = [await host.runtime.exec(spec, None) for _ in range(2)]
    await first.signal(signal.SIGTERM)
    assert await asyncio.wait_for(first.wait(), 5) == 143
    await host.runtime.kill("c1")
    assert await asyncio.wait_for(second.wait(), 5) == 137
    first.close()
    second.close()
    with pytest.raises(StartFailed, match="not running"):
        await host.run("c1", "true")


# Ends


@pytest.mark.parametrize(
    ("command", "reason"), [("reboot", "reboot"), ("poweroff", "poweroff"), ("halt", "poweroff")]
)
async def test_reboot_and_power_off(host: Host, command: str, reason: str) -> None:
    await host.start("c1", init=("/sbin/init",))
    await host.run("c1", command, "-f")
    assert await host.runtime.wait("c1", 10)
    assert host.ends[-1].reason == reason


async def test_restarts_are_counted(host: Host) -> None:
    rootfs = host.overlay("c1")
    for count in (0, 1, 2):
        spec = host.spec("c1", rootfs=rootfs, init=("/sbin/init",))
        assert (await host.runtime.start(spec, no_network)).restart_count == count
        await host.run("c1", "reboot", "-f")
        assert await host.runtime.wait("c1", 10)


async def test_other_ends(host: Host) -> None:
    await host.start("exits", init=("/bin/sh", "-c", "exit 3"))
    assert await host.runtime.wait("exits", 5)
    assert (host.ends[-1].reason, host.ends[-1].status) == ("exit", 3)
    os.kill(await host.start("crashes"), signal.SIGKILL)
    assert await host.runtime.wait("crashes", 5)
    assert (host.ends[-1].reason, host.ends[-1].status) == ("crash", 137)
    assert "SIGKILL" in host.ends[-1].text


async def test_a_clean_stop_and_a_reboot(host: Host) -> None:
    rootfs = host.overlay("c1")
    boots = host.upper("c1") / "var/log/boots"
    for ask, reason in (
        (host.runtime.shutdown_init, "poweroff"),
        (host.runtime.reboot_init, "reboot"),
    ):
        boots.unlink(missing_ok=True)
        spec = host.spec("c1", rootfs=rootfs, init=("/sbin/init",))
        await host.runtime.start(spec, no_network)
        await until(boots.exists, "the boot")
        await ask("c1")
        assert await host.runtime.wait("c1", 10)
        assert host.ends[-1].reason == reason
        assert boots.read_text() == "up\ndown\n"


async def test_freezing(host: Host) -> None:
    await host.start("c1", init=TICKER)
    await host.runtime.freeze("c1")
    assert host.runtime.is_frozen("c1")
    await asyncio.sleep(0.2)  # what it has written before is read
    size = host.runtime.console_log("c1").stat().st_size
    await asyncio.sleep(0.3)
    assert host.runtime.console_log("c1").stat().st_size == size
    await host.runtime.thaw("c1")
    await until(lambda: host.runtime.console_log("c1").stat().st_size > size, "the next tick")
    await host.runtime.freeze("c1")
    await host.runtime.kill("c1")


# Starts that fail


async def test_failed_starts_leave_nothing(host: Host) -> None:
    async def broken(pid: int) -> None:
        raise RuntimeError("no bridge")

    async def endless(pid: int) -> None:
        await asyncio.sleep(100)

    before = host.descriptors()
    with pytest.raises(RuntimeError, match="no bridge"):
        await host.runtime.start(host.spec("a"), broken)
    start = asyncio.ensure_future(host.runtime.start(host.spec("b"), endless))
    await asyncio.sleep(0.1)
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    with pytest.raises(StartFailed, match="exec: /nosuch"):
        await host.start("c", init=("/nosuch",))
    with pytest.raises(StartFailed, match=r"disk /mnt: /nosuch: No such file"):
        await host.start("d", disks=(Disk("/nosuch", "/mnt"),))
    with pytest.raises(StartFailed, match=r"sysctl kernel\.panic=1"):
        await host.start("e", sysctls={"kernel.panic": "1"})
    with pytest.raises(StartFailed, match="unknown system call"):
        await host.start("f", seccomp="2\ndenylist\nnosuch errno 1")
    with pytest.raises(StartFailed, match="cpus"):
        await host.start("g", limits=Limits(cpus="4000"))
    assert host.groups() == []
    assert host.runtime.held("a") is None
    await until(lambda: host.descriptors() == before, "as few descriptors as before")


async def test_one_name_runs_once(host: Host) -> None:
    await host.start("c1")
    with pytest.raises(StartFailed, match="already running"):
        await host.start("c1", rootfs=Directory("/nosuch"))


async def test_hostile_rootfs(host: Host, tmp_path: Path) -> None:
    for name in ("dev", "proc", "sys"):
        rootfs = host.overlay(f"link-{name}")
        (host.upper(f"link-{name}") / name).symlink_to(tmp_path)
        with pytest.raises(StartFailed, match="symbolic links"):
            await host.start(f"link-{name}", rootfs=rootfs)
    rootfs = host.overlay("below")
    (host.upper("below") / "link").symlink_to(tmp_path)
    with pytest.raises(StartFailed, match="leads nowhere"):
        await host.start("below", rootfs=rootfs, files=(FileWrite("/link/file", "x"),))
    with pytest.raises(StartFailed, match="leads nowhere"):
        await host.start("below", rootfs=rootfs, disks=(Disk(str(tmp_path), "/link/disk"),))
    await host.start("below", rootfs=rootfs)
    with pytest.raises(StartFailed, match="leads nowhere"):
        await host.runtime.devices.add_disk("below", Disk(str(tmp_path), "/link/disk"))
    await host.sh("below", "rm -rf /dev/snd; ln -s /tmp /dev/snd")
    with pytest.raises(StartFailed, match="snd"):
        await host.runtime.devices.add_node("below", Node("/dev/snd/x", "c", 1, 3))
    assert os.listdir(tmp_path) == []


# Devices


TRY_WRITING = (
    "touch {0}/made; mount -o remount,bind,rw {0}; touch {0}/made; mount -o remount,bind,dev {0}"
)


async def test_disks(host: Host, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("content")
    os.chown(tmp_path / "mine", 1000, 1000)
    source = str(tmp_path)
    read_only = Disk(source, "/srv/ro", readonly=True)
    writable = Disk(source, "/srv/rw")
    single = Disk(f"{source}/mine", "/etc/single", readonly=True)
    absent = Disk("/nosuch", "/mnt", required=False)
    await host.start("c1", disks=(read_only, single, absent))
    await host.runtime.devices.add_disk("c1", writable)
    done = await host.sh("c1", "stat -c %u:%g /srv/ro/mine /srv/rw/mine; cat /etc/single")
    assert done.stdout == "1000:1000\n1000:1000\ncontent"
    await host.sh("c1", TRY_WRITING.format("/srv/ro"))
    assert not (tmp_path / "made").exists()
    done = await host.sh("c1", TRY_WRITING.format("/srv/rw") + "; grep /srv/rw /proc/mounts")
    assert "nodev" in done.stdout
    assert (tmp_path / "made").stat().st_uid == 0
    for disk in (read_only, writable, single):
        await host.runtime.devices.remove_disk("c1", disk)
    assert (await host.sh("c1", "grep -E 'srv|single' /proc/mounts")).stdout == ""
    with pytest.raises(StartFailed, match="/srv/ro"):
        await host.runtime.devices.remove_disk("c1", read_only)


async def test_device_nodes(host: Host) -> None:
    await host.start("c1", nodes=(Node("/dev/a/zero", "c", 1, 5, 0o640, 1000, 5),))
    done = await host.sh("c1", "stat -c '%a %u %g' /dev/a/zero; head -c 3 /dev/a/zero | wc -c")
    assert done.stdout == "640 1000 5\n3\n"
    node = Node("/dev/b/null", "c", 1, 3, 0o666)
    await host.runtime.devices.add_node("c1", node)
    assert (await host.sh("c1", "echo x >/dev/b/null")).code == 0
    await host.runtime.devices.remove_node("c1", node)
    assert (await host.sh("c1", "ls /dev/b")).stdout == ""
    assert (await host.sh("c1", "mknod /dev/own c 1 3")).code != 0


async def test_device_nodes_of_an_image_do_not_work(host: Host) -> None:
    rootfs = host.overlay("c1")
    os.mknod(host.upper("c1") / "zero", 0o020666, os.makedev(1, 5))
    await host.start("c1", rootfs=rootfs)
    assert (await host.sh("c1", "head -c 1 /zero; mount -o remount,bind,dev /")).stdout == ""
    assert (await host.sh("c1", "head -c 1 /zero")).stdout == ""


async def test_a_privileged_instance_opens_its_own_devices_alone(host: Host) -> None:
    await host.start("c1", privileged=True, idmap=())
    script = "head -c 1 /dev/zero | wc -c; mknod /dev/m b 7 99; head -c 1 /dev/m"
    done = await host.sh("c1", script)
    assert done.stdout == "1\n"
    assert "not permitted" in done.stderr
    node = Node("/dev/kmsg", "c", 1, 11, 0o666)
    await host.runtime.devices.add_node("c1", node)
    assert (await host.sh("c1", ": </dev/kmsg")).code == 0
    await host.runtime.devices.remove_node("c1", node)
    assert (await host.sh("c1", "mknod /dev/k c 1 11; : </dev/k")).code != 0
    assert (await host.sh("c1", "echo 1 >/proc/sys/kernel/panic")).code != 0


# Settings


async def test_settings(host: Host) -> None:
    await host.start(
        "c1",
        sysctls={"net.ipv4.ip_forward": "1", "kernel.msgmax": "9000"},
        rlimits={"nofile": (1000, 2000)},
        seccomp="2\ndenylist errno 1\nmkdir\nmkdirat errno 5",
        environment={"FOO": "bar"},
        files=(
            FileWrite("/etc/hostname", "named\n"),
            FileWrite("/etc/new", "x", 0o600),
            FileWrite("/etc/passwd", "x", create_only=True),
        ),
    )
    script = (
        "cd /proc/sys; cat net/ipv4/ip_forward kernel/msgmax; ulimit -n; ulimit -Hn;"
        "mkdir /x; tr '\\0' '\\n' </proc/1/environ | grep FOO; cat /etc/hostname;"
        "stat -c %a:%u /etc/new; head -c 4 /etc/passwd"
    )
    done = await host.sh("c1", script)
    expected = ["1", "9000", "1000", "2000", "FOO=bar", "named", "600:0", "root"]
    assert done.stdout.split() == expected
    assert "can't create directory" in done.stderr


async def test_limits_hold_and_change(host: Host) -> None:
    limits = Limits(memory_bytes=32 << 20, pids=20, cpus="0")
    await host.start("c1", limits=limits)
    assert (await host.sh("c1", "nproc")).stdout == "1\n"
    grow = "head -c 64m /dev/zero | tail -c 64m | wc -c"
    assert (await host.sh("c1", grow)).stdout != f"{64 << 20}\n"
    many = "for i in $(seq 30); do sleep 1 & done"
    assert "can't fork" in (await host.sh("c1", many)).stderr
    usage = host.runtime.usage("c1")
    assert usage.processes > 0 and usage.memory_bytes > 0 and usage.cpu_ns > 0
    await host.runtime.limits("c1", Limits())
    assert (await host.sh("c1", "nproc")).stdout == f"{os.cpu_count()}\n"
    assert (await host.sh("c1", grow)).stdout == f"{64 << 20}\n"
    with pytest.raises(StartFailed, match="cpus"):
        await host.runtime.limits("c1", Limits(cpus="4000"))


async def test_a_directory_as_rootfs_stays_unshifted(host: Host) -> None:
    root = host.directory / "root"
    shutil.copytree(host.image, root, symlinks=True)
    await host.start("c1", rootfs=Directory(str(root)))
    await host.sh("c1", "touch /made; chown 1000:1000 /made")
    found = (root / "made").stat()
    assert (found.st_uid, found.st_gid) == (1000, 1000)


@pytest.mark.parametrize("view", ["unified", "legacy"])
async def test_views_of_control_groups(host: Host, view: str) -> None:
    await host.start("c1", cgroup_view=view)
    mounts = (await host.sh("c1", "cat /proc/mounts")).stdout
    assert ("cgroup2 /sys/fs/cgroup cgroup2" in mounts) == (view == "unified")
    assert ("/sys/fs/cgroup/systemd cgroup" in mounts) == (view == "legacy")
    where = "/sys/fs/cgroup" if view == "unified" else "/sys/fs/cgroup/systemd"
    script = f"mkdir {where}/a && echo $$ >{where}/a/cgroup.procs && cat /proc/self/cgroup"
    lines = (await host.sh("c1", script)).stdout.splitlines()
    wanted = "0::/a" if view == "unified" else ":name=systemd:/a"
    assert any(line.endswith(wanted) for line in lines)
    assert not any("lxpy-runtime" in line for line in lines)


# Consoles


async def test_consoles(host: Host) -> None:
    echo = "echo hello; while read x; do echo got $x; stty size; done"
    await host.start("c1", init=("/bin/sh", "-c", echo))
    log = host.runtime.console_log("c1")
    await until(lambda: b"hello" in log.read_bytes(), "output in the log")
    one, two = await host.runtime.console("c1"), await host.runtime.console("c1")
    one.resize(77, 33)
    await one.write(b"typed\r")
    for console in (one, two):
        seen = b""
        while b"33 77" not in seen:
            seen += await asyncio.wait_for(console.read(), 5)
        assert b"got typed" in seen
    one.detach()
    await host.runtime.kill("c1")
    while await asyncio.wait_for(two.read(), 5):
        pass
    two.detach()


async def test_a_console_that_floods(host: Host) -> None:
    flood = "yes | head -c 2000000; echo end; sleep 1000"
    await host.start("c1", init=("/bin/sh", "-c", flood), console_log_bytes=65536)
    log = host.runtime.console_log("c1")
    await until(lambda: log.exists() and b"end" in log.read_bytes()[-20:], "the end of the flood")
    assert log.stat().st_size <= 65536


# Deaths


async def test_the_supervisor_dies(host: Host) -> None:
    await host.start("c1", init=TICKER)
    await host.start("c2")
    script = "while read x; do echo got $x; done; exit 5"
    command = await host.runtime.exec(ExecSpec("c1", ("sh", "-c", script), PATH), None)
    os.write(command.fds["stdin"], b"one\n")
    assert await asyncio.to_thread(os.read, command.fds["stdout"], 100) == b"got one\n"
    await host.kill_supervisor()
    assert host.ends == []
    os.write(command.fds["stdin"], b"two\n")
    assert await asyncio.to_thread(os.read, command.fds["stdout"], 100) == b"got two\n"
    command.close("stdin")
    await asyncio.wait_for(command.wait(), 10)
    command.close()
    console = await host.runtime.console("c1")
    assert b"tick" in await asyncio.wait_for(console.read(), 5)
    console.detach()
    assert (await host.run("c2", "echo", "hello")).stdout == "hello\n"
    await host.runtime.signal("c1", signal.SIGTERM)
    assert await host.runtime.wait("c1", 10)
    await host.runtime.kill("c2")
    assert [end.name for end in host.ends] == ["c1", "c2"]


async def test_the_supervisor_dies_during_a_start(host: Host) -> None:
    async def endless(pid: int) -> None:
        await asyncio.sleep(100)

    start = asyncio.ensure_future(host.runtime.start(host.spec("c1"), endless))
    await until(host.groups, "the control group")
    await asyncio.sleep(0.05)
    await host.kill_supervisor()
    with pytest.raises(SupervisorLost):
        await start
    await until(lambda: not host.groups(), "the removal of the control groups")
    assert host.ends == []
    await host.start("c1", rootfs=host.overlay("again"))


async def test_another_daemon_comes(host: Host) -> None:
    await host.start("c1", init=TICKER)
    script = "read x; echo got $x; exit 5"
    command = await host.runtime.exec(ExecSpec("c1", ("sh", "-c", script), PATH), None)
    await host.runtime.close()
    host.runtime = host.new_runtime()
    (held,) = await host.runtime.connect()
    assert held.name == "c1"
    (again,) = await host.runtime.execs()
    assert again.id == command.id
    os.write(again.fds["stdin"], b"this\n")
    assert await asyncio.wait_for(again.wait(), 5) == 5
    assert os.read(again.fds["stdout"], 100) == b"got this\n"
    again.close()


async def test_an_end_is_told_until_it_is_acknowledged(host: Host) -> None:
    host.runtime.on_exit = lambda _: None
    await host.start("c1", init=("/bin/sh", "-c", "exit 3"))
    assert await host.runtime.wait("c1", 5)
    supervisor = host.supervisor
    await host.runtime.close()
    os.kill(supervisor, signal.SIGKILL)
    host.runtime = host.new_runtime()
    assert await host.runtime.connect() == []
    assert [(end.name, end.status) for end in host.ends] == [("c1", 3)]


async def test_both_die(host: Host) -> None:
    await host.start("c1")
    supervisor = host.supervisor
    await host.runtime.close()
    os.kill(supervisor, signal.SIGKILL)
    host.runtime = host.new_runtime()
    (held,) = await host.runtime.connect()
    assert held.name == "c1"
    assert (await host.run("c1", "echo", "hello")).stdout == "hello\n"
    with pytest.raises(StartFailed, match="console of c1 was lost"):
        await host.runtime.console("c1")


async def test_descriptors_do_not_grow(host: Host) -> None:
    rootfs = host.overlay("c1")
    before = host.descriptors()
    for _ in range(5):
        await host.start("c1", rootfs=rootfs)
        await host.run("c1", "true")
        (await host.runtime.console("c1")).detach()
        await host.runtime.kill("c1")
    assert host.descriptors() == before
