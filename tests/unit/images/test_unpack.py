"""Unpacking: honest archives come out as they are, hostile ones are refused by name."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import shutil
import stat
import struct
import subprocess
import tarfile
from pathlib import Path

import pytest

from lxpy.errors import Failed
from lxpy.images.attributes import acl, from_pax
from lxpy.images.extract import Found, Job
from lxpy.images.unpack import extract
from tests.unit.images.archives import Archive, image


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "outside" / "target"
    path.mkdir(parents=True)
    return path


async def unpack(
    data: bytes,
    target: Path,
    layout: str = "unified",
    *,
    max_bytes: int = 1 << 24,
    max_files: int = 1000,
) -> Found:
    source = target.parent.parent / "image"
    source.write_bytes(data)
    job = Job(
        source=str(source),
        layout=layout,
        max_bytes=max_bytes,
        max_files=max_files,
        target=str(target),
    )
    return await extract(job)


async def refused(data: bytes, target: Path, text: str, layout: str = "unified") -> None:
    """The archive is refused with that text, and nothing is made beside the target."""
    with pytest.raises(Failed) as failure:
        await unpack(data, target, layout)
    assert text in str(failure.value)
    assert os.listdir(target.parent) == ["target"]
    assert set(os.listdir(target)) <= {"metadata.yaml", "templates", "rootfs"}


async def test_honest(target: Path) -> None:
    archive = image()
    archive.file("rootfs/etc/passwd", b"root\n", mode=0o4640)
    archive.symlink("rootfs/etc/mtab", "/proc/mounts").symlink("rootfs/up", "../../../etc")
    archive.link("rootfs/etc/shadow", "rootfs/etc/passwd")
    archive.member("rootfs/pipe", tarfile.FIFOTYPE, mode=0o622)
    archive.file("rootfs/no/parents/here", b"x").node("rootfs/dev/null")
    archive.file("backup/unrelated", b"?")
    archive.file("./rootfs//etc/./dotted", b"dot").file("/rootfs/etc/inittab", b"absolute")
    archive.file(f"rootfs/{'long' * 40}/{'name' * 50}", b"long")
    archive.file("rootfs/etc/\udcff\udcfe", b"not utf-8")
    found = await unpack(archive.bytes(), target)

    rootfs = target / "rootfs"
    passwd = (rootfs / "etc/passwd").stat()
    assert stat.S_IMODE(passwd.st_mode) == 0o4640 and passwd.st_mtime == 1_600_000_000
    assert (rootfs / "etc/shadow").stat().st_ino == passwd.st_ino
    assert os.readlink(rootfs / "etc/mtab") == "/proc/mounts"
    assert os.readlink(rootfs / "up") == "../../../etc"
    pipe = (rootfs / "pipe").lstat().st_mode
    assert stat.S_ISFIFO(pipe) and stat.S_IMODE(pipe) == 0o622
    assert (rootfs / "no/parents/here").read_bytes() == b"x"
    assert not (rootfs / "dev/null").exists()
    assert (rootfs / "etc/dotted").read_bytes() == b"dot"
    assert (rootfs / "etc/inittab").read_bytes() == b"absolute"
    assert (rootfs / ("long" * 40) / ("name" * 50)).read_bytes() == b"long"
    assert b"\xff\xfe" in os.listdir(os.fsencode(rootfs / "etc"))
    assert (rootfs / "etc").stat().st_mtime == 1_600_000_000
    assert (target / "templates/hostname.tpl").read_text() == "{{ container.name }}\n"
    assert sorted(os.listdir(target)) == ["metadata.yaml", "rootfs", "templates"]
    assert found.rootfs and found.templates == 1 and found.metadata is not None


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
async def test_formats(target: Path, format: int) -> None:
    archive = image(format).file(f"rootfs/{'d' * 90}/{'f' * 80}", b"content")
    await unpack(archive.bytes(), target)
    assert (target / "rootfs" / ("d" * 90) / ("f" * 80)).read_bytes() == b"content"


async def test_later_member_wins(target: Path) -> None:
    archive = image().file("rootfs/a", b"old").file("rootfs/a", b"new")
    archive.symlink("rootfs/b", "/etc").directory("rootfs/b").file("rootfs/b/c", b"inside")
    archive.directory("rootfs/etc", mode=0o700)
    await unpack(archive.bytes(), target)
    assert (target / "rootfs/a").read_bytes() == b"new"
    assert (target / "rootfs/b/c").read_bytes() == b"inside"
    assert stat.S_IMODE((target / "rootfs/etc").stat().st_mode) == 0o700


async def test_link_that_stays_inside_is_a_path(target: Path) -> None:
    archive = image().directory("rootfs/usr/lib").symlink("rootfs/lib", "usr/lib")
    await unpack(archive.file("rootfs/lib/so", b"so").bytes(), target)
    assert (target / "rootfs/usr/lib/so").read_bytes() == b"so"


async def test_rootfs_layout(target: Path) -> None:
    archive = Archive().directory("./", mode=0o711).file("./etc/hosts", b"hosts")
    archive.link("./etc/alias", "./etc/hosts")
    await unpack(archive.bytes(), target, "rootfs")
    assert (target / "rootfs/etc/alias").read_bytes() == b"hosts"
    assert stat.S_IMODE((target / "rootfs").stat().st_mode) == 0o711


COMPRESSIONS = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "lzma": lambda data: lzma.compress(data, format=lzma.FORMAT_ALONE),
    "zstd": lambda data: (
        subprocess.run(["zstd", "-qc"], input=data, check=True, capture_output=True).stdout
    ),
}


def compressed(name: str, data: bytes) -> bytes:
    if name == "zstd" and shutil.which("zstd") is None:
        pytest.skip("zstd is not installed")
    return COMPRESSIONS[name](data)


@pytest.mark.parametrize("name", COMPRESSIONS)
async def test_compressions(target: Path, name: str) -> None:
    data = image().file("rootfs/data", os.urandom(100_000)).bytes()
    await unpack(compressed(name, data), target)
    assert (target / "rootfs/data").stat().st_size == 100_000


@pytest.mark.parametrize("name", COMPRESSIONS)
async def test_compression_ends_early(target: Path, name: str) -> None:
    data = compressed(name, image().file("rootfs/data", os.urandom(100_000)).bytes())
    await refused(data[: len(data) * 2 // 3], target, "ends early")


@pytest.mark.parametrize("name", ["gzip", "bzip2", "xz", "zstd"])
async def test_compression_damaged(target: Path, name: str) -> None:
    data = bytearray(compressed(name, image().file("rootfs/data", os.urandom(100_000)).bytes()))
    data[len(data) // 2] ^= 0xFF
    data[-6] ^= 0xFF
    await refused(bytes(data), target, "Invalid image")


async def test_python_stands_in_for_a_missing_program(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = image().file("rootfs/data", b"x" * 5000).bytes()
    monkeypatch.setenv("PATH", "/nonexistent")
    await unpack(gzip.compress(data), target)
    assert (target / "rootfs/data").stat().st_size == 5000


@pytest.mark.parametrize("name", ["gzip", "xz"])
async def test_python_stands_in_and_sees_damage(
    target: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    data = compressed(name, image().file("rootfs/data", os.urandom(50_000)).bytes())
    monkeypatch.setenv("PATH", "/nonexistent")
    await refused(data[:30_000], target, "damaged")


HOSTILE = {
    "absolute path": (
        lambda: image().file("/etc/cron.d/evil", b"x"),
        'member "/etc/cron.d/evil" has an absolute path',
    ),
    "dot dot": (
        lambda: image().file("rootfs/../../escaped", b"x"),
        'member "rootfs/../../escaped" leaves the image by ".."',
    ),
    "dot dot inside": (
        lambda: image().file("rootfs/etc/../../x", b"x"),
        'leaves the image by ".."',
    ),
    "absolute link, then through it": (
        lambda: image().symlink("rootfs/out", "/tmp").file("rootfs/out/x", b"x"),
        'member "out/x" is below "out", which is a link out of the image',
    ),
    "relative link, then through it": (
        lambda: image().symlink("rootfs/out", "../..").file("rootfs/out/x", b"x"),
        'member "out/x" is below "out", which is a link out of the image',
    ),
    "link to the templates, then through it": (
        lambda: image().symlink("rootfs/out", "../templates").file("rootfs/out/x", b"x"),
        "which is a link out of the image",
    ),
    "chain of links": (
        lambda: (
            image().symlink("rootfs/a", "b").symlink("rootfs/b", "../../..").file("rootfs/a/x", b"")
        ),
        "which is a link out of the image",
    ),
    "link that replaces a directory in use": (
        lambda: (
            image()
            .file("rootfs/d/one", b"1")
            .symlink("rootfs/d", "/tmp")
            .file("rootfs/d/two", b"2")
        ),
        'member "d" replaces a directory',
    ),
    "directory through a link": (
        lambda: image().symlink("rootfs/out", "/tmp").directory("rootfs/out/made"),
        "which is a link out of the image",
    ),
    "link through a link": (
        lambda: image().symlink("rootfs/out", "/tmp").symlink("rootfs/out/l", "x"),
        "which is a link out of the image",
    ),
    "loop of links": (
        lambda: image().symlink("rootfs/l", "l").file("rootfs/l/x", b""),
        "which is a link out of the image or no directory",
    ),
    "dangling link": (
        lambda: image().symlink("rootfs/l", "nowhere").file("rootfs/l/x", b""),
        'member "l/x" is below a dangling link, "l"',
    ),
    "file as directory": (
        lambda: image().file("rootfs/f", b"").file("rootfs/f/x", b""),
        "or no directory",
    ),
    "hard link out, absolute": (
        lambda: image().link("rootfs/shadow", "/etc/shadow"),
        'member "rootfs/shadow" has an absolute path',
    ),
    "hard link out, dot dot": (
        lambda: image().link("rootfs/shadow", "rootfs/../../../etc/shadow"),
        'member "rootfs/shadow" leaves the image by ".."',
    ),
    "hard link to the metadata": (
        lambda: image().link("rootfs/metadata", "metadata.yaml"),
        "is a hard link out of the image",
    ),
    "hard link through a link": (
        lambda: image().symlink("rootfs/out", "/etc").link("rootfs/p", "rootfs/out/passwd"),
        'member "out/passwd" is below "out"',
    ),
    "hard link to nothing": (
        lambda: image().link("rootfs/x", "rootfs/missing"),
        'member "x" is a hard link to "missing", which is not in the archive',
    ),
    "hard link to a directory": (
        lambda: image().link("rootfs/x", "rootfs/etc"),
        'member "x" is a hard link to a directory',
    ),
    "character device": (
        lambda: image().node("rootfs/etc/mem"),
        'member "rootfs/etc/mem" is a device node',
    ),
    "block device": (
        lambda: image().node("rootfs/disk", tarfile.BLKTYPE),
        'member "rootfs/disk" is a device node',
    ),
    "whiteout": (
        lambda: image().member("rootfs/w", tarfile.CHRTYPE, devmajor=0, devminor=0),
        "is a device node",
    ),
    "rootfs is a link": (
        lambda: Archive().symlink("rootfs", "/etc"),
        "the rootfs is not a directory",
    ),
    "metadata is a link": (
        lambda: Archive().symlink("metadata.yaml", "/etc/shadow"),
        "metadata.yaml is not a regular file",
    ),
    "template is a link": (
        lambda: image().symlink("templates/x.tpl", "/etc/shadow"),
        'member "templates/x.tpl" is not a regular file',
    ),
    "template is a hard link": (
        lambda: image().file("rootfs/x", b"").link("templates/x.tpl", "rootfs/x"),
        "is not a regular file",
    ),
    "templates is a link": (
        lambda: image().symlink("templates", "/etc").file("templates/cron", b"x"),
        "",
    ),
    "template in a directory": (
        lambda: image().directory("templates/d").file("templates/d/x", b""),
        "templates/ has directories",
    ),
    "huge metadata": (
        lambda: Archive().file("metadata.yaml", b"#" * (2 << 20)),
        "metadata.yaml is larger than 1 MiB",
    ),
    "disk image": (
        lambda: image().file("rootfs.img", b"QFI\xfb"),
        "the disk image of a virtual machine",
    ),
    "name with a zero byte": (
        lambda: image().file("rootfs/x", b"", pax_headers={"path": "rootfs/a\0b"}),
        "has an impossible name",
    ),
    "endless name": (
        lambda: image().file("rootfs/" + "d/" * 5000 + "x", b""),
        "has an impossible name",
    ),
    "component too long": (lambda: image().file("rootfs/" + "x" * 300, b""), "File name too long"),
    "huge header": (
        lambda: image().file("rootfs/x", b"", pax_headers={"SCHILY.xattr.user.x": "y" * (2 << 20)}),
        "a header is larger than an image may have",
    ),
    "unknown type": (lambda: image().member("rootfs/x", b"M"), "is of an unknown type"),
    "owner out of range": (
        lambda: image().file("rootfs/x", b"", uid=2**32 - 1),
        "out of range" if os.geteuid() == 0 else "",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
async def test_hostile(target: Path, case: str) -> None:
    make, text = HOSTILE[case]
    if text:
        await refused(make().bytes(), target, text)
    else:
        await harmless(make().bytes(), target)


async def harmless(data: bytes, target: Path) -> None:
    await unpack(data, target)
    assert os.listdir(target.parent) == ["target"]
    assert not (target / "templates").is_symlink()


async def test_nothing_was_written_outside() -> None:
    for name in ("/tmp/x", "/tmp/made", "/tmp/l", "/etc/cron.d/evil"):
        assert not os.path.lexists(name)


async def test_too_many_files(target: Path) -> None:
    archive = image()
    for number in range(50):
        archive.file(f"rootfs/{number}")
    data = archive.bytes()
    with pytest.raises(Failed, match="it holds more than 30 files"):
        await unpack(data, target, max_files=30)


async def test_too_many_bytes(target: Path) -> None:
    # A gigabyte of zeros, packed very small: stopped before it is written.
    data = gzip.compress(image().file("rootfs/zeros", b"\0" * (64 << 20)).bytes(), 1)
    with pytest.raises(Failed, match="it holds more than 16777216 bytes"):
        await unpack(data, target)
    assert not (target / "rootfs/zeros").exists()


async def test_members_that_are_skipped_count(target: Path) -> None:
    data = image().file("elsewhere", b"\0" * (20 << 20)).bytes()
    with pytest.raises(Failed, match="bytes"):
        await unpack(data, target)


async def test_negative_size(target: Path) -> None:
    data = bytearray(image().file("rootfs/x", b"x").bytes())
    at = data.index(b"rootfs/x\0")
    data[at + 124 : at + 136] = b"\xff" * 8 + struct.pack(">i", -5000)
    header = bytes(data[at : at + 148]) + b" " * 8 + bytes(data[at + 156 : at + 512])
    data[at + 148 : at + 156] = b"%06o\0 " % sum(header)
    await refused(bytes(data), target, "")


@pytest.mark.parametrize("headers", [1, 3000])
async def test_chain_of_headers(target: Path, headers: int) -> None:
    extra = tarfile.TarInfo("rootfs/x").create_pax_global_header({"comment": "again"})
    data = image().bytes().rstrip(b"\0")
    data += b"\0" * (-len(data) % 512) + extra * headers
    data += Archive().file("rootfs/x", b"").bytes()
    if headers == 1:
        await unpack(data, target)
    else:
        await refused(data, target, "a member has too many headers")


async def test_truncated(target: Path) -> None:
    data = image().file("rootfs/data", os.urandom(100_000)).bytes()
    at = data.index(b"rootfs/data\0")
    await refused(data[: at + 50_000], target, "it is truncated")
    await refused(data[: at + 100], target, "in the middle of a header")
    await refused(data[:at], target, "it is truncated")


async def test_damaged_header(target: Path) -> None:
    data = bytearray(image().file("rootfs/x", b"x").file("rootfs/y", b"y").bytes())
    data[data.index(b"rootfs/y\0")] ^= 1
    await refused(bytes(data), target, "a header is damaged")


@pytest.mark.parametrize("data", [b"", b"hello", os.urandom(5000), b"\0" * 2000, b"PK\3\4" * 500])
async def test_garbage(target: Path, data: bytes) -> None:
    await refused(data, target, "Invalid image")


@pytest.mark.parametrize("magic", [b"\x1f\x8b", b"BZh9", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"])
async def test_garbage_that_looks_compressed(target: Path, magic: bytes) -> None:
    await refused(magic + os.urandom(3000), target, "Invalid image")


async def test_compressed_garbage(target: Path) -> None:
    await refused(gzip.compress(os.urandom(3000)), target, "Invalid image")


async def test_sparse(target: Path) -> None:
    rootfs = target.parent.parent / "rootfs"
    rootfs.mkdir()
    with open(rootfs / "holes", "wb") as file:
        file.truncate(50 << 20)
        file.seek(30 << 20)
        file.write(b"middle")
    for form in ("--format=gnu", "--sparse-version=0.1", "--sparse-version=1.0"):
        options = [form] if form.startswith("--format") else ["--format=posix", form]
        data = subprocess.run(
            ["tar", "-C", str(rootfs.parent), "-S", *options, "-cf", "-", "rootfs"],
            capture_output=True,
            check=True,
        ).stdout
        await unpack(data, target)
        holes = (target / "rootfs/holes").stat()
        assert holes.st_size == 50 << 20 and holes.st_blocks < 1000
        with open(target / "rootfs/holes", "rb") as file:
            file.seek(30 << 20)
            assert file.read(8) == b"middle\0\0"


async def test_sparse_map_that_lies(target: Path) -> None:
    headers = {"GNU.sparse.map": "0,10,5,10", "GNU.sparse.size": "20", "GNU.sparse.numblocks": "2"}
    data = image().file("rootfs/x", b"x" * 20, pax_headers=headers).bytes()
    await refused(data, target, 'member "rootfs/x" has a damaged map of its holes')
    headers["GNU.sparse.map"] = "0,10,100,10000"
    data = image().file("rootfs/x", b"x" * 20, pax_headers=headers).bytes()
    await refused(data, target, "a damaged map")


async def test_cancelled(target: Path) -> None:
    import asyncio

    fifo = target.parent.parent / "image"
    os.mkfifo(fifo)
    task = asyncio.create_task(extract(Job(str(fifo), "unified", 1, 1, str(target))))
    await asyncio.sleep(0.05)
    task.cancel()
    with open(fifo, "wb"):
        pass
    with pytest.raises((asyncio.CancelledError, Failed)):
        await task


def test_acl() -> None:
    binary = acl("user::rwx,user:1000:r-x,group::r--,mask::r-x,other::---")
    assert binary is not None
    version, *_ = struct.unpack_from("<I", binary)
    entries = [struct.unpack_from("<HHI", binary, at) for at in range(4, len(binary), 8)]
    none = 0xFFFFFFFF
    assert version == 2
    assert entries == [
        (1, 7, none),
        (2, 5, 1000),
        (4, 4, none),
        (0x10, 5, none),
        (0x20, 0, none),
    ]
    assert acl("user::rwx\nuser:joe:r-x:1001\ngroup::r--\nmask::r-x\nother::---\n") is not None
    assert acl("user:joe:rwx") is None
    assert acl("") is None
    assert acl("nonsense:1:rwx") is None


def test_attributes_of_the_host_are_left_out() -> None:
    headers = {
        "SCHILY.xattr.user.note": "kept",
        "SCHILY.xattr.security.capability": "\x01\x00\udcff",
        "SCHILY.xattr.security.selinux": "host",
        "SCHILY.xattr.trusted.overlay.redirect": "/etc",
        "LIBARCHIVE.xattr.user.other%20name": "dmFsdWU",
        "LIBARCHIVE.xattr.user.bad": "!",
    }
    assert from_pax(headers) == {
        "user.note": b"kept",
        "security.capability": b"\x01\x00\xff",
        "user.other name": b"value",
    }


def test_honest_archives_need_no_mercy() -> None:
    data = image().bytes()
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert "rootfs/etc" in tar.getnames()
