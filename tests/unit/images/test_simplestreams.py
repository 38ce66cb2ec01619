"""Simplestreams: names, versions, downloads that are checked, a server that is silent."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lxpy.client.fetch import Unreachable
from lxpy.errors import BadRequest, Failed, NotFound
from lxpy.images.progress import silent
from lxpy.images.remotes.simplestreams import SimpleStreams
from lxpy.images.store import ImageStore
from tests.images.streams import Server, Tree, serve
from tests.unit.images.archives import Archive, image


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path / "www")


@pytest.fixture
def server(tree: Tree) -> Iterator[Server]:
    with serve(tree.root) as running:
        yield running


@pytest.fixture
def streams(server: Server, tmp_path: Path) -> SimpleStreams:
    return SimpleStreams(server.url + "/", tmp_path / "cache", "x86_64")


@pytest.fixture
async def store(tmp_path: Path) -> ImageStore:
    store = ImageStore(tmp_path / "store", max_bytes=1 << 24, max_files=1000)
    await store.sweep()
    return store


def write(path: Path, archive: Archive) -> Path:
    path.write_bytes(archive.bytes())
    return path


@pytest.fixture
def unified(tmp_path: Path) -> Path:
    return write(tmp_path / "unified.tar", image().file("rootfs/etc/motd", b"hello"))


async def test_newest_version(streams: SimpleStreams, tree: Tree, unified: Path) -> None:
    other = write(unified.with_name("other.tar"), image().file("rootfs/etc/motd", b"newer"))
    tree.unified("tiny/1", "20250101_07:42", unified)
    newest = tree.unified("tiny/1", "20260101_07:42", other)
    tree.unified("tiny/1/arm", "20270101_07:42", unified, arch="arm64", aliases="tiny/1")
    for name in ("tiny/1", "tiny/1/default", "tiny/1/amd64", newest, newest[:12]):
        offer = await streams.find(name)
        assert offer.fingerprint == newest and offer.serial == "20260101_07:42"
    assert offer.properties["description"] == "Tiny One amd64 (20260101_07:42)"
    with pytest.raises(NotFound, match='Image "tiny/2" for x86_64 not found on http://127'):
        await streams.find("tiny/2")
    with pytest.raises(NotFound):
        await streams.find("")


async def test_unified(
    streams: SimpleStreams, tree: Tree, unified: Path, store: ImageStore
) -> None:
    fingerprint = tree.unified("tiny", "20260101", unified)
    texts: list[str] = []
    stored = await streams.download(
        await streams.find("tiny"), store, lambda stage, text: texts.append(f"{stage} {text}")
    )
    assert stored.fingerprint == fingerprint and not stored.is_split
    assert texts[-1].startswith("download rootfs: 100%")
    assert (await store.inspect(stored)).properties["os"] == "tiny"


async def test_split(streams: SimpleStreams, tree: Tree, tmp_path: Path, store: ImageStore) -> None:
    meta = write(tmp_path / "meta.tar", image())
    rootfs = write(tmp_path / "rootfs.tar", Archive().file("etc/motd", b"split"))
    fingerprint = tree.split("tiny", "20260101", meta, rootfs, requirements={"cgroup": "v1"})
    offer = await streams.find("tiny")
    assert offer.properties["requirements.cgroup"] == "v1"
    stored = await streams.download(offer, store, silent)
    assert stored.fingerprint == fingerprint and stored.is_split


async def test_wrong_bytes(
    streams: SimpleStreams, tree: Tree, unified: Path, store: ImageStore
) -> None:
    tree.unified("tiny", "20260101", unified)
    (tree.root / "images/tiny/20260101/image.tar.gz").write_bytes(b"something else")
    with pytest.raises(Failed, match="fingerprints don't match"):
        await streams.download(await streams.find("tiny"), store, silent)
    assert os.listdir(unified.parent / "store") == []


async def test_lists_are_kept(
    streams: SimpleStreams, tree: Tree, unified: Path, server: Server, tmp_path: Path
) -> None:
    tree.unified("tiny", "20260101", unified)
    await streams.find("tiny")
    await streams.find("tiny")
    assert server.paths == ["/streams/v1/index.json", "/streams/v1/images.json"]
    for kept in (tmp_path / "cache").iterdir():
        os.utime(kept, (time.time() - 7200,) * 2)
    await streams.find("tiny")
    assert len(server.paths) == 4


async def test_stale_lists_when_offline(tree: Tree, unified: Path, tmp_path: Path) -> None:
    fingerprint = tree.unified("tiny", "20260101", unified)
    with serve(tree.root) as server:
        streams = SimpleStreams(server.url, tmp_path / "cache", "x86_64")
        await streams.find("tiny")
    for kept in (tmp_path / "cache").iterdir():
        os.utime(kept, (time.time() - 7200,) * 2)
    assert (await streams.find("tiny")).fingerprint == fingerprint
    nothing = SimpleStreams(server.url, tmp_path / "other", "x86_64")
    with pytest.raises(Unreachable, match="Cannot fetch http://127"):
        await nothing.find("tiny")


@pytest.mark.parametrize("text", ["no json", '{"index": 3}', '{"index": {"x": {"path": 1}}}'])
async def test_rubbish(streams: SimpleStreams, tree: Tree, text: str, tmp_path: Path) -> None:
    (tree.root / "streams/v1/index.json").write_text(text)
    with pytest.raises(Failed, match="is no list of images"):
        await streams.find("tiny")
    assert not (tmp_path / "cache").exists()


async def test_hostile_lists(streams: SimpleStreams, tree: Tree, unified: Path) -> None:
    tree.unified("tiny", "20260101", unified)
    item = tree.products["tiny"]["versions"]["20260101"]["items"]["lxd_combined.tar.gz"]
    item["path"] = "/absolute"
    tree.products["odd"] = {"versions": {"1": {"items": {"x": {"ftype": "disk-kvm.img"}}}}}
    tree.write()
    assert await streams.offers() == []


def test_address(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="write a URL"):
        SimpleStreams("example", tmp_path, "x86_64")
