"""LXD's client: pools, custom volumes, their snapshots, copies, and volumes in instances."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conformance.conftest import Lxc


@pytest.fixture(scope="module")
def pool(lxc: Lxc, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A pool of its own on a plain directory; deleted after the tests."""
    source = tmp_path_factory.mktemp("pool")
    lxc("storage", "create", "conf1", "dir", f"source={source}")
    yield "conf1"
    lxc("storage", "delete", "conf1")


@pytest.fixture
def volume(lxc: Lxc, pool: str) -> Iterator[Callable[..., str]]:
    """Create custom volumes; deleted after the test."""
    names: list[str] = []

    def make(name: str, *words: str) -> str:
        names.append(name)
        lxc("storage", "volume", "create", pool, name, *words)
        return name

    yield make
    for name in names:
        lxc.run("storage", "volume", "delete", pool, name)


def listed(lxc: Lxc, pool: str, columns: str = "tn") -> list[str]:
    """The custom volumes that `lxc storage volume list` shows."""
    shown = lxc("storage", "volume", "list", pool, "-c", columns, "-f", "csv")
    return [line for line in shown.splitlines() if line.startswith("custom")]


def test_pools(lxc: Lxc, pool: str) -> None:
    assert pool in lxc("storage", "list", "-f", "csv")
    assert "driver: dir" in lxc("storage", "show", pool)
    assert "total space" in lxc("storage", "info", pool)
    lxc("storage", "set", pool, "user.note", "some text")
    assert lxc("storage", "get", pool, "user.note").strip() == "some text"
    lxc("storage", "unset", pool, "user.note")
    assert lxc("storage", "get", pool, "user.note").strip() == ""
    shown = lxc("storage", "show", pool).replace('description: ""', "description: changed")
    lxc("storage", "edit", pool, input=shown)
    assert "description: changed" in lxc("storage", "show", pool)
    assert "not found" in lxc.refused("storage", "show", "none").lower()


def test_made_changed_renamed_deleted(lxc: Lxc, pool: str, volume: Callable[..., str]) -> None:
    volume("one", "user.x=1")
    assert "already exists" in lxc.refused("storage", "volume", "create", pool, "one")
    assert listed(lxc, pool) == ["custom,one"]
    assert 'user.x: "1"' in lxc("storage", "volume", "show", pool, "one")
    lxc("storage", "volume", "set", pool, "one", "user.y=2")
    assert lxc("storage", "volume", "get", pool, "one", "user.y").strip() == "2"
    lxc("storage", "volume", "unset", pool, "one", "user.x")
    shown = lxc("storage", "volume", "show", pool, "one")
    assert "user.x" not in shown
    lxc(
        "storage", "volume", "edit", pool, "one",
        input=shown.replace("description: \"\"", "description: changed"),
    )  # fmt: skip
    assert "description: changed" in lxc("storage", "volume", "show", pool, "one")
    lxc("storage", "volume", "rename", pool, "one", "two")
    assert listed(lxc, pool) == ["custom,two"]
    assert "Invalid option" in lxc.refused("storage", "volume", "set", pool, "two", "bogus=1")
    lxc("storage", "volume", "delete", pool, "two")
    assert "not found" in lxc.refused("storage", "volume", "delete", pool, "two").lower()


def test_content_types(lxc: Lxc, pool: str, volume: Callable[..., str]) -> None:
    volume("disk", "--type=block", "size=64MiB")
    assert listed(lxc, pool, "tnc") == ["custom,disk,block"]
    assert "Usage:" in (text := lxc("storage", "volume", "info", pool, "disk")), text
    volume("files")
    assert listed(lxc, pool, "tncu") == ["custom,disk,block,0", "custom,files,filesystem,0"]


def test_snapshots(lxc: Lxc, pool: str, volume: Callable[..., str]) -> None:
    name = volume("data", "snapshots.expiry=1d")
    lxc("storage", "volume", "snapshot", pool, name)
    lxc("storage", "volume", "snapshot", pool, name, "second", "--no-expiry")
    assert "already" in lxc.refused("storage", "volume", "snapshot", pool, name, "second")
    lxc("storage", "volume", "snapshot", pool, name, "second", "--reuse")
    shown = lxc("storage", "volume", "info", pool, name)
    assert "snap0" in shown and "second" in shown
    assert sorted(listed(lxc, pool, "tn")) == ["custom,data"] or sorted(listed(lxc, pool)) == [
        "custom (snapshot),data/second", "custom (snapshot),data/snap0", "custom,data",
    ]  # fmt: skip
    shown = lxc("storage", "volume", "show", pool, f"{name}/snap0")
    assert "expires_at: 20" in shown
    lxc(
        "storage", "volume", "edit", pool, f"{name}/snap0",
        input=shown.replace("description: \"\"", "description: changed"),
    )  # fmt: skip
    assert "description: changed" in lxc("storage", "volume", "show", pool, f"{name}/snap0")
    lxc("storage", "volume", "rename", pool, f"{name}/snap0", f"{name}/first")
    lxc("storage", "volume", "restore", pool, name, "first")
    assert "not found" in lxc.refused("storage", "volume", "restore", pool, name, "no").lower()
    lxc("storage", "volume", "delete", pool, f"{name}/first")
    assert "first" not in lxc("storage", "volume", "info", pool, name)


def test_copies_and_moves(lxc: Lxc, pool: str, volume: Callable[..., str]) -> None:
    volume("from", "user.x=1")
    lxc("storage", "volume", "snapshot", pool, "from", "s")
    lxc("storage", "volume", "copy", f"{pool}/from", f"{pool}/to")
    lxc("storage", "volume", "copy", f"{pool}/from/s", f"{pool}/then")
    lxc("storage", "volume", "copy", f"{pool}/from", "default/from", "--volume-only")
    lxc("storage", "volume", "copy", f"{pool}/from", "default/from", "--refresh")
    assert lxc("storage", "volume", "get", pool, "to", "user.x").strip() == "1"
    assert "s" in lxc("storage", "volume", "info", pool, "to")
    assert "already exists" in lxc.refused(
        "storage", "volume", "copy", f"{pool}/from", f"{pool}/to"
    )
    lxc("storage", "volume", "move", "default/from", f"{pool}/moved")
    lxc("storage", "volume", "move", f"{pool}/to", f"{pool}/to2")
    names = [line.split(",")[1] for line in listed(lxc, pool)]
    assert {"from", "moved", "then", "to2"} <= set(names) and "to" not in names
    assert not any("from" in line for line in listed(lxc, "default"))
    for name in ("moved", "then", "to2"):
        lxc("storage", "volume", "delete", pool, name)


def test_in_instances(lxc: Lxc, pool: str, volume: Callable[..., str], running: str) -> None:
    name = volume("shared")
    lxc("storage", "volume", "attach", pool, name, running, "/srv/shared")
    lxc("exec", running, "--", "sh", "-c", "echo text > /srv/shared/file")
    assert "still in use" in lxc.refused("storage", "volume", "delete", pool, name)
    assert listed(lxc, pool, "tnu") == ["custom,shared,1"]
    lxc("storage", "volume", "detach", pool, name, running)
    assert lxc.run("exec", running, "--", "test", "-e", "/srv/shared/file").returncode
    lxc("storage", "volume", "attach", pool, name, running, "dev", "/srv/other")
    assert lxc("exec", running, "--", "cat", "/srv/other/file").strip() == "text"
    lxc("storage", "volume", "detach", pool, name, running, "dev")


def test_in_profiles(lxc: Lxc, pool: str, volume: Callable[..., str], running: str) -> None:
    name = volume("ofprofile")
    lxc("profile", "create", "storage")
    lxc("storage", "volume", "attach-profile", pool, name, "storage", "/srv/profile")
    lxc("profile", "add", running, "storage")
    lxc("exec", running, "--", "touch", "/srv/profile/file")
    assert "still in use" in lxc.refused("storage", "volume", "delete", pool, name)
    lxc("storage", "volume", "detach-profile", pool, name, "storage")
    assert lxc.run("exec", running, "--", "test", "-e", "/srv/profile/file").returncode
    lxc("profile", "remove", running, "storage")
    lxc("profile", "delete", "storage")


def test_a_size(lxc: Lxc, pool: str, volume: Callable[..., str], running: str) -> None:
    name = volume("sized", "size=300MiB")
    lxc("storage", "volume", "attach", pool, name, running, "/srv/sized")
    lxc("storage", "volume", "set", pool, name, "size=400MiB")
    assert "MiB" in lxc("storage", "volume", "info", pool, name)
    lxc("storage", "volume", "detach", pool, name, running)


def test_backups(lxc: Lxc, pool: str, volume: Callable[..., str], tmp_path: Path) -> None:
    name = volume("saved", "user.x=1")
    lxc("storage", "volume", "snapshot", pool, name, "s")
    archive = tmp_path / "saved.tar.gz"
    lxc("storage", "volume", "export", pool, name, archive)
    lxc("storage", "volume", "import", pool, archive, "loaded")
    assert lxc("storage", "volume", "get", pool, "loaded", "user.x").strip() == "1"
    lxc("storage", "volume", "restore", pool, "loaded", "s")
    assert lxc("storage", "volume", "info", pool, "loaded")
    refused = lxc.refused("storage", "volume", "import", pool, archive)
    assert "already exists" in refused
    lxc("storage", "volume", "delete", pool, "loaded")
    alone = tmp_path / "alone.tar"
    lxc("storage", "volume", "export", pool, name, alone, "--volume-only", "--compression=none")
    lxc("storage", "volume", "import", pool, alone, "loaded")
    assert not any("loaded/s" in line for line in listed(lxc, pool))
    lxc("storage", "volume", "delete", pool, "loaded")
