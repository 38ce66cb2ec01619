"""SFTP's messages: taken apart, put together, and what is malformed."""

from __future__ import annotations

import os
import socket
import stat
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lxpy.runtime.guestfiles import GuestFiles
from lxpy.services.files import sftpwire as wire
from lxpy.services.files.sftpserver import Server
from lxpy.services.files.sftpwire import Attrs, BadMessage, Message, number, packet, string


def test_taking_apart() -> None:
    message = Message(number(7) + struct.pack(">Q", 1 << 40) + string(b"a/b") + string(b"x"))
    assert (message.number(), message.long(), message.path()) == (7, 1 << 40, "/a/b")
    assert message.string() == b"x"
    with pytest.raises(BadMessage):
        message.number()
    with pytest.raises(BadMessage):
        Message(number(5) + b"four").string()
    with pytest.raises(BadMessage):
        Message(string(b"a\0b")).path()


def test_attributes() -> None:
    assert Message(number(0)).attrs() == Attrs()
    data = struct.pack(">IQ5I", 0x0F, 9, 1, 2, 0o100644, 3, 4)
    assert Message(data).attrs() == Attrs(9, (1, 2), 0o644, (3, 4))
    extended = struct.pack(">II", 0x80000000, 1) + string(b"name") + string(b"value")
    assert Message(extended).attrs() == Attrs()
    status = os.stat("/")
    sent = Message(wire.attributes(status, (5, 6))).attrs()
    assert sent.owner == (5, 6) and sent.mode == stat.S_IMODE(status.st_mode)
    assert wire.long_name(b"n", status, (5, 6)).startswith(b"d")


@pytest.fixture
def session(tmp_path: Path) -> Iterator[socket.socket]:
    """A client's end of a session on a directory."""
    root = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=Server(GuestFiles(root), theirs).serve)
    thread.start()
    ours.settimeout(5)
    yield ours
    ours.close()
    thread.join(5)
    theirs.close()
    os.close(root)


def ask(session: socket.socket, kind: int, *parts: bytes) -> tuple[int, Message]:
    """Send a request of number 1; kind and rest of the answer."""
    session.sendall(packet(kind, *parts))
    size = int.from_bytes(session.recv(4, socket.MSG_WAITALL), "big")
    data = session.recv(size, socket.MSG_WAITALL)
    return data[0], Message(data[1:])


def code(session: socket.socket, kind: int, *parts: bytes) -> int:
    """Send a request; the code of the status that answers it."""
    answered, message = ask(session, kind, number(1), *parts)
    assert answered == wire.STATUS and message.number() == 1
    return message.number()


def test_a_session(session: socket.socket, tmp_path: Path) -> None:
    kind, message = ask(session, wire.INIT, number(3))
    assert (kind, message.number()) == (wire.VERSION_REPLY, 3)
    create = number(2 | 8) + number(0)
    kind, message = ask(session, wire.OPEN, number(1), string(b"new"), create)
    assert kind == wire.HANDLE and message.number() == 1
    handle = string(message.string())
    offset = struct.pack(">Q", 2)
    assert code(session, wire.WRITE, handle, offset, string(b"data")) == wire.OK
    assert code(session, wire.CLOSE, handle) == wire.OK
    assert (tmp_path / "new").read_bytes() == b"\0\0data"
    for request in ((wire.CLOSE, handle), (wire.READ, b""), (wire.READDIR, string(b"9"))):
        assert code(session, *request) == wire.BAD_MESSAGE
    assert code(session, 99) == wire.OP_UNSUPPORTED
    assert code(session, wire.STAT, string(b"/no")) == wire.NO_SUCH_FILE
    assert code(session, wire.RMDIR, string(b"/")) == wire.FAILURE
    kind, message = ask(session, wire.REALPATH, number(1), string(b"/a/../b/."))
    assert kind == wire.NAME and (message.number(), message.number()) == (1, 1)
    assert message.string() == b"/b"
