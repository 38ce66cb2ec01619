"""Watches get their paths by the handles that the kernel shows."""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path

import pytest

from lxpy.kernel.libc import function
from lxpy.runtime import watches
from lxpy.runtime.criu_images import Message
from tests.unit.runtime.test_criu_images import nested, number, read, write

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="handles are for root")


def handle_of(path: Path) -> tuple[int, bytes, int]:
    """Return type and content of a file's handle, and the number of the mount it is on."""
    handle = ctypes.create_string_buffer(struct.pack("<Ii", 128, 0), 136)
    mount = ctypes.c_int()
    function("name_to_handle_at", str(path), -100, os.fsencode(path), handle,
             ctypes.byref(mount), 0)  # fmt: skip
    size, kind = struct.unpack_from("<Ii", handle.raw)
    return kind, handle.raw[8 : 8 + size], mount.value


def watcher(path: Path, *, known: bytes = b"") -> bytes:
    """Return the record of a process's watch of one file, as CRIU writes it."""
    kind, content, _ = handle_of(path)
    count = -(-len(content) // 8)
    words = struct.unpack(f"<{count}Q", content.ljust(count * 8, b"\0"))
    handle = number(1, len(content)) + number(2, kind) + b"".join(number(3, each) for each in words)
    if known:
        handle += nested(4, known) + number(5, 99)
    found = os.lstat(path)
    device = os.major(found.st_dev) << 20 | os.minor(found.st_dev)
    watch = number(2, found.st_ino) + number(5, device) + number(6, 1) + nested(7, handle)
    return number(1, 9) + number(2, 1) + nested(13, number(1, 1) + nested(5, watch))


def path_in(record: Message) -> tuple[str, int]:
    file = record.message(13)
    assert file is not None
    (watch,) = file.messages(5)
    handle = watch.message(7)
    assert handle is not None
    return handle.text(4), handle.number(5)


def test_a_link_gets_its_path(tmp_path: Path) -> None:
    link, other = tmp_path / "a link", tmp_path / "other"
    link.symlink_to("/nowhere")
    other.touch()
    write(tmp_path, "files.img", number(1, 1) + number(2, 5), watcher(link),
          watcher(other, known=b"/known"))  # fmt: skip
    watches.give_paths(str(tmp_path), os.getpid())
    first, second, third = read(tmp_path, "files.img")
    assert first.number(2) == 5
    assert path_in(second) == (str(link), handle_of(link)[2])
    assert path_in(third) == ("/known", 99)


def test_what_has_no_name_any_more(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    with gone.open("w"):
        write(tmp_path, "files.img", watcher(gone))
        gone.unlink()
        with pytest.raises(FileNotFoundError, match="no name any more"):
            watches.give_paths(str(tmp_path), os.getpid())


def test_where_criu_finds_links_by_itself() -> None:
    assert watches.are_found(os.getpid())
