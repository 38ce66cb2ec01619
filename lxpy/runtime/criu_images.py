"""What has to be mended in a dump before CRIU (4.2) can restore it.

All of it in plain files: records of protobuf behind two magic numbers, archives of tmpfs, messages
of netlink. Source: criu's images/*.proto, rtnetlink(7).
"""

from __future__ import annotations

import glob
import io
import os
import re
import stat
import struct
import tarfile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_O_PATH = 0o10000000
_O_RDONLY = 0
_VARINT, _BYTES = 0, 2
# message: field
_FILE_ID, _FILE_REG = 2, 3
_REG_ID, _REG_FLAGS, _REG_NAME, _REG_MODE = 1, 2, 6, 10
_MOUNT_PLACE, _MOUNT_OPTIONS, _MOUNT_TYPE = 7, 9, 14
_MM_EXE, _MM_VMA = 12, 14
_VMA_SHMID, _VMA_STATUS = 4, 7
# struct nlmsghdr, struct rtmsg, attributes of routes
_NLMSG, _RTMSG = 16, 12
_RTA_NH_ID, _RTA_NEXTHOPS = 30, {4, 5, 9, 18}
_STATS_DUMP, _DUMP_FROZEN_US, _DUMP_KNOWN, _DUMP_WRITTEN = 1, 2, 6, 7
_VMA_FILE = 1 << 6 | 1 << 7  # private and shared mappings of files


def mend(directory: str) -> None:
    """Mend a finished dump. Raises OSError, ValueError for what is no dump."""
    _mend_paths(directory)
    _mend_modes(directory)
    for archive in glob.glob(f"{directory}/tmpfs-dev-*.tar.gz.img"):
        _mend_archive(archive)
    for routes in glob.glob(f"{directory}/route*.img"):
        _mend_routes(routes)


def frozen_s(directory: str) -> float:
    """Return how long the processes stood still for a dump. Raises OSError."""
    _, records = read_records(f"{directory}/stats-dump")
    dump = Message(records[0]).message(_STATS_DUMP)
    return 0.0 if dump is None else dump.number(_DUMP_FROZEN_US) / 1e6


def known_percent(directory: str) -> int:
    """Return how much of the pages were in the dump before already. Raises OSError."""
    _, records = read_records(f"{directory}/stats-dump")
    dump = Message(records[0]).message(_STATS_DUMP)
    if dump is None:
        return 0
    known, written = dump.number(_DUMP_KNOWN), dump.number(_DUMP_WRITTEN)
    return 100 * known // max(known + written, 1)


class Message:
    """A protobuf message as its fields, in order: (number, kind, value)."""

    __slots__ = ("fields",)

    def __init__(self, raw: bytes) -> None:
        self.fields: list[tuple[int, int, int | bytes]] = []
        position = 0
        while position < len(raw):
            tag, position = _read_varint(raw, position)
            number, kind = tag >> 3, tag & 7
            value: int | bytes
            if kind == _VARINT:
                value, position = _read_varint(raw, position)
            elif kind == _BYTES:
                size, position = _read_varint(raw, position)
                value, position = raw[position : position + size], position + size
            else:
                size = {1: 8, 5: 4}[kind]
                value, position = raw[position : position + size], position + size
            self.fields.append((number, kind, value))

    def number(self, field: int, default: int = 0) -> int:
        """Return a field that is a number."""
        for number, kind, value in self.fields:
            if number == field and kind == _VARINT:
                assert isinstance(value, int)
                return value
        return default

    def text(self, field: int) -> str:
        """Return a field that is a text, "" without one."""
        found = (value for number, _, value in self.fields if number == field)
        value = next(found, b"")
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else ""

    def message(self, field: int) -> Message | None:
        """Return a field that is a message."""
        for number, kind, value in self.fields:
            if number == field and kind == _BYTES:
                assert isinstance(value, bytes)
                return Message(value)
        return None

    def messages(self, field: int) -> list[Message]:
        """Return the messages that a field repeats."""
        return [Message(value) for number, kind, value in self.fields
                if number == field and isinstance(value, bytes)]  # fmt: skip

    def set(self, field: int, new: int | bytes) -> None:
        """Give a field that is there another value."""
        self.fields = [
            (number, kind, new if number == field else value) for number, kind, value in self.fields
        ]

    def each(self, field: int, change: Callable[[Message], None]) -> None:
        """Change each of the messages that a field repeats."""
        fields = []
        for number, kind, value in self.fields:
            if number == field and isinstance(value, bytes):
                inner = Message(value)
                change(inner)
                value = inner.encode()
            fields.append((number, kind, value))
        self.fields = fields

    def encode(self) -> bytes:
        """Return the message as CRIU reads it."""
        parts = []
        for number, kind, value in self.fields:
            parts.append(_varint(number << 3 | kind))
            if isinstance(value, int):
                parts.append(_varint(value))
            else:
                parts.append((_varint(len(value)) if kind == _BYTES else b"") + value)
        return b"".join(parts)


def _mend_paths(directory: str) -> None:
    """Give programs and mappings descriptors that can be mapped.

    systemd from 254 on keeps its executor open with O_PATH; CRIU knows files by inode alone, and
    would open the executable of its children in the same way.
    """
    path = f"{directory}/files.img"
    if not os.path.exists(path):
        raise ValueError(f"{directory} is no dump: it has no files.img")
    head, records = read_records(path)
    files = {record.number(_FILE_ID): record for record in map(Message, records)}
    paths = {id for id, file in files.items() if _flags(file) & _O_PATH}
    if not paths:
        return
    copies: dict[int, int] = {}
    for image in glob.glob(f"{directory}/mm-*.img"):
        _mend_memory(image, paths, copies, max(files) + 1)
    for old, new in copies.items():
        records.append(_readable(files[old], new))
    if copies:
        write_records(path, head, records)


def _mend_memory(path: str, paths: set[int], copies: dict[int, int], free: int) -> None:
    head, records = read_records(path)
    changed = False

    def copy_of(id: int) -> int:
        return copies.setdefault(id, free + len(copies))

    for index, raw in enumerate(records):
        memory = Message(raw)
        if memory.number(_MM_EXE) in paths:
            memory.set(_MM_EXE, copy_of(memory.number(_MM_EXE)))
            changed = True
        fields = []
        for number, kind, value in memory.fields:
            if number == _MM_VMA and isinstance(value, bytes):
                area = Message(value)
                if area.number(_VMA_STATUS) & _VMA_FILE and area.number(_VMA_SHMID) in paths:
                    area.set(_VMA_SHMID, copy_of(area.number(_VMA_SHMID)))
                    value, changed = area.encode(), True
            fields.append((number, kind, value))
        memory.fields = fields
        records[index] = memory.encode()
    if changed:
        write_records(path, head, records)


def _mend_modes(directory: str) -> None:
    """Have a ramfs whose root is open mounted with the mode that it has, which CRIU compares.

    systemd 262 takes the right to write from a service's credentials after it has mounted them.
    """
    files = [
        Message(record).message(_FILE_REG) for record in read_records(f"{directory}/files.img")[1]
    ]
    modes = {
        file.text(_REG_NAME): stat.S_IMODE(file.number(_REG_MODE))
        for file in files
        if file is not None and stat.S_ISDIR(file.number(_REG_MODE))
    }
    for image in glob.glob(f"{directory}/mountpoints-*.img"):
        head, records = read_records(image)
        mended = [_with_mode(each, modes) for each in records]
        if mended != records:
            write_records(image, head, mended)


def _with_mode(record: bytes, modes: dict[str, int]) -> bytes:
    mount = Message(record)
    place, options = mount.text(_MOUNT_PLACE), mount.text(_MOUNT_OPTIONS)
    if mount.text(_MOUNT_TYPE) != "ramfs" or place not in modes:
        return record
    mount.set(_MOUNT_OPTIONS, re.sub(r"\bmode=\d+", f"mode={modes[place]:o}", options).encode())
    return mount.encode()


def _flags(file: Message) -> int:
    regular = file.message(_FILE_REG)
    return 0 if regular is None else regular.number(_REG_FLAGS)


def _readable(file: Message, id: int) -> bytes:
    copy = Message(file.encode())
    regular = copy.message(_FILE_REG)
    assert regular is not None
    regular.set(_REG_ID, id)
    regular.set(_REG_FLAGS, _O_RDONLY)
    copy.set(_FILE_ID, id)
    copy.set(_FILE_REG, regular.encode())
    return copy.encode()


def _mend_archive(path: str) -> None:
    """Put empty files in the place of device nodes, which an instance cannot make.

    What is bind mounted on files of /dev is dumped as if it were in there: the mounts made before
    the user namespace was entered are locked, and CRIU cannot look below them. A whiteout (0:0),
    which systemd makes below /run, may be made by anybody.
    """
    with tarfile.open(path, "r:gz") as archive:
        members = [(each, _content(archive, each)) for each in archive]
    if not any(_is_node(each) for each, _ in members):
        return
    with tarfile.open(f"{path}.new", "w:gz", format=tarfile.PAX_FORMAT) as archive:
        for member, content in members:
            if _is_node(member):
                member.type, member.mode = tarfile.REGTYPE, 0
            archive.addfile(member, None if content is None else io.BytesIO(content))
    os.rename(f"{path}.new", path)


def _mend_routes(path: str) -> None:
    """Take the ids of nexthop objects out of routes, which say the same in words.

    CRIU does not restore such objects, which systemd-networkd makes since 257, and the kernel
    refuses both at once. The file is what `ip route save` has written: a magic number, messages.
    """
    head, messages = netlink_messages(path)
    mended = [_without_nexthop(each) for each in messages]
    if mended != messages:
        with open(f"{path}.new", "wb") as file:
            file.write(head + b"".join(mended))
        os.rename(f"{path}.new", path)


def netlink_messages(path: str) -> tuple[bytes, list[bytes]]:
    """Return the magic number and the messages of a file that `ip` has saved.

    Raises ValueError when it is damaged.
    """
    with open(path, "rb") as file:
        raw = file.read()
    messages, position = [], 4
    while position + _NLMSG <= len(raw):
        (size,) = struct.unpack_from("<I", raw, position)
        if size < _NLMSG:
            raise ValueError(f"{path} is damaged: a message of {size} bytes")
        end = position + (size + 3 & ~3)
        messages.append(raw[position:end])
        position = end
    return raw[:4], messages


def _without_nexthop(message: bytes) -> bytes:
    head, position = message[: _NLMSG + _RTMSG], _NLMSG + _RTMSG
    kept: list[tuple[int, bytes]] = []
    while position + 4 <= len(message):
        size, kind = struct.unpack_from("<HH", message, position)
        if size < 4:
            return message
        kept.append((kind, message[position : position + size].ljust(size + 3 & ~3, b"\0")))
        position += size + 3 & ~3
    kinds = {kind for kind, _ in kept}
    if _RTA_NH_ID in kinds and kinds & _RTA_NEXTHOPS:
        kept = [(kind, raw) for kind, raw in kept if kind != _RTA_NH_ID]
    body = head[4:] + b"".join(raw for _, raw in kept)
    return struct.pack("<I", len(body) + 4) + body


def _is_node(member: tarfile.TarInfo) -> bool:
    return (member.ischr() or member.isblk()) and (member.devmajor, member.devminor) != (0, 0)


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes | None:
    file = archive.extractfile(member) if member.isreg() else None
    return None if file is None else file.read()


def read_records(path: str) -> tuple[bytes, list[bytes]]:
    """Return the magic numbers and the records of an image file. Raises ValueError."""
    with open(path, "rb") as file:
        raw = file.read()
    records, position = [], 8
    while position < len(raw):
        (size,) = struct.unpack_from("<I", raw, position)
        records.append(raw[position + 4 : position + 4 + size])
        position += 4 + size
    if position != len(raw):
        raise ValueError(f"{path} is damaged: its last record is cut off")
    return raw[:8], records


def write_records(path: str, head: bytes, records: Iterable[bytes]) -> None:
    """Replace an image file."""
    with open(f"{path}.new", "wb") as file:
        file.write(head)
        for each in records:
            file.write(struct.pack("<I", len(each)) + each)
    os.rename(f"{path}.new", path)


def _read_varint(raw: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = raw[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
