"""`lxc publish`, `lxc export` and `lxc import`, driven as LXD's own client drives LXD."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conformance.conftest import Lxc

Instance = Callable[..., str]


def test_publish(lxc: Lxc, instance: Instance) -> None:
    name = instance("source")
    lxc("exec", name, "--", "sh", "-c", "echo mine >/root/file")
    assert "currently running" in lxc.refused("publish", name)
    said = lxc("publish", name, "--force", "--alias", "published", "os=Mine", "--compression",
               "gzip")  # fmt: skip
    mark = said.split()[-1]
    try:
        assert lxc.status(name) == "RUNNING"
        image = lxc.query("/1.0/images/" + mark)
        assert (image["properties"], image["public"]) == ({"os": "Mine"}, False)
        lxc("launch", "published", "made")
        assert lxc("exec", "made", "--", "cat", "/root/file") == "mine\n"
    finally:
        lxc.run("delete", "--force", "made")
        lxc("image", "delete", mark)


def test_publish_a_snapshot(lxc: Lxc, instance: Instance) -> None:
    name = instance("source")
    lxc("exec", name, "--", "sh", "-c", "echo before >/root/file")
    lxc("snapshot", name, "early")
    lxc("exec", name, "--", "sh", "-c", "echo after >/root/file")
    mark = lxc("publish", f"{name}/early", "--alias", "early", "--public").split()[-1]
    try:
        assert lxc.query("/1.0/images/" + mark)["public"]
        lxc("launch", "early", "made")
        assert lxc("exec", "made", "--", "cat", "/root/file") == "before\n"
    finally:
        lxc.run("delete", "--force", "made")
        lxc("image", "delete", mark)


@pytest.mark.parametrize("flag", ["", "--instance-only"])
def test_export_and_import(lxc: Lxc, instance: Instance, tmp_path: Path, flag: str) -> None:
    name, archive = instance("source"), tmp_path / "backup.tar.gz"
    lxc("exec", name, "--", "sh", "-c", "echo mine >/root/file")
    lxc("snapshot", name, "early")
    lxc("export", name, archive, *filter(None, [flag]))
    assert not lxc.query(f"/1.0/instances/{name}/backups")
    assert "already exists" in lxc.refused("import", archive)
    lxc("import", archive, "imported")
    try:
        snapshots = lxc.query("/1.0/instances/imported/snapshots?recursion=1")
        assert [each["name"] for each in snapshots] == ([] if flag else ["early"])
        lxc("start", "imported")
        assert lxc("exec", "imported", "--", "cat", "/root/file") == "mine\n"
    finally:
        lxc.run("delete", "--force", "imported")
    garbage = tmp_path / "garbage"
    garbage.write_bytes(b"no archive" * 1000)
    lxc.refused("import", garbage)
