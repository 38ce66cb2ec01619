"""Device nodes that come and go on the host, and who may open what."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.api import ApiError
from tests.support.daemon import Daemon
from tests.support.fixtures import Launch, change
from tests.support.processes import wait_until
from tests.system.test_proxy import in_guest

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory in the host's /dev, for nodes."""
    path = Path(f"/dev/lxpy-test-{os.getpid()}")
    path.mkdir()
    yield path
    for entry in path.rglob("*"):
        if not entry.is_dir():
            entry.unlink()
    for entry in sorted(path.rglob("*"), reverse=True):
        entry.rmdir()
    path.rmdir()


def _make(path: Path, minor: int = 5, *, kind: int = stat.S_IFCHR, major: int = 1) -> None:
    os.mknod(path, 0o600 | kind, os.makedev(major, minor))


def _sees(daemon: Daemon, name: str, path: object) -> bool:
    return daemon.exec(name, "test", "-c", str(path), check=False).returncode == 0


def _reads(daemon: Daemon, name: str, path: object) -> bool:
    done = daemon.exec(name, "head", "-c", "4", str(path), check=False)
    return done.returncode == 0 and len(done.stdout) == 4


def test_a_node_comes_and_goes(daemon: Daemon, launch: Launch, directory: Path) -> None:
    """By its file alone, in a directory that may not be there yet; over a daemon's restart, too."""
    source = directory / "later/zero"
    device = {"type": "unix-char", "source": str(source), "path": "/dev/mine", "required": "false"}
    name = launch(devices={"d": device})
    assert not _sees(daemon, name, "/dev/mine")
    source.parent.mkdir()
    _make(source)
    wait_until(lambda: _sees(daemon, name, "/dev/mine"), 10, "the node")
    assert _reads(daemon, name, "/dev/mine")
    source.unlink()
    wait_until(lambda: not _sees(daemon, name, "/dev/mine"), 10, "no node")
    _make(source)
    wait_until(lambda: _sees(daemon, name, "/dev/mine"), 10, "the node again")
    daemon.stop()
    source.unlink()
    daemon.start()
    wait_until(lambda: not _sees(daemon, name, "/dev/mine"), 10, "no node after a restart")
    daemon.lxpy("config", "device", "remove", name, "d")


def test_a_node_outside_of_dev(daemon: Daemon, launch: Launch, work_directory: Path) -> None:
    """Wherever it lies on the host, and wherever it is wanted: at the start, live, coming late."""
    source, late = work_directory / "node", work_directory / "late"
    _make(source)
    given = {"type": "unix-char", "source": str(source), "path": "/srv/a/mine", "uid": "7"}
    coming = {**given, "source": str(late), "path": "/root/late", "required": "false"}
    try:
        name = launch(devices={"d": given, "late": coming})
        path = f"/1.0/instances/{name}"
        for _ in range(2):
            assert _reads(daemon, name, "/srv/a/mine")
            assert daemon.out(name, "stat", "-c", "%a %u %t:%T", "/srv/a/mine") == "660 7 1:5"
            _make(late)
            wait_until(lambda: _sees(daemon, name, "/root/late"), 10, "the node")
            late.unlink()
            wait_until(lambda: not _sees(daemon, name, "/root/late"), 10, "no node")
            check = daemon.api.get(f"{path}/checkpoint")
            assert 'node of device "d" is outside of /dev' in str(check["blockers"])
            whole = daemon.api.get(path)
            daemon.api.put(path, {**whole, "devices": {"late": coming}})
            assert daemon.exec(name, "ls", "/srv/a/mine", check=False).returncode
            daemon.api.patch(path, {"devices": {"d": given}})
    finally:
        source.unlink()


def test_a_required_node(daemon: Daemon, launch: Launch, directory: Path) -> None:
    """It has to be there at the start; it can be taken away when it is not there any more."""
    source = directory / "zero"
    name = launch(devices={"d": {"type": "unix-char", "source": str(source)}}, start=False)
    with pytest.raises(ApiError, match="The required device path doesn't exist"):
        change(daemon, name, "start")
    _make(source)
    change(daemon, name, "start")
    assert _reads(daemon, name, source)
    source.unlink()
    daemon.lxpy("config", "device", "remove", name, "d")
    assert not _sees(daemon, name, source)


@pytest.mark.parametrize("privileged", ["false", "true"])
def test_who_may_open_what(
    daemon: Daemon, launch: Launch, directory: Path, privileged: str
) -> None:
    _make(directory / "zero")
    name = launch(config={"security.privileged": privileged})
    allowed = {"type": "unix-char", "path": "/dev/allowed", "major": "10", "minor": "237"}
    daemon.api.patch(f"/1.0/instances/{name}", {"devices": {"loops": allowed}})
    assert daemon.exec(name, "sh", "-c", ": </dev/allowed", check=False).returncode == 0
    for number in ("10 237", "1 1"):
        daemon.exec(name, "sh", "-c", f"rm -f /dev/x; mknod /dev/x c {number}", check=False)
        opened = daemon.exec(name, "sh", "-c", ": </dev/x", check=False).returncode == 0
        assert opened == (privileged == "true" and number == "10 237")
    daemon.lxpy("config", "device", "remove", name, "loops")
    daemon.exec(name, "sh", "-c", "rm -f /dev/x; mknod /dev/x c 10 237", check=False)
    assert daemon.exec(name, "sh", "-c", ": </dev/x", check=False).returncode != 0


def test_a_block_device_and_its_event(daemon: Daemon, launch: Launch) -> None:
    """What the kernel says about it is heard in the instance."""
    loop = next((each for each in sorted(Path("/sys/block").glob("loop*")) if
                 not (each / "loop").exists() and (each / "uevent").exists()), None)  # fmt: skip
    if loop is None or not Path(f"/dev/{loop.name}").exists():
        pytest.skip("needs a free loop device")
    node = f"/dev/{loop.name}"
    device = {"type": "unix-block", "source": node, "required": "false", "uid": "3", "mode": "0640"}
    name = launch()
    listener = in_guest_netlink(daemon.init_pid(name))
    daemon.api.patch(f"/1.0/instances/{name}", {"devices": {"d": device}})
    assert daemon.out(name, "stat", "-c", "%F %u %a", node) == "block special file 3 640"
    daemon.lxpy("config", "device", "remove", name, "d")
    away = f"{node}-away"
    os.rename(node, away)
    try:
        daemon.api.patch(f"/1.0/instances/{name}", {"devices": {"d": device}})
        assert daemon.exec(name, "test", "-b", node, check=False).returncode != 0
        os.rename(away, node)
        (loop / "uevent").write_text("add")
        wait_until(
            lambda: daemon.exec(name, "test", "-b", node, check=False).returncode == 0, 10, node
        )
        said = listener.recv(65536)
        assert said.startswith(b"add@/devices/") and f"DEVNAME={loop.name}".encode() in said
    finally:
        listener.close()
        with contextlib.suppress(FileNotFoundError):
            os.rename(away, node)


def in_guest_netlink(pid: int) -> socket.socket:
    """Listen for uevents in an instance's network namespace."""
    made = in_guest(pid, socket.AF_NETLINK, socket.SOCK_RAW, 15)
    made.bind((0, 1))
    return made


def test_what_this_host_has_not(daemon: Daemon, launch: Launch) -> None:
    devices = {
        "u": {"type": "usb", "vendorid": "fffe"},
        "h": {"type": "unix-hotplug", "vendorid": "fffe"},
    }
    name = launch(devices=devices)
    for device, text in (
        ({"type": "usb", "vendorid": "fffe", "required": "true"}, "Required USB device not found"),
        ({"type": "gpu", "id": "99"}, "Failed to detect requested GPU device"),
    ):
        with pytest.raises(ApiError, match=text):
            daemon.api.patch(f"/1.0/instances/{name}", {"devices": {"x": device}})


def test_names(daemon: Daemon, launch: Launch, directory: Path) -> None:
    """Odd names of devices are names, whatever the device is."""
    _make(directory / "zero")
    odd = "a/b:c_d.e-f"
    name = launch()
    for device in (
        {"type": "unix-char", "source": str(directory / "zero"), "path": "/dev/odd"},
        {"type": "disk", "source": "/etc", "path": "/mnt/odd"},
        {"type": "proxy", "listen": "unix:@lxpy-odd", "connect": "unix:@x"},
        {"type": "none"},
    ):
        daemon.api.patch(f"/1.0/instances/{name}", {"devices": {odd: device}})
        daemon.lxpy("config", "device", "remove", name, odd)


def test_profiles_are_live(daemon: Daemon, launch: Launch, directory: Path) -> None:
    _make(directory / "zero")
    daemon.lxpy("profile", "create", "with-node")
    try:
        name = launch(profiles=["default", "with-node"])
        source = f"source={directory}/zero"
        daemon.lxpy("profile", "device", "add", "with-node", "d", "unix-char", source)
        assert _reads(daemon, name, directory / "zero")
        daemon.lxpy("config", "device", "add", name, "d", "none")
        assert not _sees(daemon, name, directory / "zero")
        daemon.lxpy("config", "device", "remove", name, "d")
        daemon.lxpy("profile", "device", "remove", "with-node", "d")
        assert not _sees(daemon, name, directory / "zero")
        daemon.delete(name)
    finally:
        daemon.lxpy("profile", "delete", "with-node")
