"""LXD's client: the life of an instance."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conformance.conftest import Lxc

Make = Callable[..., str]


def address(lxc: Lxc, name: str) -> str:
    """Wait for the address that `lxc list` shows."""
    for _ in range(100):
        if text := lxc("list", f"^{name}$", "-c", "4", "-f", "csv").strip():
            return text
        time.sleep(0.1)
    raise AssertionError(f"{name} has no address")


def test_launch_says_what_it_does(lxc: Lxc, image: str) -> None:
    done = lxc.run("launch", image, "said")
    try:
        assert done.returncode == 0, done.stderr
        assert "Creating said" in done.stdout and "Starting said" in done.stdout
        assert lxc.status("said") == "RUNNING"
    finally:
        lxc.run("delete", "--force", "said")


def test_list(lxc: Lxc, running: str) -> None:
    assert address(lxc, running).endswith("(eth0)")
    row = lxc("list", f"^{running}$", "-f", "csv", "-c", "nstSP").strip()
    assert row == f"{running},RUNNING,CONTAINER,0,default"
    (found,) = json.loads(lxc("list", f"^{running}$", "-f", "json"))
    assert found["status"] == "Running" and found["state"]["pid"] > 0
    assert found["state"]["network"]["eth0"]["hwaddr"] == found["config"]["volatile.eth0.hwaddr"]
    assert f"name: {running}" in lxc("list", running, "-f", "yaml")
    assert f"| {running} " in lxc("list")
    assert lxc("list", "^no-such$", "-f", "csv") == ""
    assert lxc("list", "status=stopped", f"^{running}$", "-f", "csv") == ""


@pytest.mark.parametrize("column", list("46abcdDefFlmMnNpPsStu"))
def test_list_columns(lxc: Lxc, running: str, column: str) -> None:
    lxc("list", "-f", "csv", "-c", f"n{column}")


def test_info(lxc: Lxc, running: str) -> None:
    text = lxc("info", running)
    for line in (f"Name: {running}", "Status: RUNNING", "Type: container", "PID: ", "Processes: "):
        assert line in text
    assert "Memory (current)" in text and "eth0:" in text and "lo:" in text
    text = lxc("info", running, "--show-log")
    assert "Log:" in text


def test_init_start_stop(lxc: Lxc, instance: Make) -> None:
    name = instance("still", "-c", "user.k=v", "-c", "limits.memory=64MiB", verb="init")
    assert lxc.status(name) == "STOPPED"
    assert lxc("config", "get", name, "user.k").strip() == "v"
    lxc("start", name)
    assert lxc.status(name) == "RUNNING"
    assert "already running" in lxc.refused("start", name)
    lxc("stop", name, "--force")
    assert lxc.status(name) == "STOPPED"
    assert "already stopped" in lxc.refused("stop", name)


def test_clean_stop_and_restart(lxc: Lxc, instance: Make) -> None:
    name = instance("clean")
    first = lxc.query(f"/1.0/instances/{name}/state")["pid"]
    lxc("restart", name, "--timeout", "20")
    second = lxc.query(f"/1.0/instances/{name}/state")["pid"]
    assert 0 < first != second > 0
    lxc("restart", name, "--force")
    assert lxc.query(f"/1.0/instances/{name}/state")["pid"] not in (first, second, 0)
    lxc("stop", name, "--timeout", "20")
    assert lxc.status(name) == "STOPPED"


def test_pause(lxc: Lxc, instance: Make) -> None:
    name = instance("paused")
    lxc("pause", name)
    assert lxc.status(name) == "FROZEN"
    assert "frozen" in lxc.refused("exec", name, "--", "true").lower()
    lxc("start", name)
    assert lxc.status(name) == "RUNNING"
    lxc("exec", name, "--", "true")


def test_rename(lxc: Lxc, instance: Make) -> None:
    name = instance("before")
    assert "running" in lxc.refused("rename", name, "after").lower()
    lxc("exec", name, "--", "sh", "-c", "echo kept >/root/file")
    lxc("stop", name, "--force")
    lxc("rename", name, "after")
    try:
        assert "not found" in lxc.refused("info", name).lower()
        lxc("start", "after")
        assert lxc("exec", "after", "--", "cat", "/root/file").strip() == "kept"
    finally:
        lxc("delete", "--force", "after")


def test_delete(lxc: Lxc, instance: Make) -> None:
    name = instance("doomed")
    assert "running" in lxc.refused("delete", name).lower()
    lxc("delete", "--force", name)
    for words in (("info",), ("start",), ("stop",), ("delete",), ("config", "show")):
        assert "not found" in lxc.refused(*words, name).lower()


def test_protection(lxc: Lxc, instance: Make) -> None:
    name = instance("kept", "-c", "security.protection.delete=true", verb="init")
    assert "protected" in lxc.refused("delete", name).lower()
    lxc("config", "unset", name, "security.protection.delete")
    lxc("delete", name)


def test_ephemeral(lxc: Lxc, instance: Make) -> None:
    name = instance("fleeting", "--ephemeral")
    lxc("stop", "--force", name)
    for _ in range(50):
        if lxc.run("info", name).returncode:
            return
        time.sleep(0.1)
    raise AssertionError("it is still there")


def test_copy(lxc: Lxc, instance: Make, image: str) -> None:
    name = instance("model", "-c", "user.k=v", verb="init")
    lxc("copy", name, "copied")
    try:
        assert lxc("config", "get", "copied", "user.k").strip() == "v"
        assert lxc.status("copied") == "STOPPED"
        lxc("start", "copied")
        assert lxc("exec", "copied", "--", "hostname").strip() == "copied"
    finally:
        lxc("delete", "--force", "copied")


def test_several_at_once(lxc: Lxc, instance: Make) -> None:
    names = [instance(f"many{n}", verb="init") for n in range(3)]
    lxc("start", *names)
    assert [lxc.status(name) for name in names] == ["RUNNING"] * 3
    lxc("stop", "--force", *names)
    lxc("delete", *names)


def test_bad_names(lxc: Lxc, image: str, running: str) -> None:
    assert "already" in lxc.refused("init", image, running)
    assert "invalid" in lxc.refused("init", image, "no_underscore").lower()
    assert "not found" in lxc.refused("init", "no-such-image", "fine").lower()
    assert "profile" in lxc.refused("init", image, "fine", "-p", "no-such-profile").lower()
    lxc.refused("info", "fine")


def test_limits_while_running(lxc: Lxc, instance: Make) -> None:
    name = instance("limited")
    lxc("config", "set", name, "limits.memory=64MiB", "limits.cpu=1", "limits.processes=50")
    assert lxc("config", "get", name, "limits.memory").strip() == "64MiB"
    grown = "head -c 200m /dev/zero | tail"
    assert lxc.run("exec", name, "--", "sh", "-c", grown).returncode != 0
    lxc("config", "set", name, "limits.memory", "1GiB")
    assert lxc.run("exec", name, "--", "sh", "-c", grown).returncode == 0
    lxc("config", "unset", name, "limits.memory")
    assert lxc("config", "get", name, "limits.memory").strip() == ""
    assert 'limits.cpu: "1"' in lxc("config", "show", name)


def test_bad_config(lxc: Lxc, running: str) -> None:
    cases = {
        "no.such.key=1": "unknown configuration key",
        "limits.memory=lots": "invalid",
        "security.nesting=maybe": "invalid",
        "limits.cpu=x-y": "invalid",
    }
    for setting, word in cases.items():
        assert word in lxc.refused("config", "set", running, setting).lower()


def test_config_edit(lxc: Lxc, instance: Make) -> None:
    name = instance("edited", "-c", "user.k=one", verb="init")
    text = lxc("config", "show", name)
    lxc("config", "edit", name, input=text.replace("user.k: one", "user.k: two"))
    assert lxc("config", "get", name, "user.k").strip() == "two"


def test_devices(lxc: Lxc, instance: Make, tmp_path: Path) -> None:
    name = instance("devices", verb="init")
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "file").write_text("from the host\n")
    lxc("config", "device", "add", name, "shared", "disk", f"source={shared}", "path=/mnt/shared")
    assert lxc("config", "device", "list", name).split() == ["shared"]
    lxc("start", name)
    assert lxc("exec", name, "--", "cat", "/mnt/shared/file") == "from the host\n"
    lxc("stop", "--force", name)
    lxc("config", "device", "remove", name, "shared")
    assert lxc("config", "device", "list", name).strip() == ""
    assert "unsupported" in lxc.refused("config", "device", "add", name, "x", "toaster").lower()
