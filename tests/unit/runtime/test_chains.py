"""Dumps that build on an earlier one keep its pages."""

from __future__ import annotations

import shutil
from pathlib import Path

from lxpy.runtime import chains


def dump(directory: Path, text: str, base: Path | None = None) -> Path:
    """What CRIU leaves."""
    directory.mkdir()
    for name in ("pagemap-1.img", "pages-1.img", "pagemap-shmem-7.img", "core-1.img"):
        (directory / name).write_text(text)
    if base is not None:
        (directory / chains.PARENT).symlink_to(f"../{base.name}")
        chains.link(directory, base)
    return directory


def test_each_is_whole_by_itself(tmp_path: Path) -> None:
    first = dump(tmp_path / "first", "1")
    second = dump(tmp_path / "second", "2", first)
    third = dump(tmp_path / "third", "3", second)
    assert [chains.depth(each) for each in (first, second, third)] == [0, 1, 2]
    shutil.rmtree(second)
    shutil.rmtree(first)
    parent = third / chains.PARENT
    for directory, text in ((third, "3"), (parent, "2"), (parent / chains.PARENT, "1")):
        assert (directory / "pages-1.img").read_text() == text
        assert (directory / "pagemap-shmem-7.img").read_text() == text
    assert sorted(each.name for each in parent.iterdir()) == [
        "pagemap-1.img", "pagemap-shmem-7.img", "pages-1.img", "parent",
    ]  # fmt: skip
