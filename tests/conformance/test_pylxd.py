"""pylxd, unchanged, drives the daemon: the Python scripts people have."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pylxd = pytest.importorskip("pylxd")

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def client(lxd_directory: Path) -> Any:
    """A pylxd client on the unix socket."""
    return pylxd.Client(endpoint=str(lxd_directory / "unix.socket"))


def config(name: str, alias: str, **more: Any) -> dict[str, Any]:
    """What pylxd's users pass to create."""
    return {"name": name, "source": {"type": "image", "alias": alias}, **more}


@pytest.fixture(scope="module")
def machine(client: Any, image: str) -> Iterator[Any]:
    """A running instance."""
    made = client.instances.create(config("py-machine", image), wait=True)
    made.start(wait=True)
    yield made
    made.stop(force=True, wait=True)
    made.delete(wait=True)


def test_server(client: Any) -> None:
    assert client.trusted
    assert client.api.get().json()["metadata"]["api_version"] == "1.0"
    assert client.has_api_extension("instances")


def test_snapshots(client: Any, machine: Any) -> None:
    machine.execute(["sh", "-c", "echo one > /root/file"])
    made = machine.snapshots.create("py-snap", stateful=False, wait=True)
    assert made.name == "py-snap" and made.stateful is False
    assert [each.name for each in machine.snapshots.all()] == ["py-snap"]
    machine.execute(["sh", "-c", "echo two > /root/file"])
    machine.restore_snapshot("py-snap", wait=True)
    assert machine.execute(["cat", "/root/file"]).stdout == "one\n"
    made.rename("py-other", wait=True)
    other = machine.snapshots.get("py-other")
    source = {"type": "copy", "source": "py-machine/py-other"}
    copied = client.instances.create({"name": "py-copied", "source": source}, wait=True)
    copied.delete(wait=True)
    other.delete(wait=True)
    assert machine.snapshots.all() == []


def test_life(client: Any, image: str) -> None:
    made = client.instances.create(config("py-life", image, config={"user.k": "v"}), wait=True)
    try:
        assert client.instances.exists("py-life")
        assert made.status == "Stopped" and made.config["user.k"] == "v"
        made.start(wait=True)
        assert client.instances.get("py-life").status == "Running"
        made.freeze(wait=True)
        assert client.instances.get("py-life").status == "Frozen"
        made.unfreeze(wait=True)
        made.restart(force=True, wait=True)
        made.stop(force=True, wait=True)
        made.rename("py-renamed", wait=True)
        assert not client.instances.exists("py-life")
    finally:
        left = {i.name: i for i in client.instances.all()}
        for name in ("py-life", "py-renamed"):
            if name in left:
                if left[name].status != "Stopped":
                    left[name].stop(force=True, wait=True)
                left[name].delete(wait=True)


def test_execute(machine: Any) -> None:
    code, out, err = machine.execute(["sh", "-c", "echo out; echo err >&2; exit 3"])
    assert (code, out, err) == (3, "out\n", "err\n")
    code, out, _ = machine.execute(["sh", "-c", "echo $A"], environment={"A": "b"})
    assert (code, out) == (0, "b\n")
    code, out, _ = machine.execute(["cat"], stdin_payload="piped")
    assert (code, out) == (0, "piped")


def test_state(machine: Any) -> None:
    state = machine.state()
    assert state.status == "Running" and state.pid > 0 and state.processes > 0
    assert state.network["lo"]["type"] == "loopback"
    assert state.memory["usage"] > 0 and state.cpu["usage"] > 0


def test_save(client: Any, machine: Any) -> None:
    machine.sync()
    machine.config["user.saved"] = "yes"
    machine.save(wait=True)
    assert client.instances.get(machine.name).config["user.saved"] == "yes"
    machine.description = "described"
    machine.save(wait=True)
    assert client.instances.get(machine.name).description == "described"


def test_instance_that_is_not_there(client: Any) -> None:
    with pytest.raises(pylxd.exceptions.NotFound):
        client.instances.get("no-such")
    with pytest.raises(pylxd.exceptions.LXDAPIException, match="(?i)invalid"):
        client.instances.create(config("no_such", "conformance"), wait=True)


def test_images(client: Any, image: str) -> None:
    found = client.images.get_by_alias(image)
    assert found.properties["os"] == "Busybox"
    assert found.fingerprint in {i.fingerprint for i in client.images.all()}
    found.add_alias("py-alias", "by pylxd")
    assert client.images.exists("py-alias", alias=True)
    found.delete_alias("py-alias")
    assert not client.images.exists("py-alias", alias=True)


def test_profiles(client: Any) -> None:
    made = client.profiles.create("py-profile", config={"user.k": "v"})
    try:
        made.config["user.k"] = "w"
        made.save()
        assert client.profiles.get("py-profile").config["user.k"] == "w"
    finally:
        made.delete()
    assert not client.profiles.exists("py-profile")


def test_networks(client: Any) -> None:
    settings = {"ipv4.address": "10.213.9.1/24", "ipv4.nat": "false", "ipv6.address": "none"}
    made = client.networks.create("lxpynet0", type="bridge", config=settings)
    try:
        assert made.managed and made.config["ipv4.address"] == "10.213.9.1/24"
        made.config["ipv4.nat"] = "true"
        made.save()
        assert client.networks.get("lxpynet0").config["ipv4.nat"] == "true"
    finally:
        made.delete()


def test_storage_pools(client: Any) -> None:
    assert "default" in {pool.name for pool in client.storage_pools.all()}
    made = client.storage_pools.create({"name": "py-pool", "driver": "dir"})
    try:
        assert made.resources.get().space["total"] > 0
    finally:
        made.delete()


def test_events(client: Any, machine: Any) -> None:
    stream = client.events(event_types={pylxd.EventType.Lifecycle})
    stream.connect()
    listener = threading.Thread(target=stream.run, daemon=True)
    listener.start()
    machine.sync()
    machine.config["user.event"] = "yes"
    machine.save(wait=True)
    for _ in range(100):
        if stream.messages:
            break
        time.sleep(0.05)
    stream.close()
    listener.join(10)
    actions = [message["metadata"]["action"] for message in stream.messages]
    assert "instance-updated" in actions


def test_files(machine: Any, tmp_path: Path) -> None:
    files = machine.files
    (tmp_path / "tree/sub").mkdir(parents=True)
    (tmp_path / "tree/sub/file").write_text("deep")
    (tmp_path / "tree/sub/file").chmod(0o640)
    files.put("/root/one", b"content", mode=0o600, uid=7)
    assert files.get("/root/one") == b"content"
    assert machine.execute(["stat", "-c", "%a %u", "/root/one"])[1] == "600 7\n"
    files.mk_dir("/root/d", mode="0711")
    files.recursive_put(str(tmp_path / "tree"), "/root/tree", mode=True)
    assert machine.execute(["stat", "-c", "%a", "/root/tree/sub/file"])[1] == "640\n"
    files.recursive_get("/root/tree", str(tmp_path / "back"))
    assert (tmp_path / "back/sub/file").read_text() == "deep"
    assert files.delete_available()
    files.delete("/root/one")
    with pytest.raises(pylxd.exceptions.LXDAPIException):
        files.delete("/root/one")
