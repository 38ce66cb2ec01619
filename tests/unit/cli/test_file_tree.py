"""Local trees as archives: there and back, and what a server must not make of them."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lxpy.cli.file_tree import Packer, unpack
from lxpy.errors import BadRequest, Refused


def archive(*members: tuple[str, dict[str, Any], bytes]) -> Iterator[bytes]:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, attributes, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in attributes.items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(content))
    data = out.getvalue()
    return iter([data[at : at + 700] for at in range(0, len(data), 700)])


def test_there_and_back(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "sub/empty").mkdir(parents=True)
    (tree / "sub/file").write_bytes(b"x" * 700_000)
    (tree / "sub/file").chmod(0o600)
    os.link(tree / "sub/file", tree / "other")
    (tree / "link").symlink_to("nowhere")
    (tree / "\udcff").write_bytes(b"a name that is no text")
    unpack(Packer().pack((str(tree),)), str(tmp_path / "back"))
    back = tmp_path / "back/tree"
    assert sorted(os.listdir(back)) == sorted(os.listdir(tree))
    assert (back / "sub/file").read_bytes() == b"x" * 700_000
    assert (back / "sub/file").stat().st_mode & 0o777 == 0o600
    assert (back / "other").samefile(back / "sub/file")
    assert os.readlink(back / "link") == "nowhere"
    assert (back / "sub/empty").is_dir()


def test_what_cannot_be_sent(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BadRequest, match="isn't a supported file type"):
        list(Packer().pack((str(tmp_path),)))


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x"])
def test_a_member_that_leaves(tmp_path: Path, name: str) -> None:
    with pytest.raises(Refused, match="outside of its directory"):
        unpack(archive((name, {}, b"x")), str(tmp_path / "d"))
    assert not (tmp_path / "x").exists()


def test_a_member_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    members = (
        (".", {"type": tarfile.DIRTYPE, "mode": 0o755}, b""),
        ("l", {"type": tarfile.SYMTYPE, "linkname": str(tmp_path)}, b""),
        ("l/x", {}, b"x"),
    )
    with pytest.raises(Refused, match="outside of its directory"):
        unpack(archive(*members), str(tmp_path / "d"))
    (tmp_path / "d/e").symlink_to(tmp_path)
    directory = ("e", {"type": tarfile.DIRTYPE, "mode": 0o755}, b"")
    with pytest.raises(Refused, match="is no directory"):
        unpack(archive(members[0], directory), str(tmp_path / "d"))
    assert not (tmp_path / "x").exists()


def test_an_answer_cut_short(tmp_path: Path) -> None:
    pieces = list(archive((".", {"type": tarfile.DIRTYPE}, b""), ("f", {}, b"x" * 5000)))
    with pytest.raises(Refused):
        unpack(iter(pieces[:4]), str(tmp_path / "d"))
