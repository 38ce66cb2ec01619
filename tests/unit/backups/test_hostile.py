"""Archives that want more than to be unpacked."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from lxpy.backups import index, reader
from lxpy.backups.index import Index
from lxpy.errors import Failed

Add = Callable[[tarfile.TarFile], None]


def file(name: str, content: bytes = b"x", **fields: object) -> Add:
    def add(archive: tarfile.TarFile) -> None:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        for key, value in fields.items():
            setattr(info, key, value)
        archive.addfile(info, io.BytesIO(content))

    return add


def entry(name: str, kind: bytes, linkname: str = "") -> Add:
    return file(name, b"", type=kind, linkname=linkname)


def archive_of(*adds: Add, about: Index | None = None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        if about is not None:
            file(index.NAME, index.dump(about).encode())(archive)
        for add in adds:
            add(archive)
    return buffer.getvalue()


async def unpack(data: bytes, target: Path, root: Path | None = None) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield data

    target.mkdir(exist_ok=True)
    async with reader.incoming(chunks()) as archive:
        roots = None
        if root is not None:
            roots = {archive.index.directory: os.open(root, os.O_PATH | os.O_DIRECTORY)}
        try:
            await archive.unpack({archive.index.directory: target}, roots=roots)
        finally:
            for descriptor in (roots or {}).values():
                os.close(descriptor)


ABOUT = Index("c1", "default", "dir", config={})
TOP = "backup/container"


@pytest.mark.parametrize(
    ("adds", "reason"),
    [
        ([file(f"{TOP}/rootfs/../../../x")], 'leaves the image by "..'),
        ([entry(f"{TOP}/rootfs/l", tarfile.SYMTYPE, "/etc"), file(f"{TOP}/rootfs/l/x")], "below"),
        ([entry(f"{TOP}/rootfs/l", tarfile.LNKTYPE, "/etc/passwd")], "hard link out of its volume"),
        ([entry(f"{TOP}/rootfs/l", tarfile.LNKTYPE, f"{TOP}/../../x")], "leaves the image"),
        ([entry(f"{TOP}/rootfs/l", tarfile.LNKTYPE, f"{TOP}/rootfs/none")], "not in the archive"),
        ([entry(f"{TOP}/templates/t", tarfile.SYMTYPE, "/etc/shadow")], "not a regular file"),
        ([entry(f"{TOP}/metadata.yaml", tarfile.SYMTYPE, "/etc/shadow")], "not a regular file"),
        ([entry(f"{TOP}/backup.yaml", tarfile.SYMTYPE, "/etc/shadow")], "no regular file"),
        ([entry(f"{TOP}.img", tarfile.SYMTYPE, "/dev/sda")], "no regular file"),
        ([entry(f"{TOP}/rootfs", tarfile.SYMTYPE, "/")], "not a directory"),
        ([file("backup/checksums", b"sha256 0 0\n")], "altered or damaged"),
    ],
)
async def test_what_is_refused(adds: list[Add], reason: str, tmp_path: Path) -> None:
    with pytest.raises(Failed, match=reason):
        await unpack(archive_of(*adds, about=ABOUT), tmp_path / "target")
    assert {each.name for each in tmp_path.iterdir()} == {"target"}


async def test_what_is_nobodys_is_ignored(tmp_path: Path) -> None:
    adds = [file("backup/../x"), file("/etc/x"), file("backup/snapshots/s9/rootfs/x"),
            entry(f"{TOP}/rootfs/dev", tarfile.DIRTYPE),
            entry(f"{TOP}/rootfs/dev/sda", tarfile.BLKTYPE),
            entry(f"{TOP}/rootfs/disk", tarfile.BLKTYPE),
            entry(f"{TOP}/rootfs/same", tarfile.LNKTYPE, f"{TOP}/rootfs/disk"),
            file(f"./{TOP}/rootfs/file")]  # fmt: skip
    await unpack(archive_of(*adds, about=ABOUT), tmp_path / "target")
    found = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")}
    assert found == {f"target{e}" for e in ("", "/rootfs", "/rootfs/dev", "/rootfs/file")}


@pytest.mark.parametrize(
    "data",
    [
        archive_of(file("other", b"x"), about=None),
        archive_of(entry(index.NAME, tarfile.SYMTYPE, "/etc/passwd")),
        archive_of(file(index.NAME, b"name: [")),
        b"nothing" * 1000,
        b"",
    ],
)
async def test_what_is_no_backup(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(Failed):
        await unpack(data, tmp_path / "target")


@pytest.mark.parametrize("path", [b"../victim", b"link/victim", b"/", b"a/../../victim"])
async def test_deletions_stay_inside(path: bytes, tmp_path: Path) -> None:
    root, victim = tmp_path / "root", tmp_path / "victim"
    root.mkdir()
    victim.write_text("mine")
    (root / "link").symlink_to(tmp_path)
    data = archive_of(file(ABOUT.gone(""), path + b"\0"), about=ABOUT)
    with pytest.raises(Failed, match="cannot be deleted|below"):
        await unpack(data, tmp_path / "target", root)
    assert victim.read_text() == "mine"


async def test_deletions(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "folder/inner").mkdir(parents=True)
    (root / "folder/inner/file").write_text("x")
    (root / "link").symlink_to("folder")
    (root / "stays").write_text("x")
    gone = b"".join(name + b"\0" for name in (b"folder", b"link", b"never/was"))
    data = archive_of(file(ABOUT.gone(""), gone), file(f"{TOP}/rootfs/stays", b"new"), about=ABOUT)
    await unpack(data, tmp_path / "target", root)
    assert [each.name for each in root.iterdir()] == ["stays"]
    assert (root / "stays").read_text() == "new"
