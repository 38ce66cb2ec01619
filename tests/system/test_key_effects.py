"""Keys of instances: ids, namespaces, protection, kernel settings, the order at boot."""

from __future__ import annotations

import os
import signal
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tests.support.api import ApiError
from tests.support.daemon import Daemon
from tests.support.fixtures import Launch, change, create, import_image
from tests.support.processes import wait_until


def set_keys(daemon: Daemon, name: str, config: dict[str, str]) -> None:
    daemon.api.patch(f"/1.0/instances/{name}", {"config": config})


def id_map(daemon: Daemon, name: str, kind: str = "uid") -> list[list[int]]:
    """What the kernel maps: [inside, outside, size] each."""
    text = Path(f"/proc/{daemon.init_pid(name)}/{kind}_map").read_text()
    return [[int(word) for word in line.split()] for line in text.splitlines()]


def test_ids(daemon: Daemon, launch: Launch) -> None:
    plain = launch()
    ((inside, base, size),) = id_map(daemon, plain)
    assert (inside, size) == (0, 65536) and base >= 65536
    other = launch(config={"security.idmap.isolated": "true"})
    assert abs(id_map(daemon, other)[0][1] - base) >= 65536
    name = launch(config={"security.idmap.size": "100000"})
    assert id_map(daemon, name) == id_map(daemon, name, "gid")
    assert id_map(daemon, name)[0][2] == 100000
    daemon.exec(name, "chown", "99999:99999", "/root")
    assert daemon.exec(name, "chown", "100000", "/root", check=False).returncode
    name = launch(config={"security.idmap.base": "1500000000"})
    assert id_map(daemon, name) == [[0, 1500000000, 65536]]
    name = launch(config={"raw.idmap": "both 1000 1000\nuid 50-60 500-510"})
    assert [1000, 1000, 1] in id_map(daemon, name)
    assert [1000, 1000, 1] in id_map(daemon, name, "gid")
    assert [500, 50, 11] in id_map(daemon, name)
    assert [500, 50, 11] not in id_map(daemon, name, "gid")


def test_without_a_user_namespace(daemon: Daemon, launch: Launch) -> None:
    name = launch(config={"security.privileged": "true"})
    own = os.stat("/proc/self/ns/user").st_ino
    assert os.stat(f"/proc/{daemon.init_pid(name)}/ns/user").st_ino == own
    assert daemon.exec(name, "sh", "-c", "echo 5 >/proc/sys/vm/swappiness", check=False).returncode


def test_nesting(daemon: Daemon, launch: Launch) -> None:
    name = launch(config={"security.nesting": "true"})
    assert id_map(daemon, name)[0][2] == 1048576
    mounts = daemon.out(name, "cat", "/proc/mounts")
    assert " /dev/.lxc/proc proc " in mounts and " /dev/.lxc/sys sysfs " in mounts
    plain = launch()
    assert "/dev/.lxc/proc" not in daemon.out(plain, "cat", "/proc/mounts")


def test_live_prepares_run(daemon: Daemon, launch: Launch) -> None:
    name = launch(config={"security.live": "false"})
    assert "MEMORY_PRESSURE_WATCH" not in daemon.out(name, "cat", "/proc/1/environ")
    check = daemon.api.get(f"/1.0/instances/{name}/checkpoint")
    assert "security.live is false" in str(check["blockers"])


def test_protection(daemon: Daemon, launch: Launch) -> None:
    keys = ("delete", "start", "shift")
    name = launch(start=False, config={f"security.protection.{key}": "true" for key in keys})
    with pytest.raises(ApiError, match="protected from being started"):
        change(daemon, name, "start")
    with pytest.raises(ApiError, match="Container is protected"):
        daemon.api.delete(f"/1.0/instances/{name}")
    set_keys(daemon, name, {"security.protection.start": ""})
    change(daemon, name, "start")
    # Whatever ids it runs with, its files on the disk have those of the inside.
    daemon.exec(name, "touch", "/root/mine")
    pool = daemon.directory / "storage-pools/default"
    assert next(pool.glob("**/root/mine")).stat().st_uid == 0
    set_keys(daemon, name, {"security.protection.delete": "false"})


def test_kernel_settings(daemon: Daemon, launch: Launch) -> None:
    config = {
        "linux.sysctl.net.ipv4.ip_forward": "1",
        "linux.sysctl.kernel.msgmax": "9000",
        "limits.kernel.nofile": "500:600",
        "limits.kernel.core": "unlimited",
    }
    name = launch(config=config)
    files = ("/proc/sys/net/ipv4/ip_forward", "/proc/sys/kernel/msgmax")
    assert daemon.out(name, "cat", *files).split() == ["1", "9000"]
    for process in ("1", "self"):
        limits = daemon.out(name, "cat", f"/proc/{process}/limits").splitlines()
        found = {line[:26].strip(): line[26:].split()[:2] for line in limits}
        assert found["Max open files"] == ["500", "600"]
        assert found["Max core file size"] == ["unlimited", "unlimited"]
    set_keys(daemon, name, {"linux.sysctl.kernel.panic": "1"})
    with pytest.raises(ApiError, match=r"sysctl kernel\.panic=1"):
        change(daemon, name, "restart", force=True)


def test_kernel_modules(daemon: Daemon, launch: Launch) -> None:
    loaded = next(each for each in sorted(os.listdir("/sys/module")) if "_" in each)
    name = launch(config={"linux.kernel_modules": f"{loaded}, {loaded.replace('_', '-')}"})
    with pytest.raises(ApiError, match="no-such-module|modprobe"):
        set_keys(daemon, name, {"linux.kernel_modules": "no-such-module"})
    assert "no-such" not in str(daemon.api.get(f"/1.0/instances/{name}")["config"])
    change(daemon, name, "stop")
    set_keys(daemon, name, {"linux.kernel_modules": "no-such-module"})
    with pytest.raises(ApiError, match="no-such-module|modprobe"):
        change(daemon, name, "start")


def test_environment(daemon: Daemon, launch: Launch) -> None:
    name = launch(config={"environment.A": "init"})
    assert "A=init" in daemon.out(name, "sh", "-c", "tr '\\0' '\\n' </proc/1/environ").split()
    set_keys(daemon, name, {"environment.A": "now", "environment.B": "b c"})
    assert daemon.out(name, "sh", "-c", "echo $A $B") == "now b c"
    set_keys(daemon, name, {"environment.A": ""})
    assert daemon.out(name, "sh", "-c", "echo $A$B") == "b c"


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("raw.apparmor", "capability,", "no AppArmor profile"),
    ],
)
def test_what_cannot_be_done_is_refused(
    daemon: Daemon, launch: Launch, key: str, value: str, reason: str
) -> None:
    name = launch(start=False)
    with pytest.raises(ApiError, match=reason):
        set_keys(daemon, name, {key: value})
    with pytest.raises(ApiError, match=reason):
        create(daemon, "tiny", config={key: value})


def test_what_is_only_kept(daemon: Daemon, launch: Launch) -> None:
    config = {"user.any": "thing\n", "cluster.evacuate": "stop", "image.mine": "yes"}
    name = launch(start=False, config=config)
    path = f"/1.0/instances/{name}"
    found = daemon.api.get(path)
    assert config.items() <= found["config"].items()
    assert found["config"]["image.os"] == "Busybox"  # from the image
    # What the daemon keeps for itself outlives a PUT that leaves it out.
    daemon.api.put(path, {**found, "config": {"user.any": "other"}})
    kept = daemon.api.get(path)["config"]
    for key in ("volatile.uuid", "volatile.base_image", "volatile.cloud-init.instance-id",
                "volatile.idmap.base", "volatile.last_state.power"):  # fmt: skip
        assert kept[key] == found["config"][key]
    for wrong in ("volatile.nosuch", "clusters.evacuate"):
        with pytest.raises(ApiError, match=f"Unknown configuration key: {wrong}"):
            set_keys(daemon, name, {wrong: "x"})


def test_the_order_in_which_instances_stop(own_daemon: Daemon, busybox_image: Path) -> None:
    daemon = own_daemon
    import_image(daemon, busybox_image, "tiny")
    deaf = "/bin/sh -c \"trap '' PWR TERM INT HUP; while :; do sleep 1; done\""
    configs = {
        "early": {"boot.stop.priority": "5", "boot.autostart": "false"},
        "deaf": {"boot.host_shutdown_timeout": "3", "raw.lxc": f"lxc.init.cmd = {deaf}"},
        "late": {"boot.stop.priority": "-5", "boot.autostart": "false"},
    }
    for name, config in configs.items():
        create(daemon, "tiny", name, config=config)
        change(daemon, name, "start")

    def is_up(name: str) -> bool:
        return "up" in daemon.exec(name, "cat", "/var/log/boots", check=False).stdout

    # Their inits can hear by then.
    wait_until(lambda: is_up("early") and is_up("late"))
    os.kill(daemon.pid, signal.SIGPWR)  # the host goes down
    wait_until(lambda: not daemon.running, 40)
    daemon.start()
    daemon.wait_status("deaf", "Running", 30)

    def down_at(name: str) -> datetime:
        path = f"/1.0/instances/{name}/files?path=/var/log/boots"
        _, headers, data = daemon.api.raw("GET", path)
        assert data.split() == [b"up", b"down"]
        return datetime.fromisoformat(headers["x-lxd-modified"].removesuffix(" UTC"))

    assert timedelta(seconds=2) <= down_at("late") - down_at("early") < timedelta(seconds=20)
