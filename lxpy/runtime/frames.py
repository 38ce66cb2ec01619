"""Messages between daemon and supervisor: one JSON object to a packet, descriptors attached.

Requests are {"id", "op", ...}, answers {"id", "ok" | "error"}, news {"event", ...}. A message too
long for a packet travels in a memory file.
"""

from __future__ import annotations

import _socket
import json
import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    Message = dict[str, Any]

VERSION = 1
PACKET_BYTES = 96 * 1024
_ANCILLARY_BYTES = 4096
_dumps = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def pair() -> tuple[_socket.socket, _socket.socket]:
    """Return two connected sockets that keep message borders."""
    return _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)


def pack(message: Message, fds: Sequence[int] = ()) -> tuple[bytes, list[int], int]:
    """Return what to send: the packet, its descriptors, and one to close after sending (or -1)."""
    data = _dumps(message).encode()
    if len(data) <= PACKET_BYTES:
        return data, list(fds), -1
    memory = os.memfd_create("lxpy-frame", os.MFD_CLOEXEC)
    view = memoryview(data)
    while view:
        view = view[os.write(memory, view) :]
    return b'{"long":true}', [memory, *fds], memory


def send(sock: _socket.socket, message: Message, fds: Sequence[int] = ()) -> None:
    """Send one message. Raises OSError, BlockingIOError when the peer does not read."""
    data, attached, spare = pack(message, fds)
    try:
        send_packed(sock, data, attached)
    finally:
        if spare >= 0:
            os.close(spare)


def send_packed(sock: _socket.socket, data: bytes, fds: Sequence[int]) -> None:
    """Send what `pack` returned."""
    ancillary = []
    if fds:
        packed = struct.pack(f"{len(fds)}i", *fds)
        ancillary = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, packed)]
    sock.sendmsg([data], ancillary, _socket.MSG_NOSIGNAL)


def receive(sock: _socket.socket) -> tuple[Message, list[int]] | None:
    """Return the next message and its descriptors, None at the end of the connection."""
    data, ancillary, _, _ = sock.recvmsg(
        PACKET_BYTES + 1, _ANCILLARY_BYTES, _socket.MSG_CMSG_CLOEXEC
    )
    fds: list[int] = []
    for level, kind, raw in ancillary:
        if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
            fds += struct.unpack(f"{len(raw) // 4}i", raw[: len(raw) // 4 * 4])
    if not data:
        close_all(fds)
        return None
    message: Message = json.loads(data)
    if message.get("long"):
        message = json.loads(_read_all(fds.pop(0)))
    return message, fds


def _read_all(fd: int) -> bytes:
    try:
        size = os.fstat(fd).st_size
        parts, offset = [], 0
        while offset < size:
            part = os.pread(fd, size - offset, offset)
            if not part:
                break
            parts.append(part)
            offset += len(part)
        return b"".join(parts)
    finally:
        os.close(fd)


def close_all(fds: Sequence[int]) -> None:
    """Close descriptors that nobody wants."""
    for fd in fds:
        if fd >= 0:
            os.close(fd)
