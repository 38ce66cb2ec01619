"""Ansible's modules and connection plugin for LXD (community.general) drive the daemon.

Of the collection's wheel, which has all collections there are, only this one is kept.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.conftest import Lxc

HERE = Path(__file__).parent / "ansible"
#: versions that belong together
CORE, COLLECTIONS = "ansible-core==2.19.14", "ansible==12.3.0"
CACHE = Path(os.environ.get("LXPY_TESTS_CACHE", "/var/cache/lxpy-tests"))
KEPT = ("ansible_collections/community/general/", "ansible_collections/__init__")
PREFIX = "ansible-t"

Play = Callable[[str], dict[str, Any]]
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="session")
def ansible_playbook() -> Path:
    """The program, in an environment of its own that is made once."""
    home = CACHE / f"{CORE}-{COLLECTIONS}".replace("==", "-")
    if not home.exists():
        part = home.with_name(f".{home.name}.{os.getpid()}")
        try:
            _install(part)
            part.rename(home)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return home / "bin/ansible-playbook"


def _install(home: Path) -> None:
    python = home / "bin/python"
    subprocess.run([sys.executable, "-m", "venv", home], check=True)
    pip = [python, "-m", "pip", "-q"]
    subprocess.run([*pip, "install", CORE], check=True)
    subprocess.run([*pip, "download", "--no-deps", "-d", home, COLLECTIONS], check=True)
    (wheel,) = home.glob("ansible-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.startswith(KEPT)]
        archive.extractall(home / "collections", names)
    wheel.unlink()
    program = home / "bin/ansible-playbook"  # its first line names where it was made
    program.write_text('#!/bin/sh\nexec "${0%/*}/python" -m ansible.cli.playbook "$@"\n')


@pytest.fixture
def play(
    ansible_playbook: Path, lxc: Lxc, image: str, lxd_directory: Path, tmp_path: Path
) -> Iterator[Play]:
    """Run a playbook; the summary for each host."""
    environment = lxc.environment | {
        "HOME": str(tmp_path),
        "ANSIBLE_COLLECTIONS_PATH": str(ansible_playbook.parent.parent / "collections"),
        "ANSIBLE_LOCALHOST_WARNING": "False",
        "ANSIBLE_INVENTORY_UNPARSED_WARNING": "False",
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_REMOTE_TMP": "/tmp",
    }
    variables = {"url": f"unix:{lxd_directory}/unix.socket", "image": image, "prefix": PREFIX}

    def run(name: str) -> dict[str, Any]:
        done = subprocess.run(
            [ansible_playbook, "-i", "localhost,", "-e", json.dumps(variables), HERE / name],
            env=environment,
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stdout
        return _recap(done.stdout)

    yield run
    run("cleanup.yml")


def _recap(text: str) -> dict[str, dict[str, int]]:
    """What the last lines say of each host: how many tasks were ok, changed, failed ..."""
    _, _, lines = text.partition("PLAY RECAP")
    found = {}
    for line in lines.splitlines()[1:]:
        host, colon, counts = line.partition(" : ")
        if colon:
            words = (word.split("=") for word in counts.split())
            found[host.strip()] = {name: int(number) for name, number in words}
    return found


def test_twice(play: Play, lxc: Lxc) -> None:
    first = play("playbook.yml")
    assert first["localhost"]["changed"] == 6, first
    assert first[f"{PREFIX}-web"]["changed"] == 1, first
    assert lxc.status(f"{PREFIX}-web") == "RUNNING"
    assert lxc.status(f"{PREFIX}-cold") == "STOPPED"
    other = lxc.query(f"/1.0/instances/{PREFIX}-db?project={PREFIX}-project")
    assert other["status"] == "Stopped"
    assert other["expanded_config"]["user.kind"] == "other"
    second = play("playbook.yml")
    assert {each["changed"] for each in second.values()} == {0}, second
