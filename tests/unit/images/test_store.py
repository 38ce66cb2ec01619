"""The store: what arrives is kept under its fingerprint, or nothing of it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from lxpy.errors import Failed, NotFound
from lxpy.images.store import ImageStore
from tests.unit.images.archives import Archive, chunks, image


@pytest.fixture
async def store(tmp_path: Path) -> ImageStore:
    store = ImageStore(tmp_path / "store", max_bytes=1 << 24, max_files=1000)
    await store.sweep()
    return store


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


def digest(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()


async def test_unified(store: ImageStore, root: Path, tmp_path: Path) -> None:
    data = image().file("rootfs/etc/motd", b"hello").bytes()
    stored = await store.receive_unified(chunks(data), digest(data))
    assert stored.fingerprint == digest(data) and stored.size_bytes == len(data)
    assert not stored.existed and not stored.is_split
    assert (root / stored.fingerprint).stat().st_mode & 0o777 == 0o600
    assert await store.suffixes(stored) == [".tar"]
    assert (await store.inspect(stored)).properties["release"] == "1"
    target = tmp_path / "target"
    target.mkdir()
    await store.unpack(stored.fingerprint, target)
    assert (target / "rootfs/etc/motd").read_bytes() == b"hello"


async def test_split(store: ImageStore, tmp_path: Path) -> None:
    meta, rootfs = image().bytes(), Archive().file("etc/motd", b"split").bytes()
    stored = await store.receive_split(chunks(meta), chunks(rootfs))
    assert stored.fingerprint == digest(meta, rootfs) and stored.is_split
    assert stored.size_bytes == len(meta) + len(rootfs)
    await store.inspect(stored)
    target = tmp_path / "target"
    target.mkdir()
    await store.unpack(stored.fingerprint, target)
    assert (target / "rootfs/etc/motd").read_bytes() == b"split"


async def test_twice(store: ImageStore, root: Path) -> None:
    data = image().bytes()
    await store.receive_unified(chunks(data))
    assert (await store.receive_unified(chunks(data))).existed
    assert os.listdir(root) == [digest(data)]


async def test_wrong_fingerprint(store: ImageStore, root: Path) -> None:
    with pytest.raises(Failed, match="fingerprints don't match"):
        await store.receive_unified(chunks(image().bytes()), "0" * 64)
    assert os.listdir(root) == []


async def test_empty(store: ImageStore, root: Path) -> None:
    with pytest.raises(Failed, match="the file is empty"):
        await store.receive_unified(chunks(b""))
    assert os.listdir(root) == []


@pytest.mark.parametrize(
    ("archive", "problem"),
    [
        (Archive().directory("rootfs"), "Metadata tarball is missing metadata.yaml"),
        (Archive().file("metadata.yaml", b"architecture: x86_64\ncreation_date: 1"), "no rootfs"),
        (Archive().file("metadata.yaml", b"[]").directory("rootfs"), "it is no mapping"),
        (Archive().file("metadata.yaml", b"a: [").directory("rootfs"), "Could not parse"),
        (Archive().file("metadata.yaml", b"creation_date: 1").directory("rootfs"), "architecture"),
        (
            Archive().file("metadata.yaml", b"architecture: x86_64").directory("rootfs"),
            "Missing/Invalid creation_date",
        ),
    ],
)
async def test_no_image(store: ImageStore, archive: Archive, problem: str) -> None:
    stored = await store.receive_unified(chunks(archive.bytes()))
    with pytest.raises(Failed, match=problem):
        await store.inspect(stored)


async def test_limits(tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "small", max_bytes=1 << 20, max_files=20)
    await store.sweep()
    archive = image()
    for number in range(30):
        archive.file(f"rootfs/{number}")
    stored = await store.receive_unified(chunks(archive.bytes()))
    with pytest.raises(Failed, match="more than 20 files"):
        await store.inspect(stored)


async def test_delete_and_missing_files(store: ImageStore, root: Path) -> None:
    stored = await store.receive_split(chunks(image().bytes()), chunks(Archive().bytes()))
    await store.delete(stored.fingerprint)
    await store.delete(stored.fingerprint)
    assert os.listdir(root) == []
    with pytest.raises(NotFound, match="are missing"):
        await store.stored(stored.fingerprint)
    for name in ("../../etc", "x" * 64, ""):
        with pytest.raises(NotFound):
            await store.stored(name)


async def test_sweep(store: ImageStore, root: Path) -> None:
    """What a crash left goes, what the database knows stays, other files are not ours."""
    known = (await store.receive_unified(chunks(image().bytes()))).fingerprint
    gone = (await store.receive_unified(chunks(image().file("x").bytes()))).fingerprint
    (root / ("a" * 64 + ".rootfs")).touch()
    (root / ".incoming-1").mkdir()
    (root / "notes").touch()
    await store.sweep({known})
    assert sorted(os.listdir(root)) == sorted([known, "notes"])
    assert gone not in os.listdir(root)


async def test_broken_upload(store: ImageStore, root: Path) -> None:
    async def broken() -> object:
        yield b"some"
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await store.receive_unified(broken())  # type: ignore[arg-type]
    assert os.listdir(root) == []
