"""The image files, by fingerprint: received as streams, checked, unpacked, removed.

    ROOT/FINGERPRINT          a unified image, or the metadata half of a split one
    ROOT/FINGERPRINT.rootfs   the other half
    ROOT/.incoming-.../       an upload or a build on its way in

The fingerprint is the SHA-256 of the unified file, or of both halves one after the other.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass, replace
from pathlib import Path

from lxpy.errors import Failed, NotFound
from lxpy.images import metadata
from lxpy.images.compression import SQUASHFS
from lxpy.images.extract import Job
from lxpy.images.metadata import Metadata
from lxpy.images.progress import Progress, silent
from lxpy.images.unpack import detect_file, extract
from lxpy.threads import in_thread

_FINGERPRINT = re.compile(r"[0-9a-f]{64}")
_BUFFER_BYTES = 1 << 20
_INCOMING = ".incoming"
_ROOTFS = ".rootfs"


@dataclass(frozen=True, slots=True)
class Stored:
    """An image whose files are in the store; `existed` if they were there before."""

    fingerprint: str
    size_bytes: int
    files: tuple[Path, ...]
    existed: bool = False

    @property
    def is_split(self) -> bool:
        """Metadata and rootfs are two files."""
        return len(self.files) == 2


class ImageStore:
    """The image files below one directory. `max_bytes` and `max_files` bound what one unpacks to.

    Raises Failed where a file is no image or the disk is full; then nothing of it is left.
    """

    def __init__(self, root: Path, *, max_bytes: int, max_files: int) -> None:
        self._root = root
        self._max_bytes = max_bytes
        self._max_files = max_files

    async def sweep(self, known: Collection[str] | None = None) -> None:
        """Make the store usable; remove what a crash left, and images not among `known`."""
        await in_thread(self._sweep, known)

    async def receive_unified(
        self, chunks: AsyncIterator[bytes], expected: str | None = None
    ) -> Stored:
        """Store a unified image. Raises Failed if its fingerprint is not the expected one."""
        async with _Incoming(self._root) as incoming:
            part = await incoming.write("image", chunks)
            return await self._keep(incoming.fingerprint(), expected, [part])

    async def receive_split(
        self,
        meta_chunks: AsyncIterator[bytes],
        rootfs_chunks: AsyncIterator[bytes],
        expected: str | None = None,
    ) -> Stored:
        """Store a split image; the two streams are read one after the other."""
        async with _Incoming(self._root) as incoming:
            parts = [await incoming.write("meta", meta_chunks)]
            parts.append(await incoming.write("rootfs", rootfs_chunks))
            return await self._keep(incoming.fingerprint(), expected, parts)

    async def adopt(self, path: Path) -> Stored:
        """Store a unified image that lies in `workspace`; its file is moved."""

        def digest() -> str:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
                os.fsync(file.fileno())
            return found

        return await self._keep(await in_thread(digest), None, [path])

    def workspace(self) -> Path:
        """Return a new name for a directory in which to build an image.

        Whoever makes it removes it; `sweep` removes it after a crash.
        """
        return _new_name(self._root)

    async def stored(self, fingerprint: str) -> Stored:
        """Return an image of the store. Raises NotFound."""
        found = await self.find(fingerprint)
        if found is None:
            raise NotFound(f'The files of image "{fingerprint[:12]}" are missing: delete it')
        return found

    async def find(self, fingerprint: str) -> Stored | None:
        """Return an image whose files are here, None if they are not."""
        found = await in_thread(self._find, fingerprint)
        return None if found is None else replace(found, existed=True)

    async def files(self, fingerprint: str) -> list[Path]:
        """Return the image's file, or its two. Raises NotFound."""
        return list((await self.stored(fingerprint)).files)

    async def suffixes(self, stored: Stored) -> list[str]:
        """Return what the names of the image's files end in: ".tar.gz", ".squashfs"."""
        found = [await detect_file(path) for path in stored.files]
        return [each.suffix if each is SQUASHFS else f".tar{each.suffix}" for each in found]

    async def inspect(self, stored: Stored, *, thorough: bool = True) -> Metadata:
        """Read and check metadata.yaml; `thorough` goes through the whole archive.

        Raises Failed for metadata that is missing or invalid, an archive that is damaged, has no
        rootfs, or is one that `unpack` would refuse (but for links, which only unpacking shows).
        """
        layout = "metadata" if stored.is_split else "unified"
        found = await extract(self._job(stored.files[0], layout, whole=thorough))
        if found.metadata is None:
            raise Failed("Metadata tarball is missing metadata.yaml")
        if stored.is_split:
            is_disk = await self._check_rootfs(stored.files[1], thorough=thorough)
        else:
            is_disk = found.disk_image
            if not is_disk and not found.rootfs:
                raise Failed("Invalid image: it has no rootfs directory")
        return metadata.parse(found.metadata, type="virtual-machine" if is_disk else "container")

    async def unpack(self, fingerprint: str, target: Path, progress: Progress = silent) -> None:
        """Fill the directory `target` with rootfs/, metadata.yaml and templates/.

        Raises Failed naming the member at fault; what was written until then stays there.
        """
        stored = await self.stored(fingerprint)

        def report(percent: int) -> None:
            progress("unpack", f"Unpacking image: {percent}%")

        if stored.is_split:
            await extract(self._job(stored.files[0], "metadata", target))
            await extract(self._job(stored.files[1], "rootfs", target), report)
        else:
            await extract(self._job(stored.files[0], "unified", target), report)
        if not await in_thread((target / "rootfs").is_dir):
            raise Failed("Invalid image: it has no rootfs directory")
        if not await in_thread((target / "metadata.yaml").is_file):
            raise Failed("Metadata tarball is missing metadata.yaml")

    async def delete(self, fingerprint: str) -> None:
        """Remove the image's files; missing ones are none."""
        _check(fingerprint)

        def remove() -> None:
            for suffix in ("", _ROOTFS):
                (self._root / f"{fingerprint}{suffix}").unlink(missing_ok=True)

        await in_thread(remove)

    def _job(
        self, source: Path, layout: str, target: Path | None = None, *, whole: bool = True
    ) -> Job:
        return Job(
            source=str(source),
            layout=layout,
            max_bytes=self._max_bytes,
            max_files=self._max_files,
            target=None if target is None else str(target),
            whole=whole,
        )

    async def _check_rootfs(self, path: Path, *, thorough: bool) -> bool:
        """Check the second half of a split image; tell whether it is a virtual disk."""

        def head() -> bytes:
            with path.open("rb") as file:
                return file.read(4)

        if await in_thread(head) == b"QFI\xfb":
            return True
        if thorough or await detect_file(path) is SQUASHFS:
            await extract(self._job(path, "rootfs"))
        return False

    async def _keep(self, fingerprint: str, expected: str | None, parts: list[Path]) -> Stored:
        if expected is not None and fingerprint != expected:
            raise Failed(f"Image fingerprints don't match, got {fingerprint} expected {expected}")
        return await in_thread(self._rename_in, fingerprint, parts)

    def _rename_in(self, fingerprint: str, parts: list[Path]) -> Stored:
        found = self._find(fingerprint)
        if found is not None and len(found.files) == len(parts):
            for part in parts:
                part.unlink()
            return Stored(fingerprint, found.size_bytes, found.files, existed=True)
        # The rootfs first: without the other half it is no image, and is swept.
        suffixes = ("", _ROOTFS)[: len(parts)]
        for part, suffix in reversed(list(zip(parts, suffixes, strict=True))):
            os.chmod(part, 0o600)
            os.rename(part, self._root / f"{fingerprint}{suffix}")
        if len(parts) == 1:
            (self._root / f"{fingerprint}{_ROOTFS}").unlink(missing_ok=True)
        _fsync_directory(self._root)
        stored = self._find(fingerprint)
        assert stored is not None
        return stored

    def _find(self, fingerprint: str) -> Stored | None:
        files = [self._root / _check(fingerprint)]
        try:
            size = files[0].stat().st_size
        except FileNotFoundError:
            return None
        rootfs = self._root / f"{fingerprint}{_ROOTFS}"
        try:
            size += rootfs.stat().st_size
            files.append(rootfs)
        except FileNotFoundError:
            pass
        return Stored(fingerprint, size, tuple(files))

    def _sweep(self, known: Collection[str] | None) -> None:
        if self._root.is_symlink() and not self._root.exists():
            return  # it leads to a volume that is not at hand
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for entry in list(self._root.iterdir()):
            if entry.name.startswith(_INCOMING):
                shutil.rmtree(entry, ignore_errors=True)
            fingerprint = entry.name.removesuffix(_ROOTFS)
            if not _FINGERPRINT.fullmatch(fingerprint):
                continue
            is_orphan = not (self._root / fingerprint).exists()
            if is_orphan or (known is not None and fingerprint not in known):
                entry.unlink(missing_ok=True)


class _Incoming:
    """Temporary files of one upload: hashed while they are written, gone unless renamed."""

    def __init__(self, root: Path) -> None:
        self._directory = _new_name(root)
        self._hash = hashlib.sha256()

    async def __aenter__(self) -> _Incoming:
        await in_thread(self._directory.mkdir, 0o700)
        return self

    async def __aexit__(self, *_: object) -> None:
        await in_thread(shutil.rmtree, self._directory, True)

    def fingerprint(self) -> str:
        """Return the SHA-256 of everything written so far."""
        return self._hash.hexdigest()

    async def write(self, name: str, chunks: AsyncIterator[bytes]) -> Path:
        """Write a stream to a file and on to the disk. Raises Failed when the disk is full."""
        path = self._directory / name
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        descriptor = await in_thread(os.open, path, flags, 0o600)
        size = 0
        try:
            pending: list[bytes] = []
            waiting = 0
            async for chunk in chunks:
                pending.append(chunk)
                waiting += len(chunk)
                size += len(chunk)
                if waiting >= _BUFFER_BYTES:
                    await in_thread(self._append, descriptor, pending)
                    pending, waiting = [], 0
            await in_thread(self._append, descriptor, pending)
            await in_thread(os.fsync, descriptor)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise Failed(
                    f"No space left to store the image: {size} bytes had arrived, free some "
                    f"in {self._directory.parent}"
                ) from error
            raise
        finally:
            os.close(descriptor)
        if size == 0:
            raise Failed("Invalid image: the file is empty")
        return path

    def _append(self, descriptor: int, chunks: list[bytes]) -> None:
        for chunk in chunks:
            self._hash.update(chunk)
            view = memoryview(chunk)
            while view:
                view = view[os.write(descriptor, view) :]


def _new_name(root: Path) -> Path:
    return root / f"{_INCOMING}-{secrets.token_hex(6)}"


def _check(fingerprint: str) -> str:
    if not _FINGERPRINT.fullmatch(fingerprint):
        raise NotFound(f'Image "{fingerprint}" not found')
    return fingerprint


def _fsync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
