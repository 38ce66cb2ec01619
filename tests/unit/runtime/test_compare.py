"""Two trees are compared: what has come, gone and changed, whatever the names are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lxpy.runtime.compare import compare, report, shown


@pytest.fixture
def old(tmp_path: Path) -> Path:
    (tmp_path / "old").mkdir()
    return tmp_path / "old"


@pytest.fixture
def new(tmp_path: Path) -> Path:
    (tmp_path / "new").mkdir()
    return tmp_path / "new"


def found(old: Path, new: Path) -> list[tuple[str, str, str, tuple[str, ...]]]:
    changes = compare(*(os.open(each, os.O_PATH) for each in (old, new)))
    return [(each.path, each.what, each.type, each.how) for each in changes]


def file(path: Path, text: str = "text", *, time: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (time, time))
    return path


def test_nothing(old: Path, new: Path) -> None:
    for side in (old, new):
        file(side / "a/b/file")
        (side / "link").symlink_to("nowhere")
        os.mkfifo(side / "fifo")
    assert found(old, new) == []


def test_all_kinds_of_changes(old: Path, new: Path) -> None:
    for side in (old, new):
        for name in ("same", "mode", "size", "time", "sub/inner", "turned"):
            file(side / name)
        (side / "link").symlink_to(side.name)
    file(old / "gone/deep/file")
    file(new / "come")
    file(new / "dir/one")
    file(new / "dir/two")
    (new / "mode").chmod(0o4711)
    file(new / "size", "longer")
    file(new / "time", time=2)
    (new / "turned").unlink()
    file(new / "turned/within")
    (new / "sub").chmod(0o700)
    assert found(old, new) == [
        ("/come", "added", "file", ()),
        ("/dir", "added", "directory", ()),
        ("/dir/one", "added", "file", ()),
        ("/dir/two", "added", "file", ()),
        ("/gone", "removed", "directory", ()),
        ("/gone/deep", "removed", "directory", ()),
        ("/gone/deep/file", "removed", "file", ()),
        ("/link", "modified", "symlink", ("target",)),
        ("/mode", "modified", "file", ("mode",)),
        ("/size", "modified", "file", ("size",)),
        ("/sub", "modified", "directory", ("mode",)),
        ("/time", "modified", "file", ("mtime",)),
        ("/turned", "modified", "directory", ("type",)),
        ("/turned/within", "added", "file", ()),
    ]


def test_links_are_not_followed(old: Path, new: Path, tmp_path: Path) -> None:
    file(tmp_path / "outside/secret")
    file(old / "way/file")
    (new / "way").symlink_to(tmp_path / "outside")
    assert found(old, new) == [
        ("/way", "modified", "symlink", ("type",)),
        ("/way/file", "removed", "file", ()),
    ]


def test_deep_trees(old: Path, new: Path) -> None:
    deep = new
    for _ in range(200):
        deep = deep / "d"
    deep.mkdir(parents=True)
    assert len(found(old, new)) == 200


def test_every_change_is_counted(old: Path, new: Path) -> None:
    for number in range(5):
        file(new / f"f{number}")
    fds = [os.open(each, os.O_RDONLY) for each in (old, new)]
    told = report(*fds, 3)
    assert (told["added"], told["truncated"], len(told["changes"])) == (5, True, 3)  # type: ignore[arg-type]
    assert report(*fds, 5)["truncated"] is False


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (b"/plain name", "/plain name"),
        ("/grün".encode(), "/grün"),
        (b"/\x1b[31m\nx", "/\\x1b[31m\\x0ax"),
        (b"/\xff\xfe", "/\\xff\\xfe"),
        ("/\u202eevil".encode(), "/\\xe2\\x80\\xaeevil"),
        (b"/back\\slash", "/back\\\\slash"),
    ],
)
def test_names_are_harmless(name: bytes, text: str) -> None:
    assert shown(os.fsdecode(name)) == text
