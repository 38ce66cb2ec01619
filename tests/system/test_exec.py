"""Commands in an instance through the REST API: websockets, terminals, recorded output."""

from __future__ import annotations

import random
import signal
import time

import pytest

from tests.support import execution
from tests.support.api import ApiError
from tests.support.daemon import Daemon
from tests.support.fixtures import Launch
from tests.support.processes import wait_until

MIB = 1024**2


def running(daemon: Daemon, name: str, word: str) -> bool:
    """Whether a process with `word` in its command line runs inside."""
    script = f"ps | grep -v grep | grep -q {word}"
    return daemon.exec(name, "sh", "-c", script, check=False).returncode == 0


def test_streams_and_exit_code(daemon: Daemon, launch: Launch) -> None:
    name = launch()
    done = execution.run(daemon.api, name, "sh", "-c", "cat; echo err >&2; exit 7", stdin=b"in\n")
    assert (done.code, done.stdout, done.stderr) == (7, b"in\n", b"err\n")
    assert done.operation["class"] == "websocket" and done.operation["status_code"] == 200
    assert done.operation["description"] == "Executing command"
    assert done.operation["metadata"]["command"][:2] == ["sh", "-c"]


@pytest.mark.parametrize(
    ("command", "code", "text"),
    [
        (("no-such-command",), 127, "not found"),
        (("/no/such/path",), 127, "not found"),
        (("/etc/passwd",), 126, "not executable"),
        (("/etc",), 126, "not executable"),
    ],
)
def test_what_cannot_be_run(
    daemon: Daemon, launch: Launch, command: tuple[str, ...], code: int, text: str
) -> None:
    with execution.start(daemon.api, launch(), *command) as streams:
        operation = streams.wait()
    assert operation["metadata"]["return"] == code
    assert operation["status_code"] == 400 and text in operation["err"].lower()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_killed_by_a_signal(daemon: Daemon, launch: Launch, number: int) -> None:
    done = execution.run(daemon.api, launch(), "sh", "-c", f"kill -{int(number)} $$")
    assert done.code == 128 + number


def test_environment(daemon: Daemon, launch: Launch) -> None:
    name = launch(config={"environment.A": "config", "environment.B": "config"})
    shown = execution.run(daemon.api, name, "env", environment={"B": "request"}).stdout.decode()
    values = dict(line.split("=", 1) for line in shown.splitlines())
    assert values["A"] == "config" and values["B"] == "request"
    assert values["HOME"] == "/root" and values["USER"] == "root" and values["LANG"] == "C.UTF-8"
    assert values["PATH"].split(":")[:2] == ["/usr/local/sbin", "/usr/local/bin"]
    assert set(values) <= {"A", "B", "HOME", "USER", "LANG", "PATH", "TERM", "PWD", "container"}


def test_user_group_directory(daemon: Daemon, launch: Launch) -> None:
    name = launch()

    def out(script: str, **fields: object) -> str:
        return execution.run(daemon.api, name, "sh", "-c", script, **fields).stdout.decode().strip()

    assert out("pwd") == "/root"
    assert out("id -u; id -g; id -G", user=1000, group=1000) == "1000\n1000\n1000"
    assert out("pwd", cwd="/etc") == "/etc"


def test_megabytes_both_ways(daemon: Daemon, launch: Launch) -> None:
    data = random.Random(1).randbytes(8 * MIB)
    done = execution.run(daemon.api, launch(), "cat", stdin=data)
    assert done.code == 0 and done.stdout == data


def test_output_before_the_end_is_whole(daemon: Daemon, launch: Launch) -> None:
    name = launch()
    for _ in range(5):
        script = "head -c 300000 /dev/zero; head -c 200000 /dev/zero >&2; exit 3"
        done = execution.run(daemon.api, name, "sh", "-c", script)
        assert (done.code, len(done.stdout), len(done.stderr)) == (3, 300000, 200000)


def test_a_reader_that_sleeps_stops_nobody_else(daemon: Daemon, launch: Launch) -> None:
    name = launch()
    with execution.start(daemon.api, name, "sh", "-c", "yes | head -c 50000000") as slow:
        begin = time.monotonic()
        assert execution.run(daemon.api, name, "echo", "quick").stdout == b"quick\n"
        assert time.monotonic() - begin < 5
        slow.signal(signal.SIGKILL)
    wait_until(lambda: not running(daemon, name, "yes"), 10, "its end")


def test_background_processes_do_not_hold_it(daemon: Daemon, launch: Launch) -> None:
    script = "sleep 1000 >/dev/null 2>&1 </dev/null & echo started"
    begin = time.monotonic()
    assert execution.run(daemon.api, launch(), "sh", "-c", script).stdout == b"started\n"
    assert time.monotonic() - begin < 10


def test_terminal(daemon: Daemon, launch: Launch) -> None:
    name = launch()
    fields = {"interactive": True, "width": 101, "height": 33, "environment": {"TERM": "xterm"}}
    with execution.start(daemon.api, name, "sh", **fields) as shell:
        assert set(shell.secrets) == {"0", "control"}
        shell.type("stty size; tty; echo $TERM; echo err >&2\n")
        seen = shell.read_until("err\r\n")
        assert "33 101" in seen and "/dev/pts/" in seen and "xterm" in seen
        shell.resize(80, 25)
        shell.type("stty size; echo re''sized\n")
        assert "25 80" in shell.read_until("resized")
        shell.type("sleep 600\n")
        wait_until(lambda: running(daemon, name, "sleep"), 5, "sleep")
        shell.type("\x03")
        shell.type("echo interrupted-$?\n")
        shell.read_until("interrupted-130")
        shell.type("exit 5\n")
        shell.rest()
        assert shell.wait()["metadata"]["return"] == 5


def test_terminal_output_before_exit_is_whole(daemon: Daemon, launch: Launch) -> None:
    name = launch()
    script = "stty -opost; head -c 500000 /dev/zero; echo; echo last"
    for _ in range(3):
        with execution.start(daemon.api, name, "sh", "-c", script, interactive=True) as one:
            data = one.rest()
        assert data.endswith(b"last\n") and data.count(b"\0") == 500000


def test_signals_through_control(daemon: Daemon, launch: Launch) -> None:
    name = launch()
    script = "trap 'echo usr1; exit 4' USR1; echo ready; while :; do sleep 0.1; done"
    with execution.start(daemon.api, name, "sh", "-c", script) as command:
        assert command.sockets["1"].receive() == b"ready\n"
        command.signal(signal.SIGUSR1)
        assert command.rest("1") == b"usr1\n"
        assert command.wait()["metadata"]["return"] == 4


def test_loss_of_control_kills(daemon: Daemon, launch: Launch) -> None:
    name = launch()
    for interactive in (False, True):
        command = execution.start(
            daemon.api, name, "sh", "-c", "trap '' HUP TERM; sleep 1234", interactive=interactive
        )
        wait_until(lambda: running(daemon, name, "1234"), 5, "the command")
        for socket in command.sockets.values():
            socket.abort()
        assert command.wait()["metadata"].get("return") != 0
        wait_until(lambda: not running(daemon, name, "trap"), 5, "its end")
        daemon.exec(name, "sh", "-c", "pkill -9 sleep", check=False)


def test_control_is_not_needed(daemon: Daemon, launch: Launch) -> None:
    """Old clients open the three data sockets only."""
    command = execution.start(daemon.api, launch(), "cat", connect=False)
    with command:
        command.connect("0", "1", "2")
        command.type("text")
        command.sockets["0"].send("")
        assert command.rest("1") == b"text" and command.rest("2") == b""
        assert command.wait()["metadata"]["return"] == 0


def test_sockets_that_never_come(daemon: Daemon, launch: Launch) -> None:
    command = execution.start(daemon.api, launch(), "true", connect=False)
    with command:
        command.connect("1", "2", "control")
        begin = time.monotonic()
        operation = command.wait()
    assert 3 < time.monotonic() - begin < 10
    assert operation["status_code"] == 400 and "Timed out waiting" in operation["err"]


def test_secrets_are_checked(daemon: Daemon, launch: Launch) -> None:
    command = execution.start(daemon.api, launch(), "true", connect=False)
    with command:
        command.secrets["0"] = "0" * 64
        with pytest.raises(ApiError) as refused:
            command.connect("0")
        assert refused.value.status == 403
        command.wait()


def test_recorded_output(daemon: Daemon, launch: Launch) -> None:
    name = launch()
    script = "echo out; echo err >&2; exit 2"
    metadata = execution.record(daemon.api, name, "sh", "-c", script)["metadata"]
    assert metadata["return"] == 2
    texts = [daemon.api.raw("GET", metadata["output"][number])[2] for number in ("1", "2")]
    assert texts == [b"out\n", b"err\n"]
    logs = daemon.api.get(f"/1.0/instances/{name}/logs")
    assert set(metadata["output"].values()) <= set(logs)
    for url in metadata["output"].values():
        daemon.api.delete(url)
        assert daemon.api.raw("GET", url)[0] == 404


def test_without_sockets_or_record(daemon: Daemon, launch: Launch) -> None:
    body = {"command": ["sh", "-c", "cat; echo lost; exit 6"]}
    done = daemon.api.post(f"/1.0/instances/{launch()}/exec", body)
    assert done["class"] == "task" and done["metadata"]["return"] == 6


@pytest.mark.parametrize("command", [[], [""]])
def test_no_command(daemon: Daemon, launch: Launch, command: list[str]) -> None:
    with pytest.raises(ApiError):
        daemon.api.post(f"/1.0/instances/{launch()}/exec", {"command": command})


def test_many_at_once(daemon: Daemon, launch: Launch) -> None:
    name = launch()
    crowd = [execution.start(daemon.api, name, "sh", "-c", f"echo {n}") for n in range(30)]
    for number, one in enumerate(crowd):
        with one:
            assert one.rest("1") == f"{number}\n".encode()
            assert one.wait()["metadata"]["return"] == 0
