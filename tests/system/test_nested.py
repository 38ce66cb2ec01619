"""lxpyd in an instance of lxpyd: the host's programs, a volume for its pool, no idmapped mounts."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import REPOSITORY, Daemon
from tests.support.fixtures import Launch
from tests.support.processes import wait_until

STATE = "/var/lib/lxpy"
VOLUMES = "/1.0/storage-pools/default/volumes/custom"
Inside = Callable[..., str]


def disk(source: str | Path, path: str | Path, **more: str) -> dict[str, str]:
    return {"type": "disk", "source": str(source), "path": str(path), **more}


@pytest.fixture
def inside(daemon: Daemon, launch: Launch, busybox_image: Path) -> Iterator[Inside]:
    """Run commands where an inner lxpyd does, which has the image "tiny"."""
    shown = ("/usr", sys.prefix, REPOSITORY, daemon.commands)
    devices = {f"d{n}": disk(path, path, readonly="true") for n, path in enumerate(shown)}
    daemon.api.post(VOLUMES, {"name": "inner", "type": "custom"})
    try:
        devices["state"] = disk("inner", STATE, pool="default")
        outer = launch(config={"security.nesting": "true"}, devices=devices)
        for name in ("lib", "lib64"):
            daemon.exec(outer, "/bin/busybox", "ln", "-s", f"usr/{name}", f"/{name}")
        path = f"{daemon.commands}:/usr/sbin:/usr/bin:/sbin:/bin"

        def run(*command: str, **options: Any) -> str:
            words = ("--env", f"PATH={path}", "--", *command)
            return daemon.lxpy("exec", outer, *words, **options).stdout.strip()

        daemon.lxpy("file", "push", busybox_image, f"{outer}/root/tiny.tar.gz")
        run("lxpyd", "--daemonize", "--log", "/var/log/lxpyd.log", timeout=60)
        run("lxpy", "image", "import", "/root/tiny.tar.gz", "--alias", "tiny")
        yield run
        run("lxpy", "shutdown", "--force")
        wait_until(lambda: "lxpy" not in run("ps", "-ef").replace("ps -ef", ""), 10, "all ended")
        daemon.delete(outer)
    finally:
        daemon.api.delete(f"{VOLUMES}/inner")


@pytest.mark.timeout(180)
def test_a_nested_installation(inside: Inside) -> None:
    inside("lxpy", "launch", "tiny", "c1")
    assert 'idmapped_mounts: "false"' in inside("lxpy", "info")
    assert inside("lxpy", "exec", "c1", "--", "id", "-u") == "0"
    assert inside("lxpy", "exec", "c1", "--", "cat", "/proc/self/uid_map").split() == [
        *("0", "0", "65536"),
    ]
    # Files of the image are changed, renamed, removed, and belong to whom they did.
    script = "echo one >/root/f; mv /home /home2; rm -r /opt; chown 1000:5 /root/f; sync"
    inside("lxpy", "exec", "c1", "--", "sh", "-c", script)
    inside("lxpy", "snapshot", "c1", "s0")
    inside("lxpy", "exec", "c1", "--", "sh", "-c", "echo two >/root/f; mkdir /opt; rmdir /home2")
    inside("lxpy", "copy", "c1", "c2")
    inside("lxpy", "restore", "c1", "s0")
    inside("lxpy", "start", "c2")
    look = ("--", "sh", "-c", "stat -c %u:%g /root/f; cat /root/f; ls -d /home* /opt; true")
    assert inside("lxpy", "exec", "c1", *look) == "1000:5\none\n/home2"
    assert inside("lxpy", "exec", "c2", *look) == "1000:5\ntwo\n/opt"

    def reached() -> bool:
        found = inside("lxpy", "exec", "c2", "--", "ping", "-c1", "-W1", "c1", check=False)
        return " 0% packet loss" in found

    wait_until(reached, 20, "c2 reaches c1 by its name")
    inside("lxpy", "file", "push", "/etc/hostname", "c1/root/pushed")
    assert inside("lxpy", "file", "pull", "c1/root/pushed", "-") == inside("cat", "/etc/hostname")


@pytest.mark.timeout(180)
def test_archives_and_what_is_left(inside: Inside) -> None:
    mounts = inside("cat", "/proc/self/mountinfo")
    inside("lxpy", "launch", "tiny", "c1")
    inside("lxpy", "exec", "c1", "--", "sh", "-c", "echo one >/root/f; chown 1000:5 /root/f; sync")
    inside("lxpy", "export", "c1", "/root/c1.tar")
    inside("lxpy", "publish", "--force", "c1", "--alias", "mine")
    inside("lxpy", "delete", "--force", "c1")
    inside("lxpy", "import", "/root/c1.tar")
    inside("lxpy", "launch", "mine", "c2")
    inside("lxpy", "start", "c1")
    look = ("--", "sh", "-c", "stat -c %u:%g /root/f; cat /root/f")
    assert inside("lxpy", "exec", "c1", *look) == inside("lxpy", "exec", "c2", *look) == (
        "1000:5\none"
    )  # fmt: skip
    size = "lxpy config device override c1 root size=1GiB"
    assert "dir.quota=none" in inside("sh", "-c", f"{size} 2>&1 || true")
    node = "lxpy config device add c1 f unix-char source=/dev/fuse path=/dev/f"
    assert "can make no device nodes" in inside("sh", "-c", f"{node} 2>&1 || true")
    inside("lxpy", "delete", "--force", "c1", "c2")
    assert inside("cat", "/proc/self/mountinfo") == mounts
    assert "c1" not in inside("ls", "/sys/fs/cgroup/lxpy")
