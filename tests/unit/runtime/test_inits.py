"""What each kind of init wants to hear."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lxpy.runtime import inits


def manners_of(program: Path) -> inits.Manners:
    """Run a sleeping interpreter under another name, as if it were an init."""
    program.parent.mkdir(parents=True)
    program.write_bytes(Path("/bin/sleep").resolve().read_bytes())
    program.chmod(0o755)
    process = subprocess.Popen([program, "60"])
    try:
        return inits.manners(process.pid)
    finally:
        process.kill()
        process.wait()


def test_systemd(tmp_path: Path) -> None:
    manners = manners_of(tmp_path / "lib/systemd/systemd")
    assert manners.shutdown.signal == signal.SIGRTMIN + 3
    assert manners.reboot.signal == signal.SIGINT


@pytest.mark.parametrize("name", ["init", "runit"])
def test_inits_with_runlevels(tmp_path: Path, name: str) -> None:
    manners = manners_of(tmp_path / "sbin" / name)
    assert manners.shutdown == inits.Request(command=("init", "0"))
    assert manners.reboot == inits.Request(command=("init", "6"))


def test_openrc(tmp_path: Path) -> None:
    assert manners_of(tmp_path / "sbin/openrc-init").shutdown.command[0] == "openrc-shutdown"


def test_others_hear_what_lxd_says() -> None:
    assert Path(sys.executable).resolve().name not in ("init", "systemd")
    assert inits.manners(os.getpid()).shutdown.signal == signal.SIGPWR


def test_an_init_that_is_gone() -> None:
    with pytest.raises(FileNotFoundError):
        inits.manners(2**22 + 1)
