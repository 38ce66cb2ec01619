"""pylxd, unchanged, drives the daemon: the Python scripts people have."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import wait_until
from tests.support.tls import free_port, self_signed
from tests.support.websocket import WebSocket

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


def test_interactive_command(lxd_directory: Path, machine: Any) -> None:
    """What `raw_interactive_execute` returns are the websockets of a terminal."""
    urls = machine.raw_interactive_execute(["sh", "-c", "read a; echo got $a; tty"])
    socket = lxd_directory / "unix.socket"
    with WebSocket(socket, urls["control"]), WebSocket(socket, urls["ws"]) as terminal:
        terminal.send(b"typed\n")
        seen = b""
        while b"/dev/pts/" not in seen:
            frame = terminal.receive()
            assert isinstance(frame, bytes), seen
            seen += frame
    assert b"got typed" in seen


def test_publish(client: Any, machine: Any) -> None:
    machine.execute(["sh", "-c", "echo published > /root/published"])
    snapshot = machine.snapshots.create("py-source", stateful=False, wait=True)
    made = snapshot.publish(wait=True)
    try:
        made.add_alias("py-published", "")
        copy = client.instances.create(config("py-from-image", "py-published"), wait=True)
        assert copy.files.get("/root/published") == b"published\n"
        copy.delete(wait=True)
        assert made.export().read(2) in (b"\x1f\x8b", b"(\xb5", b"\xfd7")
    finally:
        made.delete(wait=True)
        snapshot.delete(wait=True)


@pytest.fixture
def remote(
    client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Any]]:
    """Clients over HTTPS, which alone pylxd lets migrate; `project` is whose."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):  # which win over verify=False
        monkeypatch.delenv(name, raising=False)
    server = client.api.get().json()["metadata"]["config"].get("core.https_address")
    address = server or f"127.0.0.1:{free_port()}"
    if not server:
        client.api.patch(json={"config": {"core.https_address": address}})
    pem = tmp_path / "client.pem"
    text = self_signed(pem, "pylxd")
    made = client.certificates.create(password="", cert_data=text.encode(), name="pylxd")
    yield lambda **words: pylxd.Client(
        endpoint=f"https://{address}", cert=(str(pem), str(pem)), verify=False, **words
    )
    made.delete()
    if not server:
        client.api.patch(json={"config": {"core.https_address": ""}})


def test_migrate(client: Any, image: str, remote: Callable[..., Any]) -> None:
    """From one project into another, as if those were two servers."""
    features = {"features.images": "false", "features.profiles": "false"}
    project = client.projects.create("py-project", config=features)
    source, target = remote(), remote(project="py-project")
    try:
        moved = source.instances.create(config("py-moved", image), wait=True)
        moved.files.put("/root/kept", b"kept")
        moved.migrate(target, wait=True)
        wait_until(lambda: not source.instances.exists("py-moved"))  # pylxd does not
        arrived = target.instances.get("py-moved")
        assert arrived.files.get("/root/kept") == b"kept"
        arrived.start(wait=True)
        arrived.stop(force=True, wait=True)
    finally:
        for each in (source, target):
            if each.instances.exists("py-moved"):
                each.instances.get("py-moved").delete(wait=True)
        project.delete()
