"""Suites of whole workflows: LXD's client through a shell script, and pylxd's own tests.

`make test` runs a part of the first; `make conformance` runs all of both (LXPY_CONFORMANCE=all).
Each script also runs alone, against any daemon.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ALL = os.environ.get("LXPY_CONFORMANCE") == "all"
#: what `make test` runs of the shell suite: a check of each kind
PART = (
    "version|query-|image-(list|property)|init-(no-name|bad)|restart|pause|list-|state-|recursion|"
    "config-(set|edit|bad)|device-(crud|none)|exec-|operation-|monitor-|file-(push|headers)|"
    "snapshot-default|profile-|project-"
)
LIMIT_S = 1800


def run(script: str, *words: str | Path, **environment: str) -> None:
    """Run a suite; its last line says how many failed, its others which."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("LXD_", "LXPY_"))}
    done = subprocess.run(
        [HERE / script, *words],
        env=kept | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT_S,
    )
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAIL")]
    assert done.returncode == 0, "\n".join(failed) or done.stdout


@pytest.mark.timeout(LIMIT_S)
def test_lxc(lxd_directory: Path, tmp_path: Path) -> None:
    if not shutil.which("lxc"):
        pytest.skip("needs LXD's client (lxd-client)")
    part = [] if ALL else ["-k", PART]
    run("lxc-client-suite.sh", lxd_directory, *part, LCS_LOG=str(tmp_path / "log"))


@pytest.mark.timeout(LIMIT_S)
@pytest.mark.skipif(not ALL, reason="takes a minute: make conformance runs it")
def test_pylxd(lxd_directory: Path, tmp_path: Path) -> None:
    cache = Path(os.environ.get("LXPY_TESTS_CACHE", "/var/cache/lxpy-tests"))
    run(
        "pylxd-suite.sh",
        lxd_directory,
        PYLXD_VENV=str(cache / "pylxd-suite"),
        PYLXD_LOG=str(tmp_path / "log"),
    )
