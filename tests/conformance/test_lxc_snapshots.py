"""LXD's client: snapshots, and copies of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.conformance.conftest import Lxc

Make = Callable[..., str]


@pytest.fixture
def copies(lxc: Lxc) -> Iterator[list[str]]:
    """Names of instances that a test makes by itself; deleted after it."""
    names: list[str] = []
    yield names
    for name in names:
        lxc.run("delete", "--force", name)


def snapshots(lxc: Lxc, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = lxc.query(f"/1.0/instances/{name}/snapshots?recursion=1")
    return found


def names(lxc: Lxc, name: str) -> list[str]:
    return [each["name"] for each in snapshots(lxc, name)]


def write(lxc: Lxc, name: str, text: str) -> None:
    lxc("exec", name, "--", "sh", "-c", f"echo {text} > /root/file")


def read(lxc: Lxc, name: str) -> str:
    return lxc("exec", name, "--", "cat", "/root/file").strip()


def test_snapshot_and_restore(lxc: Lxc, instance: Make) -> None:
    name = instance("snapped", "-c", "snapshots.expiry=1d")
    write(lxc, name, "one")
    lxc("snapshot", name)
    write(lxc, name, "two")
    lxc("snapshot", name, "mine", "--no-expiry")
    assert names(lxc, name) == ["snap0", "mine"]
    ends = [each["expires_at"] for each in snapshots(lxc, name)]
    assert ends[0] > "2026" and ends[1].startswith("0001")
    text = lxc("info", name)
    assert "Snapshots:" in text and "snap0" in text and "mine" in text
    assert lxc("list", f"^{name}$", "-c", "S", "-f", "csv").strip() == "2"
    (found,) = json.loads(lxc("list", f"^{name}$", "-f", "json"))
    assert [each["name"] for each in found["snapshots"]] == ["snap0", "mine"]
    assert "already exists" in lxc.refused("snapshot", name, "mine")
    write(lxc, name, "three")
    lxc("snapshot", name, "mine", "--reuse")
    lxc("restore", name, "snap0")
    assert read(lxc, name) == "one" and lxc.status(name) == "RUNNING"
    lxc("restore", name, f"{name}/mine")
    assert read(lxc, name) == "three"
    assert "does not exist" in lxc.refused("restore", name, "none")
    assert "not found" in lxc.refused("delete", f"{name}/none")
    lxc("delete", f"{name}/snap0")
    assert names(lxc, name) == ["mine"]


def test_names_and_ends(lxc: Lxc, instance: Make) -> None:
    name = instance("renamed", verb="init")
    lxc("snapshot", name, "one")
    lxc("rename", f"{name}/one", f"{name}/two")
    lxc("move", f"{name}/two", f"{name}/three")
    assert names(lxc, name) == ["three"]
    text = lxc("config", "show", f"{name}/three")
    assert "expires_at: 0001-01-01T00:00:00Z" in text
    changed = text.replace("0001-01-01T00:00:00Z", "2040-01-02T03:04:05Z")
    lxc("config", "edit", f"{name}/three", input=changed)
    assert snapshots(lxc, name)[0]["expires_at"] == "2040-01-02T03:04:05Z"
    lxc("config", "set", name, "snapshots.pattern=auto%d")
    lxc("snapshot", name)
    assert names(lxc, name) == ["three", "auto0"]


def test_copies(lxc: Lxc, instance: Make, copies: list[str]) -> None:
    name = instance("original")
    write(lxc, name, "one")
    lxc("snapshot", name, "s1")
    write(lxc, name, "two")
    copies += ["of-snapshot", "whole", "alone"]
    lxc("copy", f"{name}/s1", "of-snapshot")
    lxc("copy", name, "whole")
    lxc("copy", name, "alone", "--instance-only")
    assert names(lxc, "of-snapshot") == names(lxc, "alone") == []
    assert names(lxc, "whole") == ["s1"]
    for copied, text in (("of-snapshot", "one"), ("whole", "two"), ("alone", "two")):
        lxc("start", copied)
        assert read(lxc, copied) == text
    lxc("restore", "whole", "s1")
    assert read(lxc, "whole") == "one"


def test_refresh(lxc: Lxc, instance: Make, copies: list[str]) -> None:
    name = instance("source")
    copies.append("mirror")
    write(lxc, name, "one")
    lxc("snapshot", name, "s1")
    lxc("copy", name, "mirror", "--refresh")
    write(lxc, name, "two")
    lxc("snapshot", name, "s2")
    lxc("delete", f"{name}/s1")
    lxc("copy", name, "mirror", "--refresh")
    assert names(lxc, "mirror") == ["s2"]
    lxc("start", "mirror")
    assert read(lxc, "mirror") == "two"
    assert "running" in lxc.refused("copy", name, "mirror", "--refresh").lower()


def test_a_deleted_instance_takes_its_snapshots_along(lxc: Lxc, instance: Make) -> None:
    name = instance("passing", verb="init")
    lxc("snapshot", name)
    lxc("delete", name)
    instance("passing", verb="init")
    assert names(lxc, name) == []
