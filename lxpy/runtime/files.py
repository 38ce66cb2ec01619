"""Control files of the kernel: written and read whole, errors that name file and text."""

from __future__ import annotations

import os


def write(path: str, text: str) -> None:
    """Write a control file. Raises OSError naming path and text."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise OSError(error.errno, f"write({path}, {text!r}): {reason}") from error


def read(path: str) -> str:
    """Read a control file. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 65536).decode()
    finally:
        os.close(fd)
