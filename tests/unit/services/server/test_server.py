"""The server: its config, its environment, the projects that it has."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from lxpy.api import server as api
from lxpy.api.extensions import EXTENSIONS
from lxpy.db.engine import Database
from lxpy.db.upgrade import upgrade
from lxpy.errors import InvalidConfig, PreconditionFailed
from lxpy.events.bus import Bus
from lxpy.events.lifecycle import Lifecycle
from lxpy.operations.registry import Registry
from lxpy.services.instances.store import InstanceStore
from lxpy.services.locks import Locks
from lxpy.services.projects.scopes import Scopes
from lxpy.services.server.certificate import ServerCertificate
from lxpy.services.server.keys import PASSWORD, checked
from lxpy.services.server.server import Server
from lxpy.services.server.settings import Settings
from lxpy.services.server.warnings import Warnings
from lxpy.services.storage.own_volumes import OwnVolumes
from lxpy.services.storage.pools import Pools
from lxpy.threads import in_thread


def anything(_: object) -> None:
    """Accept every version."""


@pytest.fixture
def opened(tmp_path: Path) -> Database:
    upgrade(tmp_path / "lxpy.db")
    return Database(f"sqlite+aiosqlite:///{tmp_path / 'lxpy.db'}")


@pytest.fixture
async def db(opened: Database) -> AsyncIterator[Database]:
    yield opened
    await opened.close()


@pytest.fixture
async def settings(db: Database) -> Settings:
    made = Settings(db)
    await made.load()
    return made


@pytest.fixture
async def server(db: Database, settings: Settings, tmp_path: Path) -> Server:
    lifecycle = Lifecycle(Bus())
    pools = Pools(db, tmp_path / "pools", InstanceStore(db, Scopes(db)), Locks(), lifecycle)
    await pools.ensure_default("default")
    await pools.start()
    certificate = ServerCertificate(tmp_path)
    await in_thread(certificate.load)
    volumes = OwnVolumes(
        db, pools, Locks(), Registry(Bus()),
        images=tmp_path / "images", backups=tmp_path / "backups",
    )  # fmt: skip
    return Server(db, settings, pools, lifecycle, certificate, volumes, Warnings())


async def test_what_clients_read(server: Server) -> None:
    found, _ = await server.get("default")
    data = msgspec.to_builtins(found)
    assert (data["auth"], data["api_version"], data["public"]) == ("trusted", "1.0", False)
    environment = data["environment"]
    assert environment["server"] == "lxd" and environment["server_version"] == "5.0.2"
    assert environment["storage"] == "dir" and environment["storage_version"] == "1"
    drivers = environment["storage_supported_drivers"]
    assert {"Name": "dir", "Version": "1", "Remote": False} in drivers
    assert {"dir", "btrfs"} <= {each["Name"] for each in drivers}
    for features in ("kernel_features", "lxc_features"):
        assert set(environment[features].values()) <= {"true", "false"}
    assert data["api_extensions"] == list(EXTENSIONS)


async def test_config(server: Server, settings: Settings, db: Database) -> None:
    await server.put(api.ServerPut(config={"user.a": "1", "core.shutdown_timeout": 7}), anything)
    await server.patch(api.ServerPut(config={"user.b": "2", "user.a": ""}), anything)
    assert settings.all() == {"user.b": "2", "core.shutdown_timeout": "7"}
    again = Settings(db)
    await again.load()
    assert again.get("user.b") == "2" and again.get("user.a", "none") == "none"


async def test_a_stale_version_changes_nothing(server: Server, settings: Settings) -> None:
    def stale(_: object) -> None:
        raise PreconditionFailed("ETag doesn't match")

    with pytest.raises(PreconditionFailed):
        await server.put(api.ServerPut(config={"user.a": "1"}), stale)
    assert settings.all() == {}


async def test_the_password_is_never_shown(server: Server, settings: Settings) -> None:
    await server.put(api.ServerPut(config={PASSWORD: "secret"}), anything)
    kept = settings.get(PASSWORD)
    assert "secret" not in kept and len(kept) == 64 + 1 + 128
    found, writable = await server.get("default")
    assert found.config == {PASSWORD: True}
    assert writable == {PASSWORD: "true"}
    # What clients send back after a look changes nothing.
    await server.put(api.ServerPut(config={**found.config, "user.a": "1"}), anything)
    assert settings.get(PASSWORD) == kept
    await server.patch(api.ServerPut(config={PASSWORD: ""}), anything)
    assert settings.all() == {"user.a": "1"}


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("bogus.key", "1", "cannot set 'bogus.key' to '1': unknown key"),
        ("core.shutdown_timeout", "soon", "cannot set 'core.shutdown_timeout' to 'soon': Invalid"),
        ("core.https_trusted_proxy", "10.0.0.1", "from the connection alone"),
        ("cluster.https_address", ":8443", "no clusters"),
        ("core.proxy_http", "nowhere", "write a URL"),
        ("images.servers", "example", "begins with http://"),
        ("images.compression_algorithm", "zip", "use one of bzip2"),
    ],
)
def test_what_is_refused(key: str, value: str, words: str) -> None:
    with pytest.raises(InvalidConfig, match=words):
        checked({key: value}, {})


@pytest.mark.parametrize(
    "config",
    [
        {"images.servers": "https://one.example/x, http://two.example"},
        {"images.mirror.debian": "http://mirror.example/debian"},
        {"backups.compression_algorithm": "zstd -9"},
        {"images.auto_update_cached": False},
    ],
)
def test_what_is_taken(config: dict[str, object]) -> None:
    (found,) = checked(config, {}).values()
    assert found


async def test_resources_have_no_null_where_clients_look_for_lists(server: Server) -> None:
    data = msgspec.to_builtins(await server.resources())
    assert data["cpu"]["total"] >= 1 and data["memory"]["total"] > data["memory"]["used"] > 0
    for kind, name in {
        "gpu": "cards", "network": "cards", "storage": "disks", "usb": "devices", "pci": "devices",
    }.items():  # fmt: skip
        assert len(data[kind][name]) == data[kind]["total"]
    assert data["system"]["type"] in ("physical", "virtual-machine", "container")
