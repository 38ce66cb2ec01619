"""Records as files: whole or as before, read whoever wrote them, told when they are of no use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from blockbuster import BlockBuster

from lxpy.errors import BadRequest
from lxpy.services.recovery import records
from lxpy.services.recovery.found import InstanceRecord, load, load_all
from lxpy.storage import Pool

CONTENT = {"container": {"name": "c1", "architecture": "x86_64", "config": {"user.a": "é\n"}}}


@pytest.fixture(autouse=True)
def blocking(blockbuster: BlockBuster) -> Iterator[None]:
    """Files are read and written in threads; here they are not."""
    blockbuster.deactivate()
    yield
    blockbuster.activate()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "records/containers/c1.yaml"


def test_written_and_read(path: Path) -> None:
    records.write(path, "abc", CONTENT)
    assert path.read_text().startswith("# lxpy record abc\n")
    assert records.read(path) == CONTENT
    assert path.stat().st_mode & 0o777 == 0o600
    found = load(path, InstanceRecord)
    assert found is not None and found.container.config == {"user.a": "é\n"}
    assert os.listdir(path.parent) == ["c1.yaml"]


def test_what_somebody_has_edited(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_text("container:\n  name: c1\n  architecture: x86_64\n  ephemeral: true\n")
    found = load(path, InstanceRecord)
    assert found is not None and found.container.ephemeral


@pytest.mark.parametrize("text", ["", "{", "container: 5", "container: {name: c1}", "- a: [\n"])
def test_what_is_of_no_use(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(BadRequest, match=r"c1\.yaml cannot be used: .*correct or remove it"):
        load(path, InstanceRecord)


def test_what_is_not_there(path: Path) -> None:
    assert load(path, InstanceRecord) is None
    assert load_all(path, InstanceRecord) == []


def test_what_cannot_be_written(path: Path) -> None:
    """It leaves what was there."""
    records.write(path, "abc", CONTENT)
    with pytest.raises(OSError):
        records.write(path.parent / ("x" * 300), "def", CONTENT)
    assert os.listdir(path.parent) == ["c1.yaml"]


def test_names(tmp_path: Path) -> None:
    pool = Pool("p", "dir", {"source": str(tmp_path)})
    for name in ("containers/c1", "containers/other_c1", "custom/default_my_disk"):
        records.write(tmp_path / "records" / f"{name}.yaml", "d", {})
    assert set(records.listed(pool)) == {
        ("instances", "", "default", "c1"),
        ("instances", "", "other", "c1"),
        ("storage_volumes", "p", "default", "my_disk"),
    }
