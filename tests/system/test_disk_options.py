"""Directories and files of the host, shown in an instance: each option, at the start and live."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.api import ApiError
from tests.support.daemon import Daemon
from tests.support.fixtures import Launch, change

Device = dict[str, Any]


@pytest.fixture
def source(work_directory: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A directory of the host on a file system of its own, which others hear mounts of."""
    path = work_directory / f"disk-{request.node.name[:30].translate(str.maketrans('[]', '--'))}"
    path.mkdir(mode=0o755)
    mount("-t", "tmpfs", "-o", "mode=0755", "tmpfs", path)
    mount("--make-shared", path)
    (path / "file").write_text("here\n")
    (path / "below").mkdir()
    yield path
    subprocess.run(["umount", "-R", path], check=True)
    path.rmdir()


def mount(*words: str | Path) -> None:
    subprocess.run(["mount", *map(str, words)], check=True)


def disk(source: Path, **options: str) -> Device:
    return {"type": "disk", "source": str(source), "path": "/mnt/d", **options}


def give(daemon: Daemon, name: str, **devices: Device | None) -> None:
    """Replace some of an instance's own devices; None takes one away."""
    path = f"/1.0/instances/{name}"
    found = daemon.api.get(path)
    own = {**found["devices"], **devices}
    daemon.api.put(path, {**found, "devices": {k: v for k, v in own.items() if v is not None}})


def fails(daemon: Daemon, name: str, *command: str) -> bool:
    return daemon.exec(name, *command, check=False).returncode != 0


@pytest.mark.parametrize("live", [True, False])
def test_a_directory(daemon: Daemon, launch: Launch, source: Path, live: bool) -> None:
    """Its files, of nobody unless ids are shifted; read-only; what is mounted below, or not."""
    mount("-t", "tmpfs", "tmpfs", source / "below")
    (source / "below/deep").touch()
    shown = {
        "plain": disk(source, path="/mnt/plain"),
        "shifted": disk(source, path="/mnt/shifted", shift="true"),
        "locked": disk(source, path="mnt/locked", readonly="true"),
        "deep": disk(source, path="/mnt/deep", recursive="true"),
        "one": disk(source / "file", path="/etc/one"),
        "raw": disk(source, path="/mnt/raw", **{"raw.mount.options": "noexec,nosuid,noatime"}),
    }
    name = launch(devices={} if live else shown)
    if live:
        give(daemon, name, **shown)
    assert daemon.out(name, "cat", "/mnt/plain/file", "/etc/one") == "here\nhere"
    owners = [daemon.out(name, "stat", "-c", "%u", f"/mnt/{each}/file")
              for each in ("plain", "shifted")]  # fmt: skip
    assert owners == ["65534", "0"]
    assert fails(daemon, name, "touch", "/mnt/plain/mine")
    daemon.exec(name, "touch", "/mnt/shifted/mine")
    assert (source / "mine").stat().st_uid == 0
    assert "Read-only" in daemon.exec(name, "touch", "/mnt/locked/x", check=False).stderr
    assert fails(daemon, name, "mount", "-o", "remount,bind,rw", "/mnt/locked")
    assert not fails(daemon, name, "test", "-e", "/mnt/deep/below/deep")
    assert fails(daemon, name, "test", "-e", "/mnt/plain/below/deep")
    mounts = daemon.out(name, "cat", "/proc/self/mounts").splitlines()
    (options,) = (line.split()[3].split(",") for line in mounts if " /mnt/raw " in line)
    assert {"noexec", "nosuid", "nodev", "noatime"} <= set(options)
    assert not any(" master:" in line or " shared:" in line for line in _mountinfo(daemon, name))
    give(daemon, name, **dict.fromkeys(shown))
    assert " /mnt/" not in daemon.out(name, "cat", "/proc/self/mounts")


def _mountinfo(daemon: Daemon, name: str) -> list[str]:
    lines = Path(f"/proc/{daemon.init_pid(name)}/mountinfo").read_text().splitlines()
    return [line for line in lines if " /mnt/" in line]


def test_changed_live(daemon: Daemon, launch: Launch, source: Path) -> None:
    """It moves, and is locked; what cannot be leaves it as it was; an empty option is none."""
    name = launch(devices={"d": disk(source)})
    give(daemon, name, d=disk(source, path="/mnt/e", readonly="true"))
    assert daemon.out(name, "cat", "/mnt/e/file") == "here"
    assert fails(daemon, name, "test", "-e", "/mnt/d/file")
    with pytest.raises(ApiError, match='Missing source path "/nosuch" for disk "d"'):
        give(daemon, name, d=disk(Path("/nosuch")))
    assert daemon.out(name, "cat", "/mnt/e/file") == "here"
    give(daemon, name, d=disk(source, path="/mnt/e", readonly=""))
    assert "readonly" not in daemon.api.get(f"/1.0/instances/{name}")["devices"]["d"]


def test_one_that_need_not_be_there(daemon: Daemon, launch: Launch, source: Path) -> None:
    """It may be missing at the start, and live; when it is there it is shown."""
    missing = disk(source / "later", required="false")
    name = launch(devices={"d": missing})
    assert fails(daemon, name, "test", "-e", "/mnt/d/file")
    give(daemon, name, e={**missing, "path": "/mnt/e"})
    give(daemon, name, d=None, e=None)
    (source / "later").mkdir()
    (source / "later/file").touch()
    give(daemon, name, d=missing)
    assert not fails(daemon, name, "test", "-e", "/mnt/d/file")
    with pytest.raises(ApiError, match="Missing source path"):
        give(daemon, name, e=disk(source / "never", path="/mnt/e"))


@pytest.mark.parametrize("privileged", ["false", "true"])
@pytest.mark.parametrize("live", [True, False])
def test_propagation(
    daemon: Daemon, launch: Launch, source: Path, live: bool, privileged: str
) -> None:
    """What the host mounts later appears where that is asked for; nothing comes back."""
    shown = {
        "own": disk(source, path="/mnt/own"),
        "hears": disk(source, path="/mnt/hears", propagation="rslave"),
        "shares": disk(source, path="/mnt/shares", propagation="shared", shift="true"),
        "unbound": disk(source, path="/mnt/unbound", propagation="unbindable"),
    }
    name = launch(config={"security.privileged": privileged}, devices={} if live else shown)
    if live:
        give(daemon, name, **shown)
    mount("-t", "tmpfs", "tmpfs", source / "below")
    (source / "below/new").touch()
    found = {
        each: not fails(daemon, name, "test", "-e", f"/mnt/{each}/below/new") for each in shown
    }
    assert found == {"own": False, "hears": True, "shares": True, "unbound": False}
    kinds = {line.split()[4]: line.split(" - ")[0].split()[6:] for line in _mountinfo(daemon, name)}
    words = {place: {word.partition(":")[0] for word in each} for place, each in kinds.items()}
    assert words["/mnt/own"] == set() and words["/mnt/unbound"] == {"unbindable"}
    assert words["/mnt/hears"] == {"master"} and words["/mnt/shares"] == {"master", "shared"}
    daemon.exec(name, "mkdir", "-p", "/tmp/mine")
    (source / "back").mkdir()
    daemon.exec(name, "mount", "-t", "tmpfs", "tmpfs", "/mnt/shares/back")
    assert not os.path.ismount(source / "back")
    check = daemon.api.get(f"/1.0/instances/{name}/checkpoint")
    assert "propagation=rslave" in str(check["blockers"])
    change(daemon, name, "stop")
    subprocess.run(["umount", source / "below"], check=True)
