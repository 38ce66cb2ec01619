"""metadata.yaml and templates/ as they lie beside a rootfs, read without following any link."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from lxpy.errors import Failed
from lxpy.kernel.files import BENEATH, NO_SYMLINKS, open_within

FILE = "metadata.yaml"
TEMPLATES = "templates"
MAX_BYTES = 1 << 20


def names(directory: Path) -> list[str]:
    """Return the names of the files in templates/."""
    place = directory / TEMPLATES
    if place.is_symlink() or not place.is_dir():
        return []
    return sorted(os.listdir(place))


def read(directory: Path, name: str) -> bytes | None:
    """Return a file of an instance's metadata, None if there is none.

    Raises Failed for one that is no plain file, or larger than any can be.
    """
    top = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY
        fd = open_within(top, name, flags, resolve=BENEATH | NO_SYMLINKS)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EXDEV):
            raise Failed(f'The image\'s "{name}" is no plain file') from error
        raise
    finally:
        os.close(top)
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise Failed(f'The image\'s "{name}" is no plain file')
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise Failed(f'The image\'s "{name}" is larger than {MAX_BYTES} bytes')
    return data
