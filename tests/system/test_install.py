"""The commands as they are installed, and `make demo` as a user runs it."""

from __future__ import annotations

import configparser
import os
import statistics
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from tests.support.daemon import Daemon


def test_commands_ignore_the_environment(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "lxpy").mkdir()
    (tmp_path / "lxpy/__init__.py").write_text("raise SystemExit('hijacked')\n")
    environment = {"PYTHONPATH": str(tmp_path), "PYTHONHOME": str(tmp_path)}
    done = daemon.lxpy("version", env=environment, cwd=tmp_path)
    assert "hijacked" not in done.stdout + done.stderr


def test_supervisor_is_small(daemon: Daemon) -> None:
    """Nothing of the libraries, nothing of asyncio: its size is the cost of each fork."""
    maps = Path(f"/proc/{daemon.supervisor}/maps").read_text()
    loaded = {line.split()[-1] for line in maps.splitlines() if ".so" in line}
    assert not [path for path in loaded if "site-packages" in path]
    assert not [path for path in loaded if "_asyncio" in path or "_ssl" in path]
    arguments = Path(f"/proc/{daemon.supervisor}/cmdline").read_bytes().split(b"\0")
    flags = b"".join(word for word in arguments[1:4] if word.startswith(b"-"))
    assert b"I" in flags and b"S" in flags


def seconds(*argv: str | Path, env: dict[str, str]) -> float:
    """The median of several runs."""
    times = []
    for _ in range(7):
        start = time.perf_counter()
        subprocess.run(argv, env=env, check=True, capture_output=True, stdin=subprocess.DEVNULL)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def test_list_is_quick(daemon: Daemon) -> None:
    bare = seconds(sys.executable, "-IS", "-c", "pass", env=daemon.environment)
    listed = seconds(daemon.commands / "lxpy", "list", env=daemon.environment)
    # The aim is 40 ms; the machine that runs this may be busy.
    assert listed - bare < 0.15


@pytest.mark.timeout(300)
def test_wheel_holds_everything(repository: Path, tmp_path: Path) -> None:
    copy = tmp_path / "source"
    names = ("lxpy", "migrations", "profiles", "templates")
    files = ("setup.cfg", "pyproject.toml", "README.md", "LICENSE")
    copy.mkdir()
    tar = f"tar -c --exclude=__pycache__ {' '.join(names + files)} | tar -x -C {copy}"
    subprocess.run(tar, shell=True, cwd=repository, check=True)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "-w", tmp_path, copy], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("lxpy-*.whl")
    shipped = set(zipfile.ZipFile(wheel).namelist())
    for name in names:
        prefix = "" if name == "lxpy" else "lxpy/"
        for top, directories, entries in os.walk(repository / name):
            directories[:] = [d for d in directories if d != "__pycache__"]
            for entry in entries:
                path = (Path(top) / entry).relative_to(repository)
                assert f"{prefix}{path}" in shipped


def test_every_module_has_its_minimum_version(repository: Path) -> None:
    config = configparser.ConfigParser()
    config.read(repository / "setup.cfg")
    for line in config["options"]["install_requires"].strip().splitlines():
        assert ">=" in line


@pytest.mark.distribution
@pytest.mark.timeout(900)
def test_demo(own_daemon: Daemon, repository: Path, shared_debian13: str) -> None:
    """Without a terminal the demo prints what there is to see."""
    from tests.images import distributions

    distributions.provide(own_daemon, "debian/13")
    demo = repository / "packaging/demo.sh"
    done = own_daemon.run(demo, env={"DEMO_IMAGE": "debian/13"}, timeout=300)
    assert "| demo " in done.stdout and "RUNNING" in done.stdout
    assert 'PRETTY_NAME="Debian GNU/Linux 13 (trixie)"' in done.stdout
    assert "systemd" in done.stdout and "eth0" in done.stdout
