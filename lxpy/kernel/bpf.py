"""Which device nodes the processes of a cgroup2 may open: a small eBPF program.

Only privileged instances need it: in a user namespace no device node can be made. Works beside v1
hierarchies, too. Source: bpf(2), cgroup-v2.rst "Device controller", linux/bpf.h.
"""

from __future__ import annotations

import ctypes
import os
import struct

from lxpy.kernel.libc import syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    #: "c" or "b", major, minor (-1 for any)
    Device = tuple[str, int, int]

#: What the standard nodes of /dev lead to: null zero full random urandom tty console ptmx fuse tun,
#: and every pts.
STANDARD: tuple[Device, ...] = (
    ("c", 1, 3), ("c", 1, 5), ("c", 1, 7), ("c", 1, 8), ("c", 1, 9), ("c", 5, 0), ("c", 5, 1),
    ("c", 5, 2), ("c", 10, 229), ("c", 10, 200), ("c", 136, -1),
)  # fmt: skip

_PROG_LOAD, _PROG_ATTACH, _PROG_GET_FD_BY_ID, _PROG_QUERY = 5, 8, 13, 16
_TYPE_CGROUP_DEVICE = 15
_CGROUP_DEVICE = 6
_ALLOW_MULTI, _REPLACE = 2, 4
_KINDS = {"b": 1, "c": 2}
_READ_OR_WRITE = 6
# Operations on registers: r1 is the context (kind and access, major, minor), r0 the verdict.
_LOAD, _MOVE_REGISTER, _MOVE, _AND, _SHIFT_RIGHT = 0x61, 0xBF, 0xB7, 0x57, 0x77
_JUMP_UNEQUAL, _EXIT = 0x55, 0x95


def device_program(devices: Iterable[Device]) -> bytes:
    """Assemble the program: `devices` may be opened, all may be made by mknod, as in LXD."""
    program = [
        _instruction(_LOAD, 2, source=1, offset=0),
        _instruction(_MOVE_REGISTER, 3, source=2),
        _instruction(_AND, 2, value=0xFFFF),  # r2: block or character
        _instruction(_SHIFT_RIGHT, 3, value=16),  # r3: what for
        _instruction(_LOAD, 4, source=1, offset=4),
        _instruction(_LOAD, 5, source=1, offset=8),
    ]
    for kind, major, minor in devices:
        wanted = [(2, _KINDS[kind]), (4, major)]
        if minor >= 0:
            wanted.append((5, minor))
        for index, (register, value) in enumerate(wanted):
            over = len(wanted) - index + 1
            program.append(_instruction(_JUMP_UNEQUAL, register, offset=over, value=value))
        program += _verdict(allow=True)
    program += [
        _instruction(_AND, 3, value=_READ_OR_WRITE),
        _instruction(_JUMP_UNEQUAL, 3, offset=2, value=0),
        *_verdict(allow=True),
        *_verdict(allow=False),
    ]
    return b"".join(program)


def _instruction(
    code: int, register: int, *, source: int = 0, offset: int = 0, value: int = 0
) -> bytes:
    return struct.pack("=BBhi", code, register | source << 4, offset, value)


def _verdict(*, allow: bool) -> list[bytes]:
    return [_instruction(_MOVE, 0, value=int(allow)), _instruction(_EXIT, 0)]


def restrict_devices(cgroup_fd: int, devices: Iterable[Device]) -> None:
    """Let the processes of the cgroup open `devices` alone, in place of what was set before.

    Groups below may restrict further. Raises OSError.
    """
    new = _load(device_program(devices))
    try:
        old = _attached(cgroup_fd)
        flags = _ALLOW_MULTI | (_REPLACE if old >= 0 else 0)
        request = struct.pack("=4IiI", cgroup_fd, new, _CGROUP_DEVICE, flags, max(old, 0), 0)
        _bpf(_PROG_ATTACH, bytearray(request))
        if old >= 0:
            os.close(old)
    finally:
        os.close(new)


def _load(program: bytes) -> int:
    code = ctypes.create_string_buffer(program, len(program))
    licence = ctypes.create_string_buffer(b"Apache-2.0")
    request = struct.pack(
        "=IIQQ6I16sII", _TYPE_CGROUP_DEVICE, len(program) // 8, ctypes.addressof(code),
        ctypes.addressof(licence), 0, 0, 0, 0, 0, 0, b"lxpy_devices", 0, _CGROUP_DEVICE,
    )  # fmt: skip
    return _bpf(_PROG_LOAD, bytearray(request))


def _attached(cgroup_fd: int) -> int:
    """Return a descriptor of the program attached to this very group, -1 for none."""
    ids = (ctypes.c_uint32 * 1)()
    request = bytearray(
        struct.pack("=4IQI4x", cgroup_fd, _CGROUP_DEVICE, 0, 0, ctypes.addressof(ids), 1)
    )
    _bpf(_PROG_QUERY, request)
    if not struct.unpack_from("=I", request, 24)[0]:
        return -1
    return _bpf(_PROG_GET_FD_BY_ID, bytearray(struct.pack("=3I", ids[0], 0, 0)))


def _bpf(command: int, request: bytearray) -> int:
    buffer = (ctypes.c_char * len(request)).from_buffer(request)
    return syscall("bpf", f"command {command}", command, buffer, len(request))
