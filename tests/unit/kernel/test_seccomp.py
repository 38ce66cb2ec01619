"""The filter is run by an interpreter of classic BPF: what it answers, not how it is built."""

from __future__ import annotations

import struct

import pytest

from lxpy.kernel import seccomp
from lxpy.kernel.libc import MACHINE
from lxpy.kernel.syscalls import numbers

X86_64, I386, AARCH64 = 0xC000003E, 0x40000003, 0xC00000B7
NATIVE = {"x86_64": X86_64, "aarch64": AARCH64}.get(MACHINE, 0)
ALLOW = seccomp.RET_ALLOW


def verdict(program: bytes, audit: int, number: int, *arguments: int) -> int:
    """Run the filter on one system call; an errno, or ALLOW."""
    data = struct.pack("=IIQ6Q", number, audit, 0, *(*arguments, 0, 0, 0, 0, 0, 0)[:6])
    code = list(struct.iter_unpack("=HBBI", program))
    accumulator = position = 0
    while True:
        operation, true, false, value = code[position]
        position += 1
        if operation == seccomp.LD_ABS:
            accumulator = struct.unpack_from("=I", data, value)[0]
        elif operation == 0x05:
            position += value
        elif operation == seccomp.RET:
            return int(value) if value == ALLOW else int(value) & 0xFFFF
        else:
            holds = {
                seccomp.JEQ: accumulator == value,
                seccomp.JGE: accumulator >= value,
                seccomp.JSET: bool(accumulator & value),
            }[operation]
            position += true if holds else false


@pytest.fixture
def native() -> str:
    if not NATIVE:
        pytest.skip(f"no filter for {MACHINE}")
    return MACHINE


@pytest.mark.parametrize("name", seccomp.DENIED)
def test_what_no_container_needs_does_not_exist(native: str, name: str) -> None:
    assert verdict(seccomp.assemble(), NATIVE, numbers(native)[name]) == seccomp.ENOSYS


@pytest.mark.parametrize("name", ["read", "mount", "clone3", "setns", "openat2", "bpf"])
def test_the_rest_is_allowed(native: str, name: str) -> None:
    assert verdict(seccomp.assemble(), NATIVE, numbers(native)[name]) == ALLOW


def test_unmounting_by_force_is_refused(native: str) -> None:
    umount = numbers(native)["umount2"]
    assert verdict(seccomp.assemble(), NATIVE, umount, 0, 1) == seccomp.EACCES
    assert verdict(seccomp.assemble(), NATIVE, umount, 0, 2) == ALLOW


def test_other_instruction_sets_are_refused(native: str) -> None:
    assert verdict(seccomp.assemble(), 0x1234, 0) == seccomp.ENOSYS


@pytest.mark.skipif(MACHINE != "x86_64", reason="x86-64's other ways to call")
def test_the_ways_around_on_x86() -> None:
    program = seccomp.assemble()
    assert verdict(program, X86_64, seccomp.X32_BIT | 1) == seccomp.ENOSYS
    assert verdict(program, I386, numbers("i386")["init_module"]) == seccomp.ENOSYS
    assert verdict(program, I386, numbers("i386")["umount2"], 0, 1) == seccomp.EACCES
    assert verdict(program, I386, numbers("i386")["read"]) == ALLOW


def test_more_calls_are_denied_on_request(native: str) -> None:
    program = seccomp.assemble(["mkdirat", "fchmodat errno 5"])
    assert verdict(program, NATIVE, numbers(native)["mkdirat"]) == seccomp.EPERM
    assert verdict(program, NATIVE, numbers(native)["fchmodat"]) == 5
    assert verdict(program, NATIVE, numbers(native)["openat"]) == ALLOW


def test_a_list_longer_than_a_jump_reaches(native: str) -> None:
    names = [name for name in numbers(native) if name != "read"]
    program = seccomp.assemble(names)
    assert len(names) > 300
    assert verdict(program, NATIVE, numbers(native)["read"]) == ALLOW
    assert verdict(program, NATIVE, numbers(native)["openat2"]) == seccomp.EPERM
    assert verdict(program, 0x1234, 0) == seccomp.ENOSYS


@pytest.mark.parametrize("line", ["nosuch", "read errno", "read errno x", "read allow", ""])
def test_rules_that_make_no_sense(native: str, line: str) -> None:
    with pytest.raises(ValueError, match="system call"):
        seccomp.assemble([line])
