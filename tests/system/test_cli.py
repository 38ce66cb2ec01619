"""The command line against the daemon, without and with a terminal."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import Daemon
from tests.support.fixtures import Launch
from tests.support.processes import wait_until
from tests.support.terminal import Terminal


def terminal(daemon: Daemon, *words: str, rows: int = 24, columns: int = 80) -> Terminal:
    """Start lxpy on a terminal."""
    argv = [daemon.commands / "lxpy", *words]
    return Terminal(argv, daemon.environment, rows=rows, columns=columns)


@pytest.fixture
def running(launch: Launch) -> str:
    """A running instance."""
    return launch()


def refused(daemon: Daemon, *words: str, status: int = 1) -> str:
    """Run lxpy, which must fail with an error; its text."""
    done = daemon.lxpy(*words, check=False)
    assert done.returncode == status, done
    assert done.stderr.startswith("Error: ") or "\nError: " in done.stderr
    return done.stderr


# -- exec


def test_exec_on_a_terminal(daemon: Daemon, running: str) -> None:
    with terminal(daemon, "exec", running, "--", "sh", rows=33, columns=101) as user:
        user.read_until("#")
        user.type("stty size; tty\n")
        assert "33 101" in user.read_until("/dev/pts/")
        user.resize(44, 111)
        time.sleep(0.3)
        user.type("stty size; echo re''sized\n")
        assert "44 111" in user.read_until("resized")
        user.type("sleep 100\n")
        time.sleep(0.5)
        user.type("\x03")
        user.type("echo inter''rupted $?\n")
        user.read_until("interrupted 130")
        user.type("exit 5\n")
        assert user.wait() == 5
        assert user.settings == user.before


def test_terminal_is_restored_when_the_daemon_goes(own_daemon: Daemon, busybox_image: Path) -> None:
    own_daemon.lxpy("image", "import", busybox_image, "--alias", "tiny")
    own_daemon.lxpy("launch", "tiny", "c1")
    with terminal(own_daemon, "exec", "c1", "--", "sh") as user:
        user.read_until("#")
        own_daemon.kill()
        assert user.wait() == 1
        assert user.settings == user.before
    own_daemon.start()


def test_exit_status(daemon: Daemon, running: str) -> None:
    for code in (0, 1, 7, 255):
        done = daemon.exec(running, "sh", "-c", f"exit {code}", check=False)
        assert done.returncode == code
    assert daemon.exec(running, "sh", "-c", "kill -9 $$", check=False).returncode == 137
    missing = daemon.exec(running, "no-such-command", check=False)
    assert (missing.returncode, missing.stderr) == (127, "Error: Command not found\n")
    assert daemon.exec(running, "/etc/passwd", check=False).returncode == 126


def test_streams(daemon: Daemon, running: str) -> None:
    done = daemon.exec(running, "sh", "-c", "echo out; echo err >&2")
    assert (done.stdout, done.stderr) == ("out\n", "err\n")
    assert daemon.exec(running, "cat", input="piped\n").stdout == "piped\n"
    done = daemon.lxpy("exec", running, "-n", "--", "cat", input="not read\n")
    assert done.stdout == ""


def test_ten_megabytes_there_and_back(daemon: Daemon, running: str, tmp_path: Path) -> None:
    data = os.urandom(10 * 1024**2)
    (tmp_path / "in").write_bytes(data)
    argv = [daemon.commands / "lxpy", "exec", running, "--", "cat"]
    with (tmp_path / "in").open("rb") as file, (tmp_path / "out").open("wb") as out:
        subprocess.run(argv, env=daemon.environment, stdin=file, stdout=out, check=True, timeout=60)
    assert hashlib.sha256((tmp_path / "out").read_bytes()).digest() == hashlib.sha256(data).digest()
    done = subprocess.run(argv, env=daemon.environment, input=data, capture_output=True, timeout=60)
    assert done.stdout == data


def test_reader_that_leaves(daemon: Daemon, running: str) -> None:
    command = f"{daemon.commands}/lxpy exec {running} -- yes | head -n 1"
    done = daemon.run("sh", "-c", command, timeout=20)
    assert (done.stdout, done.stderr) == ("y\n", "")
    wait_until(lambda: "yes" not in daemon.out(running, "ps"), 10, "end of yes")


def test_options(daemon: Daemon, running: str) -> None:
    def out(*words: str) -> str:
        return daemon.lxpy("exec", running, *words).stdout

    assert out("--env", "A=b c", "--env", "D=e", "--", "sh", "-c", "echo $A$D") == "b ce\n"
    assert out("--cwd", "/etc", "--", "pwd") == "/etc\n"
    assert (
        out("--user", "1000", "--group", "100", "--", "sh", "-c", "id -u; id -g") == "1000\n100\n"
    )
    assert "pts" in out("-t", "--", "tty") or "console" in out("-t", "--", "tty")
    with terminal(daemon, "exec", running, "-T", "--", "tty") as user:
        user.read_until("not a tty")
        assert user.wait() == 1


def test_signals_reach_the_command(daemon: Daemon, running: str) -> None:
    script = "trap 'echo got-int; exit 3' INT; echo ready; while :; do sleep 0.1; done"
    client = subprocess.Popen(
        [daemon.commands / "lxpy", "exec", running, "--", "sh", "-c", script],
        env=daemon.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert client.stdout is not None and client.stdout.readline() == "ready\n"
    client.send_signal(signal.SIGINT)
    assert client.communicate(timeout=15)[0] == "got-int\n"
    assert client.returncode == 3


def test_shell(daemon: Daemon, running: str) -> None:
    with terminal(daemon, "shell", running) as user:
        user.read_until("#")
        user.type("exit 4\n")
        assert user.wait() == 4


# -- console


def test_console(daemon: Daemon, running: str) -> None:
    with terminal(daemon, "console", running) as user:
        user.read_until("ctrl")
        daemon.exec(running, "sh", "-c", "echo hello-console >/dev/console")
        user.read_until("hello-console")
        user.type("\x01")
        time.sleep(0.1)
        user.type("q")
        assert user.wait() == 0
        assert user.settings == user.before
    assert daemon.status(running) == "Running"
    assert "hello-console" in daemon.lxpy("console", running, "--show-log").stdout


# -- from the image to the end


def test_life(daemon: Daemon, tiny: str) -> None:
    name = daemon.name()
    done = daemon.lxpy("launch", tiny, name, "-c", "user.a=b", "-d", "eth0,name=eth0")
    assert done.stdout == f"Creating {name}\nStarting {name}\n"
    assert daemon.lxpy("config", "get", name, "user.a").stdout == "b\n"
    assert daemon.lxpy("list", f"^{name}$", "-c", "ns", "-f", "csv").stdout == f"{name},RUNNING\n"
    assert refused(daemon, "delete", name) == (
        "Error: The instance is currently running, stop it first or pass --force\n"
    )
    daemon.lxpy("pause", name)
    assert daemon.status(name) == "Frozen"
    daemon.lxpy("start", name)
    daemon.lxpy("pause", name)
    daemon.lxpy("resume", name)
    assert daemon.status(name) == "Running"
    daemon.lxpy("restart", "--force", name)
    daemon.lxpy("stop", name)
    assert "already stopped" in refused(daemon, "stop", name)
    daemon.lxpy("rename", name, f"{name}-b")
    daemon.lxpy("move", f"{name}-b", name)
    daemon.lxpy("delete", name)
    assert "not found" in refused(daemon, "info", name)


def test_generated_name(daemon: Daemon, tiny: str) -> None:
    lines = daemon.lxpy("init", tiny).stdout.splitlines()
    assert lines[0] == "Creating the instance"
    name = lines[1].removeprefix("Instance name is: ")
    assert daemon.status(name) == "Stopped"
    daemon.lxpy("delete", name)


def test_definition_on_stdin(daemon: Daemon, tiny: str) -> None:
    name = daemon.name()
    text = "config:\n  user.flag: true\n  limits.processes: 50\ndescription: from stdin\n"
    daemon.lxpy("init", tiny, name, "--ephemeral=false", input=text)
    found = daemon.api.get(f"/1.0/instances/{name}")
    assert found["config"]["user.flag"] == "true"
    assert found["config"]["limits.processes"] == "50"
    assert (found["description"], found["ephemeral"]) == ("from stdin", False)
    daemon.lxpy("delete", name)


def test_several_at_once(daemon: Daemon, launch: Launch) -> None:
    names = [launch(start=False) for _ in range(3)]
    daemon.lxpy("start", *names)
    assert [daemon.status(name) for name in names] == ["Running"] * 3
    text = refused(daemon, "start", "nowhere", *names)
    assert "nowhere: error: Instance not found" in text
    assert "Error: Some instances failed to start" in text
    daemon.lxpy("stop", "--force", *names)
    assert refused(daemon, "delete", names[0], "nowhere")
    assert daemon.status(names[0]) == "Stopped", "nothing half done"
    daemon.lxpy("delete", *names)


def test_config_and_devices(daemon: Daemon, running: str, tmp_path: Path) -> None:
    daemon.lxpy("config", "set", running, "user.a=1", "user.b=2")
    daemon.lxpy("config", "set", running, "user.c", "three = 3")
    assert daemon.lxpy("config", "get", running, "user.c").stdout == "three = 3\n"
    daemon.lxpy("config", "unset", running, "user.a")
    assert "not currently set" in refused(daemon, "config", "unset", running, "user.a")
    shown = daemon.lxpy("config", "show", running).stdout
    assert '  user.b: "2"\n' in shown
    daemon.lxpy("config", "edit", running, input=shown.replace('user.b: "2"', "user.b: 4"))
    assert daemon.lxpy("config", "get", running, "user.b").stdout == "4\n"
    add = ("config", "device", "add", running, "d1", "disk", f"source={tmp_path}", "path=/mnt")
    assert daemon.lxpy(*add).stdout == f"Device d1 added to {running}\n"
    assert "already exists" in refused(daemon, *add)
    assert daemon.lxpy("config", "device", "get", running, "d1", "path").stdout == "/mnt\n"
    assert daemon.lxpy("config", "device", "list", running).stdout == "d1\n"
    daemon.lxpy("config", "device", "remove", running, "d1")
    assert "Unknown configuration key" in refused(daemon, "config", "set", running, "no.such=1")


def test_profiles(daemon: Daemon, running: str) -> None:
    assert daemon.lxpy("profile", "create", "cli-p").stdout == "Profile cli-p created\n"
    try:
        daemon.lxpy("profile", "set", "cli-p", "user.x=1")
        daemon.lxpy("profile", "add", running, "cli-p")
        assert daemon.lxpy("config", "get", running, "-e", "user.x").stdout == "1\n"
        done = daemon.lxpy("profile", "assign", running, "default")
        assert done.stdout == f"Profiles default applied to {running}\n"
        assert "cli-p," in daemon.lxpy("profile", "list", "-f", "csv").stdout
    finally:
        daemon.lxpy("profile", "delete", "cli-p")


def test_images(daemon: Daemon, tiny: str, busybox_image: Path, tmp_path: Path) -> None:
    daemon.lxpy("image", "export", tiny, tmp_path / "out")
    assert (tmp_path / "out.tar.gz").read_bytes() == busybox_image.read_bytes()
    assert f"\n| {tiny} " in daemon.lxpy("image", "list").stdout
    daemon.lxpy("image", "alias", "create", "cli-a", _fingerprint(daemon, tiny))
    assert "cli-a," in daemon.lxpy("image", "alias", "list", "-f", "csv").stdout
    daemon.lxpy("image", "alias", "delete", "cli-a")
    assert "exists" in refused(daemon, "image", "import", str(busybox_image))
    assert "Image not found" in refused(daemon, "image", "info", "nowhere")


def _fingerprint(daemon: Daemon, alias: str) -> str:
    return daemon.lxpy("image", "list", alias, "-c", "F", "-f", "csv").stdout.strip()


# -- lists, events, errors


def test_lists(daemon: Daemon, running: str) -> None:
    address = daemon.address(running)
    table = daemon.lxpy("list", running).stdout.splitlines()
    assert table[0].startswith("+--") and "|  STATE  |" in table[1]
    assert table[3].startswith(f"| {running} ") and f"| {address} (eth0) |" in table[3]
    assert daemon.lxpy("list", running, "-c", "ns4", "-f", "csv").stdout == (
        f"{running},RUNNING,{address} (eth0)\n"
    )
    (found,) = json.loads(daemon.lxpy("list", running, "-f", "json").stdout)
    assert found["name"] == running and found["state"]["pid"] > 0
    assert f"name: {running}\n" in daemon.lxpy("list", running, "-f", "yaml").stdout
    assert f"  {running} " in daemon.lxpy("list", "--fast", "-f", "compact").stdout
    every = daemon.lxpy("list", running, "-c", "nsacPtbdDelmMNpu46SfF", "-f", "csv").stdout
    assert every.startswith(f"{running},RUNNING,")
    assert running not in daemon.lxpy("list", "status=stopped").stdout
    assert "Unknown column" in refused(daemon, "list", "-c", "z")
    assert 'Invalid format "x"' in refused(daemon, "list", "-f", "x")


@pytest.mark.parametrize("noun", ["network", "storage", "profile", "image", "operation"])
def test_every_list_has_every_format(daemon: Daemon, tiny: str, noun: str) -> None:
    for form in ("table", "compact", "csv", "json", "yaml"):
        daemon.lxpy(noun, "list", "-f", form)
    assert isinstance(json.loads(daemon.lxpy(noun, "list", "-f", "json").stdout), list)


@pytest.fixture
def watcher(daemon: Daemon) -> Iterator[subprocess.Popen[str]]:
    """`lxpy monitor`, connected."""
    process = subprocess.Popen(
        [daemon.commands / "lxpy", "monitor", "--type", "lifecycle", "--format", "json"],
        env=daemon.environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    time.sleep(1)
    yield process
    process.kill()
    process.communicate()


def test_monitor(daemon: Daemon, watcher: subprocess.Popen[str]) -> None:
    daemon.lxpy("profile", "create", "cli-m")
    daemon.lxpy("profile", "delete", "cli-m")
    assert watcher.stdout is not None
    events = [json.loads(watcher.stdout.readline()) for _ in range(2)]
    assert [e["metadata"]["action"] for e in events] == ["profile-created", "profile-deleted"]
    watcher.send_signal(signal.SIGINT)
    assert watcher.wait(10) == 130


def test_errors(daemon: Daemon, tiny: str) -> None:
    assert "Invalid instance name" in refused(daemon, "launch", tiny, "0bad")
    assert "Image not found" in refused(daemon, "launch", "nowhere", "c-e")
    assert 'The remote "nowhere" doesn\'t exist' in refused(daemon, "launch", "nowhere:x", "c-e")
    assert "unknown flag: --nothing" in refused(daemon, "launch", tiny, "c-e", "--nothing")
    assert "Invalid number of arguments" in refused(daemon, "exec", "c-e")
    assert 'unknown command "nothing" for "lxpy"' in refused(daemon, "nothing")
    assert "unknown shorthand flag: 'l' in -l" in refused(daemon, "exec", "c-e", "ls", "-l")
    assert "not running" in refused(daemon, "exec", _stopped(daemon, tiny), "--", "true")
    assert "c-e" not in daemon.instances()


def _stopped(daemon: Daemon, image: str) -> str:
    name = daemon.name()
    daemon.lxpy("init", image, name)
    return name


def test_no_daemon(daemon: Daemon, tmp_path: Path) -> None:
    path = tmp_path / "unix.socket"
    done = daemon.lxpy("list", env={"LXPY_DIR": str(tmp_path)}, check=False)
    assert done.returncode == 1
    assert f"Error: Cannot reach lxpyd at {path}: No such file" in done.stderr
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    (deep / "unix.socket").symlink_to(daemon.socket)
    assert daemon.lxpy("list", env={"LXPY_DIR": str(deep)}).returncode == 0


def test_query(daemon: Daemon) -> None:
    assert json.loads(daemon.lxpy("query", "/1.0").stdout)["auth"] == "trusted"
    body = json.dumps({"name": "cli-q"})
    daemon.lxpy("query", "-X", "POST", "-d", body, "/1.0/profiles")
    assert "/1.0/profiles/cli-q" in daemon.lxpy("query", "/1.0/profiles").stdout
    assert daemon.lxpy("query", "-X", "DELETE", "/1.0/profiles/cli-q").stdout == ""
    assert "not found" in refused(daemon, "query", "/1.0/nowhere").lower()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(daemon: Daemon, shell: str, tmp_path: Path) -> None:
    script = tmp_path / "completion"
    script.write_text(daemon.lxpy("completion", shell).stdout)
    assert "_LXPY_COMPLETE" in script.read_text()
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    daemon.run(shell, "-n", script)


def test_completion_knows_instances(daemon: Daemon, running: str) -> None:
    asked = {"COMP_WORDS": f"lxpy stop {running[:1]}", "COMP_CWORD": "2"}
    done = daemon.lxpy(env={"_LXPY_COMPLETE": "bash_complete", **asked})
    assert f"plain,{running}\n" in done.stdout
