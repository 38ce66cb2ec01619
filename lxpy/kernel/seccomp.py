"""Seccomp deny list, assembled as classic BPF: no library needed.

What the user namespace does not already forbid and no container needs. Source: seccomp(2), LXD's
default policy.
"""

from __future__ import annotations

import ctypes
import struct

from lxpy.kernel.libc import MACHINE, prctl
from lxpy.kernel.syscalls import numbers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

PR_SET_SECCOMP = 22
SECCOMP_MODE_FILTER = 2
RET_ALLOW = 0x7FFF0000
RET_ERRNO = 0x00050000
ENOSYS, EACCES, EPERM = 38, 13, 1
MNT_FORCE = 1
X32_BIT = 0x40000000

LD_ABS, JEQ, JGE, JSET, RET = 0x20, 0x15, 0x35, 0x45, 0x06
OFFSET_NR, OFFSET_ARCH, OFFSET_ARG1_LOW = 0, 4, 24

#: machine -> the audit numbers of the instruction sets that its kernel runs, with our table's name
_ARCHITECTURES = {
    "x86_64": ((0xC000003E, "x86_64"), (0x40000003, "i386")),
    "aarch64": ((0xC00000B7, "aarch64"),),
}
DENIED = (
    "kexec_load", "kexec_file_load", "open_by_handle_at", "init_module", "finit_module",
    "delete_module",
)  # fmt: skip

_Instruction = tuple[int, int, int, int]


def assemble(extra: Iterable[str] = ()) -> bytes:
    """Return the filter as machine words; b"" on a processor whose numbers we do not know.

    `extra` are more calls to deny: "name", or "name errno N" (EPERM by default).
    Raises ValueError when a call has no number on this machine.
    """
    denied = [(name, ENOSYS) for name in DENIED]
    for line in extra:
        name, number = _parse(line)
        if all(numbers(table).get(name) is None for _, table in _ARCHITECTURES.get(MACHINE, ())):
            raise ValueError(f"unknown system call {name!r}")
        denied.append((name, number))
    blocks = [(audit, _block(table, denied)) for audit, table in _ARCHITECTURES.get(MACHINE, ())]
    if not blocks:
        return b""
    program: list[_Instruction] = [(LD_ABS, 0, 0, OFFSET_ARCH)]
    for audit, block in blocks:
        # Blocks may be longer than a conditional jump reaches: hop over an unconditional one.
        program += [(JEQ, 1, 0, audit), (0x05, 0, 0, len(block)), *block]
    program.append((RET, 0, 0, RET_ERRNO | ENOSYS))
    return b"".join(struct.pack("=HBBI", *each) for each in program)


def _block(table: str, denied: Sequence[tuple[str, int]]) -> list[_Instruction]:
    known = numbers(table)
    block: list[_Instruction] = [(LD_ABS, 0, 0, OFFSET_NR)]
    if table == "x86_64":
        block += [(JGE, 0, 1, X32_BIT), (RET, 0, 0, RET_ERRNO | ENOSYS)]
    for name, number in denied:
        if name in known:
            block += [(JEQ, 0, 1, known[name]), (RET, 0, 0, RET_ERRNO | number)]
    block += [
        (JEQ, 0, 3, known["umount2"]),
        (LD_ABS, 0, 0, OFFSET_ARG1_LOW),
        (JSET, 0, 1, MNT_FORCE),
        (RET, 0, 0, RET_ERRNO | EACCES),
        (RET, 0, 0, RET_ALLOW),
    ]
    return block


def _parse(line: str) -> tuple[str, int]:
    words = line.split()
    if len(words) == 3 and words[1] == "errno" and words[2].isdigit():
        return words[0], int(words[2])
    if len(words) == 1:
        return words[0], EPERM
    raise ValueError(f'invalid system call rule {line!r}: write "name" or "name errno 1"')


def install(program: bytes) -> None:
    """Filter this process and all it becomes. Needs CAP_SYS_ADMIN in its user namespace."""
    if not program:
        return
    buffer = ctypes.create_string_buffer(program, len(program))
    fprog = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(buffer))
    prctl("PR_SET_SECCOMP", PR_SET_SECCOMP, SECCOMP_MODE_FILTER, fprog)
