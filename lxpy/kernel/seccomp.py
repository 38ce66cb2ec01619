"""Seccomp filters, assembled as classic BPF from a policy: no library needed.

Source: seccomp(2), the kernel's filter.rst; LXD's default policy.
"""

from __future__ import annotations

import ctypes
import struct

from lxpy.kernel.libc import MACHINE, prctl, syscall
from lxpy.kernel.policy import ALLOW, ERRNO, LOG, Argument, Policy, parse
from lxpy.kernel.syscalls import numbers

PR_SET_SECCOMP = 22
SECCOMP_MODE_FILTER = 2
SECCOMP_SET_MODE_FILTER = 1
FILTER_FLAG_NEW_LISTENER = 8
ENOSYS, EACCES, EPERM = 38, 13, 1
MNT_FORCE = 1
X32_BIT = 0x40000000
_MAX_INSTRUCTIONS = 4096

LD_ABS, AND, JA, JEQ, JGT, JGE, JSET, RET = 0x20, 0x54, 0x05, 0x15, 0x25, 0x35, 0x45, 0x06
OFFSET_NR, OFFSET_ARCH, OFFSET_ARGS = 0, 4, 16

#: machine -> the audit numbers of the instruction sets that its kernel runs, with our table's name
ARCHITECTURES = {
    "x86_64": ((0xC000003E, "x86_64"), (0x40000003, "i386")),
    "aarch64": ((0xC00000B7, "aarch64"),),
}
#: What the user namespace does not already forbid and no container needs.
DENIED = (
    "kexec_load", "kexec_file_load", "open_by_handle_at", "init_module", "finit_module",
    "delete_module",
)  # fmt: skip
DEFAULT_LINES = ("reject_force_umount", "[all]", *(f"{name} errno {ENOSYS}" for name in DENIED))
DEFAULT = "\n".join(("2", "denylist", *DEFAULT_LINES))

_Instruction = tuple[int, int, int, int]


def assemble(text: str) -> bytes:
    """Return the filter of a policy as machine words.

    b"" on a processor whose numbers we do not know, and for a policy that allows everything.
    Raises ValueError when a call has no number on this machine, or init could not be executed.
    """
    policy = parse(text)
    tables = ARCHITECTURES.get(MACHINE, ())
    _check(policy, [table for _, table in tables])
    allows_all = policy.default == ALLOW and policy.compat and not policy.rejects_force_umount
    if not tables or (allows_all and not policy.rules):
        return b""
    program: list[_Instruction] = [(LD_ABS, 0, 0, OFFSET_ARCH)]
    for audit, table in tables if policy.compat else tables[:1]:
        block = _block(table, policy)
        # Blocks may be longer than a conditional jump reaches: hop over an unconditional one.
        program += [(JEQ, 1, 0, audit), (JA, 0, 0, len(block)), *block]
    program.append((RET, 0, 0, ERRNO | ENOSYS))
    if len(program) > _MAX_INSTRUCTIONS:
        raise ValueError("the policy has too many rules for the kernel")
    return b"".join(struct.pack("=HBBI", *each) for each in program)


def _check(policy: Policy, tables: list[str]) -> None:
    for rule in policy.rules:
        if rule.action == ALLOW or rule.name.isdigit() or rule.table not in ("", *tables):
            continue
        if all(rule.name not in numbers(each) for each in tables):
            raise ValueError(f'unknown system call "{rule.name}"')
    execute = [
        rule.action
        for rule in policy.rules
        if not rule.arguments and rule.name in ("execve", str(numbers(MACHINE).get("execve")))
    ]
    if tables and (execute[0] if execute else policy.default) not in (ALLOW, LOG):
        raise ValueError("the policy does not allow execve: no program could be started")


def _block(table: str, policy: Policy) -> list[_Instruction]:
    """Return the rules of one instruction set; the number of the call is loaded first."""
    known = numbers(table)
    block: list[_Instruction] = [(LD_ABS, 0, 0, OFFSET_NR)]
    if table == "x86_64":
        block += [(JGE, 0, 1, X32_BIT), (RET, 0, 0, ERRNO | ENOSYS)]
    if policy.rejects_force_umount:
        forced = [Argument(1, MNT_FORCE, "MASKED_EQ", MNT_FORCE)]
        block += _rule(known["umount2"], ERRNO | EACCES, forced)
    for rule in policy.rules:
        number = int(rule.name) if rule.name.isdigit() else known.get(rule.name)
        if number is not None and rule.table in ("", table):
            block += _rule(number, rule.action, rule.arguments)
    return [*block, (RET, 0, 0, policy.default)]


def _rule(number: int, action: int, arguments: list[Argument]) -> list[_Instruction]:
    """Return the instructions of one rule; where it does not apply they are run through."""
    if not arguments:
        return [(JEQ, 0, 1, number), (RET, 0, 0, action)]
    tests = [_compared(each) for each in arguments]
    body: list[_Instruction] = []
    # The call's number is not in the accumulator any more when a comparison has failed.
    left = sum(map(len, tests)) + len(tests) + 1
    for test in tests:
        # A test jumps to its end (0 behind it) when it holds, else falls into the jump away.
        body += test
        left -= len(test) + 1
        body.append((JA, 0, 0, left))
    body += [(RET, 0, 0, action), (LD_ABS, 0, 0, OFFSET_NR)]
    return [(JEQ, 1, 0, number), (JA, 0, 0, len(body)), *body]


def _compared(argument: Argument) -> list[_Instruction]:
    """Return a test of an argument that skips the next instruction when it holds.

    Arguments are 64 bits in two words, the low one first: both machines are little-endian.
    """
    low, high = argument.value & 0xFFFFFFFF, argument.value >> 32
    place = OFFSET_ARGS + 8 * argument.index
    load_low, load_high = (LD_ABS, 0, 0, place), (LD_ABS, 0, 0, place + 4)
    kind = argument.comparison
    if kind == "EQ":
        return [load_high, (JEQ, 0, 2, high), load_low, (JEQ, 1, 0, low)]
    if kind == "NE":
        return _negated(_compared(Argument(argument.index, argument.value, "EQ", 0)))
    if kind == "MASKED_EQ":
        mask_low, mask_high = argument.mask & 0xFFFFFFFF, argument.mask >> 32
        return [
            load_high, (AND, 0, 0, mask_high), (JEQ, 0, 3, high & mask_high),
            load_low, (AND, 0, 0, mask_low), (JEQ, 1, 0, low & mask_low),
        ]  # fmt: skip
    if kind in ("GT", "GE"):
        last = JGT if kind == "GT" else JGE
        return [load_high, (JGT, 4, 0, high), (JEQ, 0, 2, high), load_low, (last, 1, 0, low)]
    other = "GE" if kind == "LT" else "GT"
    return _negated(_compared(Argument(argument.index, argument.value, other, 0)))


def _negated(test: list[_Instruction]) -> list[_Instruction]:
    """Return a test that skips the next instruction when another would not."""
    return [*test, (JA, 0, 0, 2), (JA, 0, 0, 0)]


def install(program: bytes) -> None:
    """Filter this process and all it becomes. Needs CAP_SYS_ADMIN in its user namespace."""
    if program:
        fprog, _buffer = _fprog(program)
        prctl("PR_SET_SECCOMP", PR_SET_SECCOMP, SECCOMP_MODE_FILTER, fprog)


def install_with_listener(program: bytes) -> int:
    """Filter this process; return what hears of the calls that somebody else carries out."""
    fprog, _buffer = _fprog(program)
    return syscall("seccomp", "listener", SECCOMP_SET_MODE_FILTER, FILTER_FLAG_NEW_LISTENER, fprog)


def _fprog(program: bytes) -> tuple[bytes, object]:
    """Return a struct sock_fprog, and what it points to."""
    buffer = ctypes.create_string_buffer(program, len(program))
    return struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(buffer)), buffer
