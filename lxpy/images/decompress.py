"""The decompressed bytes of an image file: by a program beside us, or by Python's library."""

from __future__ import annotations

import fcntl
import importlib
import os
import signal
from collections.abc import Callable

from lxpy.images.compression import NONE, SQUASHFS, detect
from lxpy.images.tarstream import BadArchive

_PIPE_BYTES = 1 << 20
_F_SETPIPE_SZ = 1031


class Source:
    """An open image file that is read as an uncompressed tar stream.

    Raises BadArchive for a file that is no archive, FileNotFoundError for a missing program.
    """

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._size = max(os.fstat(self._file).st_size, 1)
        self._pid = 0
        self._stderr = -1
        self._output = self._file
        self._warns = False
        compression = detect(os.pread(self._file, 512, 0))
        if compression is None:
            raise BadArchive("it is no tar archive, nor a compressed one lxpy knows")
        if compression is SQUASHFS:
            raise BadArchive("a squashfs file is no tar archive")
        self.read: Callable[[int], bytes] = lambda size: os.read(self._output, size)
        if compression is not NONE:
            self._warns = compression.decompress[0] in ("gzip", "xz")  # status 2: only a warning
            try:
                self._spawn(compression.decompress)
            except FileNotFoundError:
                if not compression.library:
                    raise FileNotFoundError(
                        2, f'program "{compression.decompress[0]}" is not installed', ""
                    ) from None
                self.read = _library_reader(compression.library, self._file)

    def percent(self) -> int:
        """Return how much of the file has been read (the decompressor shares our offset)."""
        return min(100, os.lseek(self._file, 0, os.SEEK_CUR) * 100 // self._size)

    def failure(self) -> str | None:
        """Wait for a decompressor whose output has ended; return what it complained about."""
        if not self._pid:
            return None
        if os.read(self._output, 1):
            return None  # the archive is wrong, not its compression
        _, status = os.waitpid(self._pid, 0)
        self._pid = 0
        if status == 0 or (os.waitstatus_to_exitcode(status) == 2 and self._warns):
            return None
        text = os.read(self._stderr, 4096).decode("utf-8", "replace").strip().splitlines()
        reason = text[0].rpartition(": ")[2] if text else f"status {status}"
        return f"its compression is damaged or ends early: {reason}"

    def close(self) -> None:
        """End the decompressor."""
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            self._pid = 0
        for descriptor in {self._file, self._output, self._stderr} - {-1}:
            os.close(descriptor)

    def _spawn(self, command: tuple[str, ...]) -> None:
        output, output_end = os.pipe()
        errors, errors_end = os.pipe()
        try:
            self._pid = os.posix_spawnp(
                command[0],
                command,
                os.environ,
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, self._file, 0),
                    (os.POSIX_SPAWN_DUP2, output_end, 1),
                    (os.POSIX_SPAWN_DUP2, errors_end, 2),
                ],
            )
        except FileNotFoundError:
            os.close(output)
            os.close(errors)
            raise
        finally:
            os.close(output_end)
            os.close(errors_end)
        self._output, self._stderr = output, errors
        _enlarge(output)


def _enlarge(pipe: int) -> None:
    try:
        fcntl.fcntl(pipe, _F_SETPIPE_SZ, _PIPE_BYTES)
    except OSError:
        pass  # over the user's quota of pipe memory: slower, no worse


def _library_reader(module: str, file: int) -> Callable[[int], bytes]:
    opened = importlib.import_module(module).open(os.fdopen(os.dup(file), "rb"), "rb")

    def read(size: int) -> bytes:
        try:
            data: bytes = opened.read(size)
        except (EOFError, OSError, ValueError, ArithmeticError) as error:
            raise BadArchive(f"its compression is damaged or ends early: {error}") from error
        except Exception as error:  # lzma.LZMAError, zlib.error: no common base, no import here
            raise BadArchive(f"its compression is damaged: {error}") from error
        return data

    return read
