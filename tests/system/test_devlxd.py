"""/dev/lxd: what instances ask their host, and are told."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from lxpy.services.memory.criu import PREFIX
from tests.support.daemon import Daemon
from tests.support.fixtures import Launch, change, create, import_image
from tests.support.hosted import HOSTED, launch_hosted, python
from tests.support.processes import wait_until
from tests.support.websocket import WebSocket

CURL = ("/usr/bin/curl", "-s", "--max-time", "20", "--unix-socket", "/dev/lxd/sock")

#: opens as many connections as it may, keeps them, and tells how many there are
FLOOD = """
import socket
held = []
for _ in range(150):
    one = socket.socket(socket.AF_UNIX)
    one.connect("/dev/lxd/sock")
    held.append(one)
open_ = 0
for one in held:
    one.settimeout(0.5)
    try:
        one.sendall(b"GET /1.0 HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
        open_ += one.recv(4096).startswith(b"HTTP/1.1 200")
    except OSError:
        pass
print(open_)
"""


def ask(daemon: Daemon, name: str, path: str, *options: str) -> tuple[int, str]:
    """Ask from inside; the status and the text of the answer."""
    words = (*CURL, "-w", "\n%{http_code}", *options, f"lxd{path}")
    text, _, status = daemon.exec(name, *words).stdout.rpartition("\n")
    return int(status), text


def asked(daemon: Daemon, name: str, path: str) -> Any:
    status, text = ask(daemon, name, path)
    assert status == 200, text
    return json.loads(text)


def configure(daemon: Daemon, name: str, config: dict[str, str]) -> None:
    daemon.api.patch(f"/1.0/instances/{name}", {"config": config})


@pytest.fixture
def guest(daemon: Daemon, launch: Launch) -> str:
    config = {"user.foo": "bar", "user.meta-data": "a: b", "cloud-init.user-data": "#cloud-config"}
    return launch_hosted(launch, config=config)


def test_what_it_is_told_of_itself(daemon: Daemon, guest: str) -> None:
    assert asked(daemon, guest, "/") == ["/1.0"]
    assert asked(daemon, guest, "/1.0") == {
        "api_version": "1.0", "instance_type": "container", "location": "none", "state": "Started",
    }  # fmt: skip
    assert sorted(asked(daemon, guest, "/1.0/config")) == [
        "/1.0/config/cloud-init.user-data", "/1.0/config/user.foo", "/1.0/config/user.meta-data",
    ]  # fmt: skip
    assert ask(daemon, guest, "/1.0/config/user.foo") == (200, "bar")
    assert ask(daemon, guest, "/1.0/config/cloud-init.user-data") == (200, "#cloud-config")
    config = daemon.api.get(f"/1.0/instances/{guest}")["config"]
    assert ask(daemon, guest, "/1.0/meta-data") == (
        200,
        f"#cloud-config\ninstance-id: {config['volatile.cloud-init.instance-id']}\n"
        f"local-hostname: {guest}\na: b",
    )
    devices = asked(daemon, guest, "/1.0/devices")
    assert devices["usr"] == HOSTED["usr"]
    assert devices["eth0"]["hwaddr"] == config["volatile.eth0.hwaddr"]
    for path, status, text in (
        ("/1.0/config/user.nope", 404, "not found\n"),
        ("/1.0/config/limits.memory", 403, "not authorized\n"),
        ("/1.0/config/volatile.uuid", 403, "not authorized\n"),
        ("/1.0/images/0123456789ab/export", 403, "not authorized\n"),
        ("/1.0/nope", 404, "404 page not found\n"),
        ("/1.0/", 404, "404 page not found\n"),
    ):
        assert ask(daemon, guest, path) == (status, text), path
    places = daemon.out(guest, "ls", "-la", "/dev/lxd").splitlines()
    assert places[-1].startswith("srw-rw-rw-") and places[-1].endswith(" sock")
    mount = daemon.out(guest, "grep", " /dev/lxd ", "/proc/mounts")
    assert " ro,nosuid,nodev,noexec" in mount


def test_only_its_root_may_ask(daemon: Daemon, guest: str) -> None:
    words = (*CURL, "-w", "%{http_code}", "lxd/1.0")
    done = daemon.lxpy("exec", guest, "--user", "1000", "--", *words)
    assert done.stdout == "Access denied for non-root user\n401"
    # Nor does anybody on the host, who is in no instance.
    socket = daemon.directory / "devlxd/sock"
    done = subprocess.run(
        ["curl", "-s", "-w", "%{http_code}", "--unix-socket", socket, "lxd/1.0"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "pid not in container?\n500"


def test_each_sees_its_own(daemon: Daemon, guest: str, launch: Launch) -> None:
    other = launch_hosted(launch, config={"user.foo": "other", "security.privileged": "true"})
    assert ask(daemon, other, "/1.0/config/user.foo") == (200, "other")
    assert ask(daemon, guest, "/1.0/config/user.foo") == (200, "bar")


def test_it_tells_that_it_is_ready(daemon: Daemon, guest: str) -> None:
    def say(text: str) -> tuple[int, str]:
        return ask(daemon, guest, "/1.0", "-X", "PATCH", "-d", text)

    def kept() -> str | None:
        config = daemon.api.get(f"/1.0/instances/{guest}")["config"]
        return config.get("volatile.last_state.ready")  # type: ignore[no-any-return]

    assert kept() is None
    with WebSocket(Path(daemon.socket), "/1.0/events?type=lifecycle") as socket:
        assert say('{"state": "Ready"}') == (200, "")
        actions = [each["metadata"]["action"] for each in socket.objects(1)]
    assert "instance-ready" in actions
    assert daemon.status(guest) == "Ready" and daemon.state(guest)["status_code"] == 113
    assert asked(daemon, guest, "/1.0")["state"] == "Ready"
    assert say('{"state": "Foo"}') == (400, 'Invalid instance state "Foo"\n')
    assert say("{")[0] == 400
    assert daemon.status(guest) == "Ready"
    daemon.lxpy("pause", guest)
    assert daemon.status(guest) == "Frozen"
    daemon.lxpy("start", guest)
    assert daemon.status(guest) == "Ready"
    assert say('{"state": "Started"}') == (200, "")
    assert daemon.status(guest) == "Running" and kept() == "false"
    say('{"state": "Ready"}')
    assert kept() == "true"
    change(daemon, guest, "restart", force=True)
    assert daemon.status(guest) == "Running" and kept() == "false"
    say('{"state": "Ready"}')
    change(daemon, guest, "stop")
    assert kept() == "false"


def test_events(daemon: Daemon, guest: str, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    words = (daemon.commands / "lxpy", "exec", guest, "--", *CURL, "-N", "lxd/1.0/events")
    with seen.open("wb") as output:
        watching = subprocess.Popen(words, env=daemon.environment, stdout=output)
    try:
        # It listens when an event has come.
        def begun() -> bool:
            configure(daemon, guest, {"user.count": str(time.monotonic_ns())})
            return seen.stat().st_size > 0

        wait_until(begun, 20)
        configure(daemon, guest, {"user.foo": "baz", "limits.processes": "500"})
        configure(daemon, guest, {"user.foo": ""})
        disk = {"type": "disk", "source": "/mnt", "path": "/mnt"}
        path = f"/1.0/instances/{guest}"
        devices = daemon.api.get(path)["devices"]
        body = daemon.api.get(path)
        for wanted in ({"d": disk}, {"d": disk | {"path": "/mnt2"}}, {}):
            daemon.api.put(path, {**body, "devices": devices | wanted})
        wait_until(lambda: seen.read_text().count('"removed"') == 2, 20)
    finally:
        watching.terminate()
        watching.wait(10)
    events = [json.loads(line) for line in seen.read_text().splitlines()]
    told = [(each["type"], each["metadata"]) for each in events]
    told = [each for each in told if each[1].get("key") != "user.count"]
    assert told == [
        ("config", {"key": "user.foo", "old_value": "bar", "value": "baz"}),
        ("config", {"key": "user.foo", "old_value": "baz", "value": ""}),
        ("device", {"action": "added", "name": "d", "config": disk}),
        ("device", {"action": "removed", "name": "d", "config": disk}),
        ("device", {"action": "added", "name": "d", "config": disk | {"path": "/mnt2"}}),
        ("device", {"action": "removed", "name": "d", "config": disk | {"path": "/mnt2"}}),
    ]
    assert set(events[0]) == {"type", "timestamp", "metadata"}


def test_events_on_a_websocket(daemon: Daemon, guest: str) -> None:
    listen = """
import socket, sys
s = socket.socket(socket.AF_UNIX); s.settimeout(20); s.connect("/dev/lxd/sock")
s.sendall(b"GET /1.0/events?type=config HTTP/1.1\\r\\nHost: lxd\\r\\nConnection: Upgrade\\r\\n"
          b"Upgrade: websocket\\r\\nSec-WebSocket-Version: 13\\r\\n"
          b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\\r\\n\\r\\n")
print(s.recv(4096).split(b"\\r\\n")[0].decode(), flush=True)
frame = s.recv(65536)
print(frame[frame.index(b"{"):].decode(), flush=True)
"""
    words = (daemon.commands / "lxpy", "exec", guest, "--", "/usr/bin/python3", "-c", listen)
    with subprocess.Popen(
        words, env=daemon.environment, stdout=subprocess.PIPE, text=True
    ) as watching:
        assert watching.stdout is not None
        assert watching.stdout.readline() == "HTTP/1.1 101 Switching Protocols\n"
        configure(daemon, guest, {"user.foo": "new"})
        event = json.loads(watching.stdout.readline())
        assert event["metadata"] == {"key": "user.foo", "old_value": "bar", "value": "new"}


def test_it_can_be_switched_off(daemon: Daemon, guest: str, launch: Launch) -> None:
    """At once, again and again, and for good."""

    def there() -> bool:
        return not daemon.exec(guest, "test", "-S", "/dev/lxd/sock", check=False).returncode

    for _ in range(2):
        configure(daemon, guest, {"security.devlxd": "false"})
        assert not there()
        configure(daemon, guest, {"security.devlxd": ""})
        configure(daemon, guest, {"security.devlxd": "true"})
        assert ask(daemon, guest, "/1.0")[0] == 200
        options = daemon.out(guest, "grep", " /dev/lxd ", "/proc/mounts").split()
        assert len(options) == 6 and {"ro", "nosuid", "nodev", "noexec"} <= {*options[3].split(",")}
    configure(daemon, guest, {"security.devlxd": "false"})
    change(daemon, guest, "restart", force=True)
    assert not there()
    configure(daemon, guest, {"security.devlxd": "true"})
    assert ask(daemon, guest, "/1.0")[0] == 200
    change(daemon, guest, "restart", force=True)
    assert ask(daemon, guest, "/1.0")[0] == 200


def test_images(daemon: Daemon, guest: str, tiny: str) -> None:
    fingerprint = daemon.api.get(f"/1.0/images/aliases/{tiny}")["target"]
    path = f"/1.0/images/{fingerprint}/export"
    configure(daemon, guest, {"security.devlxd.images": "true"})
    assert ask(daemon, guest, path) == (404, "Image not found\n")  # neither public nor cached
    daemon.api.patch(f"/1.0/images/{fingerprint}", {"public": True})
    try:
        program = f"{' '.join(CURL)} lxd{path} | sha256sum"
        assert daemon.out(guest, "sh", "-c", program).split()[0] == fingerprint
    finally:
        daemon.api.patch(f"/1.0/images/{fingerprint}", {"public": False})


def test_a_new_daemon_answers_those_that_run(own_daemon: Daemon, busybox_image: Path) -> None:
    import_image(own_daemon, busybox_image, "tiny")
    name = create(own_daemon, "tiny", devices=HOSTED, config={"user.foo": "bar"})
    change(own_daemon, name, "start")
    assert ask(own_daemon, name, "/1.0/config/user.foo") == (200, "bar")
    own_daemon.kill()
    own_daemon.start()
    assert ask(own_daemon, name, "/1.0/config/user.foo") == (200, "bar")
    own_daemon.restart()
    assert ask(own_daemon, name, "/1.0/config/user.foo") == (200, "bar")


def test_one_instance_does_not_keep_others_from_it(
    daemon: Daemon, guest: str, launch: Launch
) -> None:
    other = launch_hosted(launch)
    before = len(list(Path(f"/proc/{daemon.pid}/fd").iterdir()))
    assert int(python(daemon, guest, FLOOD)) == 100
    hold = FLOOD.replace("print(open_)", "print(open_, flush=True); import time; time.sleep(60)")
    words = (daemon.commands / "lxpy", "exec", guest, "--", "/usr/bin/python3", "-c", hold)
    with subprocess.Popen(
        words, env=daemon.environment, stdout=subprocess.PIPE, text=True
    ) as flooding:
        try:
            assert flooding.stdout is not None and int(flooding.stdout.readline()) == 100
            assert ask(daemon, other, "/1.0")[0] == 200
            assert daemon.api.get("/1.0")["auth"] == "trusted"
            held = len(list(Path(f"/proc/{daemon.pid}/fd").iterdir()))
            assert held <= before + 110
        finally:
            flooding.terminate()
    wait_until(lambda: ask(daemon, guest, "/1.0")[0] == 200, 20)


def test_long_values_wait_for_their_readers(daemon: Daemon, guest: str) -> None:
    long = "é" * (2 << 20)
    configure(daemon, guest, {"user.long": long})
    assert ask(daemon, guest, "/1.0/config/user.long") == (200, long)
    program = """
import socket, time
held = []
for _ in range(90):
    s = socket.socket(socket.AF_UNIX); s.connect("/dev/lxd/sock")
    s.sendall(b"GET /1.0/config/user.long HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
    held.append(s)
time.sleep(3)
print("held")
"""
    before = resident_kib(daemon)
    assert python(daemon, guest, program) == "held"
    assert resident_kib(daemon) < before + 100_000  # not 90 times four megabytes and more
    configure(daemon, guest, {"user.long": ""})


def resident_kib(daemon: Daemon) -> int:
    lines = Path(f"/proc/{daemon.pid}/status").read_text().splitlines()
    return int(next(each for each in lines if each.startswith("VmHWM")).split()[1])


def test_large_and_broken_requests(daemon: Daemon, guest: str) -> None:
    program = """
import socket
for data in (b"\\0" * 100000, b"GET /" + b"a" * 100000 + b" HTTP/1.1\\r\\n\\r\\n",
             b"PATCH /1.0 HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: 99999999\\r\\n\\r\\n"):
    s = socket.socket(socket.AF_UNIX); s.settimeout(20); s.connect("/dev/lxd/sock")
    try:
        s.sendall(data)
        for _ in range(1000):
            s.sendall(b"x" * 65536)
    except OSError:
        pass
    s.close()
print("done")
"""
    before = resident_kib(daemon)
    assert python(daemon, guest, program) == "done"
    assert ask(daemon, guest, "/1.0")[0] == 200
    assert resident_kib(daemon) < before + 60_000


HOLD = """
import socket, time
s = socket.socket(socket.AF_UNIX); s.connect("/dev/lxd/sock")
s.sendall(b"GET /1.0/events HTTP/1.1\\r\\nHost: lxd\\r\\n\\r\\n"); s.recv(1)
open("/tmp/listening", "w").close()
s.settimeout(60)
try:
    while s.recv(4096): pass
    end = "end"
except OSError as error:
    end = repr(error)
open("/tmp/ended", "w").write(end)
time.sleep(600)
"""


@pytest.mark.skipif(not Path(PREFIX, "bin/criu").exists(), reason="needs CRIU (packaging/criu.sh)")
def test_memory_is_saved_with_an_open_connection(daemon: Daemon, guest: str) -> None:
    for way in ("stop", "snapshot"):
        program = f"setsid /usr/bin/python3 -I -S -c '{HOLD}' </dev/null >/dev/null 2>&1 &"
        daemon.exec(guest, "sh", "-c", f"rm -f /tmp/listening /tmp/ended; {program}")
        wait_until(lambda: "listening" in daemon.out(guest, "ls", "/tmp"), 20)
        if way == "stop":
            daemon.lxpy("stop", guest, "--stateful")
            daemon.lxpy("start", guest)
        else:
            daemon.lxpy("snapshot", guest, "s1", "--stateful")
            assert ask(daemon, guest, "/1.0")[0] == 200
            daemon.lxpy("restore", guest, "s1", "--stateful")
        assert ask(daemon, guest, "/1.0/config/user.foo") == (200, "bar")
        wait_until(lambda: "ended" in daemon.out(guest, "ls", "/tmp"), 20)
        assert daemon.out(guest, "pgrep", "-f", "listening")  # it runs on and may connect again
        daemon.exec(guest, "pkill", "-f", "listening")
    # A twin is told of itself, and so is its source.
    twin = daemon.name()
    daemon.lxpy("fork", guest, twin)
    configure(daemon, twin, {"user.foo": "twin"})
    assert ask(daemon, twin, "/1.0/config/user.foo") == (200, "twin")
    assert ask(daemon, guest, "/1.0/config/user.foo") == (200, "bar")
    daemon.delete(twin)
    daemon.lxpy("stop", guest, "--stateful")
    configure(daemon, guest, {"security.devlxd": "false"})
    refused = daemon.lxpy("start", guest, check=False)
    assert refused.returncode and "security.devlxd=true" in refused.stderr
    daemon.lxpy("start", guest, "--stateless")
