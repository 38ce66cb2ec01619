"""Archives through the programs: out and in again, whole, damaged, cut off."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lxpy.backups import index, reader, writer
from lxpy.backups.index import Index
from lxpy.backups.pack import Directory, Job, Text
from lxpy.errors import Failed, LxpyError
from lxpy.images.pack import packer
from lxpy.threads import in_thread

ABOUT = Index("c1", "default", "dir", snapshots=["s0"], config={}, checksums=True)


async def packed(tree: Path, algorithm: str = "none", about: Index = ABOUT) -> bytes:
    tops = [os.open(tree, os.O_RDONLY) for _ in about.targets()]
    try:
        job = Job(
            [
                Text(index.NAME, index.dump(about)),
                Text("backup/container/backup.yaml", "container: {}\n"),
                Text("backup/container/metadata.yaml", "architecture: x86_64\n"),
                *(
                    Directory(f"{name}/rootfs", top)
                    for name, top in zip(about.targets(), tops, strict=True)
                ),
            ],
            0,
        )
        async with writer.stream(job, packer(algorithm)) as chunks:
            return b"".join([each async for each in chunks])
    finally:
        for top in tops:
            os.close(top)


async def unpacked(data: bytes, target: Path, cut: int | None = None) -> reader.Found:
    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(data), 10_000):
            yield data[start : start + 10_000]
        if cut is not None:
            raise LxpyError("the client went away")

    async with reader.incoming(chunks()) as archive:
        places = {name: target / (snap or "main") for name, snap in archive.index.targets().items()}
        for each in places.values():
            each.mkdir(parents=True)
        return await archive.unpack(places)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "tree"
    (top / "folder").mkdir(parents=True)
    (top / "folder/file").write_bytes(os.urandom(300_000))
    (top / "folder/second").hardlink_to(top / "folder/file")
    (top / "link").symlink_to("/etc/passwd")
    with (top / "sparse").open("wb") as file:
        file.seek(1 << 20)
        file.write(b"middle")
    os.mkfifo(top / "pipe")
    return top


def look(top: Path) -> str:
    command = (
        "find . -printf '%P %y %m %U %G %s %n %T@ %l\\n' | sort; "
        "find . -type f | sort | xargs sha256sum"
    )
    return subprocess.run(
        ["sh", "-c", command], cwd=top, capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.parametrize("algorithm", ["none", "gzip", "xz", "zstd"])
async def test_out_and_in_again(tree: Path, tmp_path: Path, algorithm: str) -> None:
    found = await unpacked(await packed(tree, algorithm), tmp_path / "out")
    assert found.backup_yaml == "container: {}\n"
    assert found.metadata == ["backup/container"]
    expected = await in_thread(look, tree)
    for name in ("main", "s0"):
        assert await in_thread(look, tmp_path / "out" / name / "rootfs") == expected


@pytest.mark.parametrize("algorithm", ["none", "zstd"])
async def test_what_is_cut_off_or_altered_is_refused(
    tree: Path, tmp_path: Path, algorithm: str
) -> None:
    data = await packed(tree, algorithm)
    for number, size in enumerate((100, 700, len(data) // 2, len(data) - 2048)):
        with pytest.raises(Failed, match="no backup|neither plain|ends early|truncated|damaged"):
            await unpacked(data[:size], tmp_path / f"cut{number}")
    altered = bytearray(data)
    altered[len(data) // 2] ^= 1
    with pytest.raises(Failed, match="damaged"):
        await unpacked(bytes(altered), tmp_path / "altered")
    with pytest.raises(Failed, match="ends early: the client went away"):
        await unpacked(data[: len(data) // 2], tmp_path / "gone", cut=1)
    with pytest.raises(Failed, match="ends early: the client went away"):
        await unpacked(data, tmp_path / "almost", cut=1)


async def test_a_tree_that_cannot_be_read_fails_the_stream(tmp_path: Path) -> None:
    closed = os.open(tmp_path, os.O_RDONLY)
    file = tmp_path / "file"
    file.write_text("no directory")
    wrong = os.open(file, os.O_RDONLY)
    os.close(closed)
    job = Job([Directory("x", wrong)], 0)
    with pytest.raises(Failed, match="Failed to write the archive: .*Not a directory"):
        async with writer.stream(job, packer("none")) as chunks:
            assert b"".join([each async for each in chunks]) == b""
    os.close(wrong)


async def test_leaving_early_ends_the_programs(tree: Path) -> None:
    with (tree / "big").open("wb") as file:
        file.truncate(1)
        os.posix_fallocate(file.fileno(), 0, 64 << 20)
    top = os.open(tree, os.O_RDONLY)
    async with writer.stream(Job([Directory("x", top)], 0), packer("zstd")) as chunks:
        assert await anext(chunks)
    os.close(top)


def test_an_index_comes_back_as_it_was() -> None:
    about = Index(
        "v", "p", "btrfs", "custom", ["a", "b"], config={"volume": {"config": {"size": "1GiB"}}}
    )
    assert index.parse(index.dump(about)) == about
    assert about.targets() == {
        "backup/volume": "",
        "backup/volume-snapshots/a": "a",
        "backup/volume-snapshots/b": "b",
    }


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("- a", "no mapping"),
        ("name: [", "cannot be parsed"),
        ("pool: x", "has no name"),
        ("name: x\ntype: machine", "unknown type"),
        ("name: x\ntype: virtual-machine", "virtual machine"),
        ("name: x\nsnapshots: {a: 1}", "list of snapshots"),
        ("name: x\nlxpy: {since: {snapshot: s}}", "on top of"),
    ],
)
def test_a_wrong_index_is_refused(text: str, reason: str) -> None:
    with pytest.raises(Failed, match=reason):
        index.parse(text)
