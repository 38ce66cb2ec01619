"""Packing: what goes in comes out of unpacking again."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest

from lxpy.errors import BadRequest, Failed, MissingTool
from lxpy.images import pack as packing
from lxpy.images.compression import GZIP
from lxpy.images.extract import Job
from lxpy.images.pack import Packer, default_packer, packer
from lxpy.images.unpack import extract
from tests.unit.images.archives import METADATA


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A directory with metadata, a template and a small rootfs."""
    top = tmp_path / "bundle"
    rootfs = top / "rootfs"
    for name in ("etc", "dev", "proc", "sys/kernel", "tmp"):
        (rootfs / name).mkdir(parents=True)
    (top / "templates").mkdir()
    (top / "templates/hostname.tpl").write_text("{{ container.name }}\n")
    (top / "metadata.yaml").write_text(METADATA)
    (rootfs / "tmp").chmod(0o1777)
    (rootfs / "etc/hosts").write_text("127.0.0.1 localhost\n")
    os.link(rootfs / "etc/hosts", rootfs / "etc/hosts.again")
    (rootfs / "etc/mtab").symlink_to("../proc/self/mounts")
    (rootfs / "etc/dotted").symlink_to("./hosts")
    (rootfs / ".hidden").write_text("kept")
    (rootfs / "dev/leftover").write_text("")
    (rootfs / "proc/leftover").write_text("")
    with (rootfs / "holes").open("wb") as file:
        file.truncate(64 << 20)
        file.seek(1 << 20)
        file.write(b"data")
    return top


async def unpacked(image: Path, target: Path) -> Path:
    target.mkdir()
    await extract(Job(str(image), "unified", 1 << 30, 1000, str(target)))
    return target / "rootfs"


@pytest.mark.parametrize("algorithm", ["none", "gzip", "xz", "zstd", "bzip2", "zstd -1", "gzip -1"])
async def test_round_trip(bundle: Path, tmp_path: Path, algorithm: str) -> None:
    how = packer(algorithm)
    if how.command and not shutil.which(how.command[0]):
        pytest.skip(f"{how.command[0]} is not installed")
    image = tmp_path / f"image{how.suffix}"
    await packing.pack(bundle, bundle / "rootfs", image, how)
    rootfs = await unpacked(image, tmp_path / "out")
    assert (tmp_path / "out/templates/hostname.tpl").read_text() == "{{ container.name }}\n"
    assert (tmp_path / "out/metadata.yaml").read_text() == METADATA
    assert (rootfs / "etc/hosts").stat().st_ino == (rootfs / "etc/hosts.again").stat().st_ino
    assert os.readlink(rootfs / "etc/mtab") == "../proc/self/mounts"
    assert os.readlink(rootfs / "etc/dotted") == "./hosts"
    assert (rootfs / ".hidden").read_text() == "kept"
    assert stat.S_IMODE((rootfs / "tmp").stat().st_mode) == 0o1777
    assert os.listdir(rootfs / "dev") == os.listdir(rootfs / "proc") == []
    holes = (rootfs / "holes").stat()
    assert holes.st_size == 64 << 20 and holes.st_blocks < 1000


async def test_rootfs_elsewhere(bundle: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "mounted at ~ ,odd;name"
    (bundle / "rootfs").rename(elsewhere)
    image = tmp_path / "image.tar"
    await packing.pack(bundle, elsewhere, image, packer("none"))
    rootfs = await unpacked(image, tmp_path / "out")
    assert (rootfs / "etc/hosts").read_text() == "127.0.0.1 localhost\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
async def test_owners_and_capabilities(bundle: Path, tmp_path: Path) -> None:
    rootfs = bundle / "rootfs"
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    (rootfs / "ping").write_bytes(b"")
    os.chown(rootfs / "ping", 12345, 4000000000)
    (rootfs / "ping").chmod(0o4755)
    os.setxattr(rootfs / "ping", "security.capability", capability)
    image = tmp_path / "image.tar"
    await packing.pack(bundle, rootfs, image, packer("none"))
    ping = await unpacked(image, tmp_path / "out") / "ping"
    found = ping.stat()
    assert (found.st_uid, found.st_gid) == (12345, 4000000000)
    assert stat.S_IMODE(found.st_mode) == 0o4755
    assert os.getxattr(ping, "security.capability") == capability


async def test_full_disk(bundle: Path) -> None:
    with (bundle / "rootfs/noise").open("wb") as file:
        file.write(os.urandom(8 << 20))
    if not os.path.exists("/dev/full"):
        pytest.skip("needs /dev/full")
    link = bundle / "image"
    link.symlink_to("/dev/full")
    with pytest.raises(Failed, match="no space left"):
        await packing.pack(bundle, bundle / "rootfs", link, packer("gzip -1"))
    assert not os.path.lexists(link)


async def test_missing_program(bundle: Path, tmp_path: Path) -> None:
    how = Packer(GZIP, ("no-such-compressor",))
    with pytest.raises(MissingTool, match='"no-such-compressor" is not installed'):
        await packing.pack(bundle, bundle / "rootfs", tmp_path / "image", how)
    assert not (tmp_path / "image").exists()


async def test_missing_metadata(bundle: Path, tmp_path: Path) -> None:
    (bundle / "metadata.yaml").unlink()
    with pytest.raises(Failed, match="metadata.yaml"):
        await packing.pack(bundle, bundle / "rootfs", tmp_path / "image", packer("none"))


@pytest.mark.parametrize("name", ["rar", "gzip; rm", "zstd --ultra", "squashfs", "gzip -x"])
def test_unknown_algorithms(name: str) -> None:
    with pytest.raises(BadRequest, match="Invalid compression algorithm"):
        packer(name)


def test_levels() -> None:
    assert packer("gzip -9").command == ("gzip", "-9")
    assert packer("gzip --rsyncable").command == ("gzip", "-6n", "--rsyncable")
    assert packer("xz -6").command == ("xz", "-T0", "-6")
    assert packer("") == default_packer()
