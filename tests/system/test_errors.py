"""Bad input: the right status, a text that names the object, and nothing left behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support import leaks
from tests.support.api import ApiError
from tests.support.daemon import Daemon
from tests.support.fixtures import Launch, change

NAMES = ["", "-a", "a-", "a_b", "a b", "a/b", "..", "1abc", "a" * 64, "ä", "a.b", "x\0y", "a\nb"]


def refused(daemon: Daemon, method: str, url: str, body: object = None) -> ApiError:
    """The error of a request that must not succeed, at once or in its operation."""
    with pytest.raises(ApiError) as error:
        daemon.api.call(method, url, body)
    return error.value


def create_refused(daemon: Daemon, image: str, **fields: Any) -> ApiError:
    source = {"type": "image", "alias": image}
    return refused(
        daemon, "POST", "/1.0/instances", {"name": daemon.name(), "source": source, **fields}
    )


@pytest.mark.parametrize("name", NAMES[1:])
def test_bad_names(daemon: Daemon, tiny: str, launch: Launch, name: str) -> None:
    error = create_refused(daemon, tiny, name=name)
    assert error.status == 400 and "name" in error.text.lower()
    existing = launch(start=False)
    assert refused(daemon, "POST", f"/1.0/instances/{existing}", {"name": name}).status == 400


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 400),
        (b'"text"', 400),
        (b'{"name": 5}', 400),
        (b"\xff", 400),
        (b"[" * 200_000, 400),
        (b'{"a":' * 200_000, 400),
    ],
)
def test_bad_bodies(daemon: Daemon, body: bytes, status: int) -> None:
    for url in ("/1.0/instances", "/1.0/profiles", "/1.0/networks", "/1.0/storage-pools"):
        found, _, data = daemon.api.raw("POST", url, body, {"Content-Type": "application/json"})
        assert found == status, (url, data)
        assert b'"type":"error"' in data.replace(b" ", b"")


def test_nulls_count_as_left_out(daemon: Daemon) -> None:
    body = {"name": "nulls", "description": None, "config": {"user.a": None, "user.b": "c"}}
    daemon.api.post("/1.0/profiles", body)
    found = daemon.api.get("/1.0/profiles/nulls")
    daemon.api.delete("/1.0/profiles/nulls")
    assert (found["description"], found["config"]) == ("", {"user.b": "c"})


def test_duplicate(daemon: Daemon, tiny: str, launch: Launch) -> None:
    name = launch()
    error = create_refused(daemon, tiny, name=name)
    assert "already" in error.text
    assert daemon.out(name, "echo", "unharmed") == "unharmed"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"profiles": ["none-such"]}, ("profile", "none-such")),
        ({"profiles": []}, ("root",)),
        ({"config": {"no.such.key": "1"}}, ("no.such.key",)),
        ({"config": {"security.nesting": "maybe"}}, ("security.nesting",)),
        ({"config": {"limits.memory": "lots"}}, ("limits.memory",)),
        ({"config": {"volatile.idmap.base": "x"}}, ("volatile.idmap.base",)),
        ({"devices": {"x": {"type": "toaster"}}}, ("toaster",)),
        ({"devices": {"x": {"type": "disk", "path": "/mnt"}}}, ("source",)),
        ({"devices": {"x": {"type": "disk", "path": "/m", "source": "rel"}}}, ("rel",)),
        ({"devices": {"x": {"type": "disk", "path": "/m", "source": "/none/such"}}}, ("/none",)),
        ({"devices": {"root": {"type": "disk", "path": "/", "pool": "none-such"}}}, ("none-such",)),
        ({"devices": {"eth0": {"type": "nic", "network": "nonesuch"}}}, ("nonesuch",)),
        (
            {
                "devices": {
                    "eth0": {"type": "nic", "nictype": "bridged", "parent": "x", "bogus": "1"}
                }
            },
            ("bogus",),
        ),
        ({"type": "virtual-machine"}, ()),
        ({"source": {"type": "magic"}}, ("magic",)),
        ({"source": {"type": "image", "alias": "none-such"}}, ("not found",)),
        ({"source": {"type": "image", "fingerprint": "0" * 64}}, ("image",)),
        ({"source": {"type": "copy", "source": "none-such"}}, ("not found",)),
    ],
    ids=str,
)
def test_bad_instances(
    daemon: Daemon, tiny: str, fields: dict[str, Any], words: tuple[str, ...]
) -> None:
    before = leaks.take(daemon)
    error = create_refused(daemon, tiny, **fields)
    assert 400 <= error.status < 500 or error.status in (500, 501)
    for word in words:
        assert word.lower() in error.text.lower()
    assert "Traceback" not in error.text and len(error.text) > 10
    leaks.check(daemon, before)


def test_unknown_objects(daemon: Daemon) -> None:
    urls = (
        *("instances/none-such", "instances/none-such/state", "instances/none-such/console"),
        *("instances/none-such/logs", "profiles/none-such", "networks/nonesuch"),
        *("storage-pools/none-such", f"images/{'0' * 64}", "images/aliases/none-such"),
        *("none-such", "instances/", "instances/a%2Fb"),
    )
    for url in urls:
        status, _, data = daemon.api.raw("GET", f"/1.0/{url}")
        assert status in (400, 404), (url, data)
        assert b"error" in data
    for method, url in (("DELETE", "/1.0/instances"), ("PATCH", "/1.0/operations")):
        assert daemon.api.raw(method, url)[0] in (404, 405, 501)


def test_unknown_instance_for_every_verb(daemon: Daemon) -> None:
    url = "/1.0/instances/none-such"
    requests = (
        ("PUT", url, {"config": {}}),
        ("PATCH", url, {"config": {}}),
        ("POST", url, {"name": "other"}),
        ("DELETE", url, None),
        ("PUT", f"{url}/state", {"action": "start"}),
        ("POST", f"{url}/exec", {"command": ["true"]}),
    )
    for method, target, body in requests:
        error = refused(daemon, method, target, body)
        assert error.status == 404 and "not found" in error.text.lower(), (method, target)


def test_bad_changes_change_nothing(daemon: Daemon, launch: Launch) -> None:
    name = launch()
    url = f"/1.0/instances/{name}"
    before = daemon.api.get(url)
    gone = {"type": "disk", "path": "/mnt", "source": "/none/such"}
    for body in (
        {"config": {"no.such.key": "1"}},
        {"config": {"limits.memory": "lots"}},
        {"devices": {"x": {"type": "toaster"}}},
        {"devices": {"x": gone}},
        {"profiles": ["none-such"]},
    ):
        refused(daemon, "PATCH", url, body)
        refused(daemon, "PUT", url, {**before, **body})
        assert daemon.api.get(url) == before
    assert daemon.out(name, "echo", "unharmed") == "unharmed"


def test_start_that_cannot_work_leaves_it_stopped(
    daemon: Daemon, launch: Launch, tmp_path: Path
) -> None:
    """The disk's source went away after the instance was made."""
    source = tmp_path / "gone"
    source.mkdir()
    disk = {"type": "disk", "source": str(source), "path": "/mnt"}
    name = launch(start=False, devices={"data": disk})
    source.rmdir()
    before = leaks.take(daemon)
    with pytest.raises(ApiError, match="gone"):
        change(daemon, name, "start")
    assert daemon.status(name) == "Stopped" and daemon.init_pid(name) == 0
    leaks.check(daemon, before)
    source.mkdir()
    change(daemon, name, "start")
    assert daemon.out(name, "echo", "again") == "again"


def test_rootfs_without_init(daemon: Daemon, launch: Launch) -> None:
    name = launch()
    daemon.exec(name, "rm", "/sbin/init")
    change(daemon, name, "stop")
    before = leaks.take(daemon)
    with pytest.raises(ApiError, match="(?i)init"):
        change(daemon, name, "start")
    assert daemon.status(name) == "Stopped"
    leaks.check(daemon, before)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("start", "none-such"), 1),
        (("exec", "none-such", "--", "true"), 1),
        (("launch", "none-such-image", "fine"), 1),
        (("config", "set", "none-such", "user.k", "v"), 1),
        (("no-such-verb",), 1),
        (("list", "--no-such-flag"), 1),
    ],
    ids=str,
)
def test_the_command_line_fails_with_a_message(
    daemon: Daemon, words: tuple[str, ...], code: int
) -> None:
    done = daemon.lxpy(*words, check=False)
    assert done.returncode == code
    assert "Error" in done.stderr and "Traceback" not in done.stderr
