"""The filter is run by an interpreter of classic BPF: what it answers, not how it is built."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lxpy.kernel import policy, seccomp
from lxpy.kernel.libc import MACHINE
from lxpy.kernel.syscalls import numbers

X86_64, I386, AARCH64 = 0xC000003E, 0x40000003, 0xC00000B7
NATIVE = {"x86_64": X86_64, "aarch64": AARCH64}.get(MACHINE, 0)
ALLOW = policy.ALLOW


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
        elif operation == seccomp.AND:
            accumulator &= value
        elif operation == seccomp.RET:
            return int(value) if value == ALLOW else int(value) & 0xFFFF
        else:
            holds = {
                seccomp.JEQ: accumulator == value,
                seccomp.JGE: accumulator >= value,
                seccomp.JGT: accumulator > value,
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
    assert (
        verdict(seccomp.assemble(seccomp.DEFAULT), NATIVE, numbers(native)[name]) == seccomp.ENOSYS
    )


@pytest.mark.parametrize("name", ["read", "mount", "clone3", "setns", "openat2", "bpf"])
def test_the_rest_is_allowed(native: str, name: str) -> None:
    assert verdict(seccomp.assemble(seccomp.DEFAULT), NATIVE, numbers(native)[name]) == ALLOW


def test_unmounting_by_force_is_refused(native: str) -> None:
    umount = numbers(native)["umount2"]
    assert verdict(seccomp.assemble(seccomp.DEFAULT), NATIVE, umount, 0, 1) == seccomp.EACCES
    assert verdict(seccomp.assemble(seccomp.DEFAULT), NATIVE, umount, 0, 2) == ALLOW


def test_other_instruction_sets_are_refused(native: str) -> None:
    assert verdict(seccomp.assemble(seccomp.DEFAULT), 0x1234, 0) == seccomp.ENOSYS


@pytest.mark.skipif(MACHINE != "x86_64", reason="x86-64's other ways to call")
def test_the_ways_around_on_x86() -> None:
    program = seccomp.assemble(seccomp.DEFAULT)
    assert verdict(program, X86_64, seccomp.X32_BIT | 1) == seccomp.ENOSYS
    assert verdict(program, I386, numbers("i386")["init_module"]) == seccomp.ENOSYS
    assert verdict(program, I386, numbers("i386")["umount2"], 0, 1) == seccomp.EACCES
    assert verdict(program, I386, numbers("i386")["read"]) == ALLOW


def denying(*lines: str) -> bytes:
    return seccomp.assemble("\n".join((seccomp.DEFAULT, *lines)))


def test_more_calls_are_denied_on_request(native: str) -> None:
    program = denying("mkdirat errno 1", "fchmodat errno 5")
    assert verdict(program, NATIVE, numbers(native)["mkdirat"]) == seccomp.EPERM
    assert verdict(program, NATIVE, numbers(native)["fchmodat"]) == 5
    assert verdict(program, NATIVE, numbers(native)["openat"]) == ALLOW


def test_a_list_longer_than_a_jump_reaches(native: str) -> None:
    names = [name for name in numbers(native) if name not in ("read", "execve")]
    program = denying(*(f"{name} errno 1" for name in names))
    assert len(names) > 300
    assert verdict(program, NATIVE, numbers(native)["read"]) == ALLOW
    assert verdict(program, NATIVE, numbers(native)["openat2"]) == seccomp.EPERM
    assert verdict(program, 0x1234, 0) == seccomp.ENOSYS


def test_an_unknown_call_cannot_be_denied(native: str) -> None:
    with pytest.raises(ValueError, match='unknown system call "nosuch"'):
        denying("nosuch errno 1")


def test_only_what_is_allowed(native: str) -> None:
    text = "2\nallowlist errno 9\n[all]\nread\nexecve\nwrite errno 5\nof_another_machine"
    program = seccomp.assemble(text)
    assert verdict(program, NATIVE, numbers(native)["read"]) == ALLOW
    assert verdict(program, NATIVE, numbers(native)["execve"]) == ALLOW
    assert verdict(program, NATIVE, numbers(native)["write"]) == 5
    assert verdict(program, NATIVE, numbers(native)["openat"]) == 9


def test_numbers_of_version_1(native: str) -> None:
    known = numbers(native)
    program = seccomp.assemble(f"1\nallowlist\n{known['read']}\n{known['execve']}")
    assert verdict(program, NATIVE, known["read"]) == ALLOW
    assert verdict(program, NATIVE, known["write"]) == policy.KILL & 0xFFFF


@pytest.mark.parametrize(
    "text", ["2\nallowlist\nread", "2\ndenylist\nexecve", "2\ndenylist\nexecve errno 1"]
)
def test_something_must_be_able_to_run(native: str, text: str) -> None:
    with pytest.raises(ValueError, match="execve"):
        seccomp.assemble(text)


def test_a_policy_that_allows_everything_needs_no_filter(native: str) -> None:
    assert seccomp.assemble("2\ndenylist\n[all]") == b""


@pytest.mark.skipif(MACHINE != "x86_64", reason="x86-64's other way to call")
def test_programs_of_32_bits() -> None:
    text = "2\ndenylist errno 1\n[x86]\nread\n[x86_64]\nwrite\n[arm64]\nnosuch"
    program = seccomp.assemble(text)
    for audit, table, refused in ((X86_64, "x86_64", "write"), (I386, "i386", "read")):
        for name in ("read", "write"):
            wanted = seccomp.EPERM if name == refused else ALLOW
            assert verdict(program, audit, numbers(table)[name]) == wanted
    refusing = seccomp.assemble(text + "\nreject_compat")
    assert verdict(refusing, I386, numbers("i386")["write"]) == seccomp.ENOSYS


def holds(comparison: str, argument: int, value: int, mask: int) -> bool:
    """What a comparison is to say."""
    return {
        "NE": argument != value, "EQ": argument == value, "LT": argument < value,
        "LE": argument <= value, "GT": argument > value, "GE": argument >= value,
        "MASKED_EQ": argument & mask == value & mask,
    }[comparison]  # fmt: skip


#: values around the border of the two words that an argument has
WORDS = st.sampled_from([0, 1, 2, 0xFFFFFFFE, 0xFFFFFFFF, 0x100000000, 0x100000001, 2**64 - 1])


@given(st.sampled_from(policy.COMPARISONS), WORDS, WORDS, WORDS, WORDS)
def test_arguments_are_compared(
    comparison: str, argument: int, value: int, mask: int, other: int
) -> None:
    if not NATIVE:
        pytest.skip(f"no filter for {MACHINE}")
    ending = f",{mask:#x}" if comparison == "MASKED_EQ" else ""
    text = (
        f"2\ndenylist errno 7\n[all]\nread [2,{value},SCMP_CMP_{comparison}{ending}]"
        f"[0,{other},SCMP_CMP_EQ]\nwrite errno 8"
    )
    program = seccomp.assemble(text)
    number = numbers(MACHINE)["read"]
    wanted = 7 if holds(comparison, argument, value, mask) else ALLOW
    assert verdict(program, NATIVE, number, other, 5, argument) == wanted
    assert verdict(program, NATIVE, number, other ^ 1, 5, argument) == ALLOW
    assert verdict(program, NATIVE, numbers(MACHINE)["write"], other, 5, argument) == 8


def test_what_somebody_else_carries_out(native: str) -> None:
    text = "2\ndenylist\n[all]\nmknodat notify [2,8192,SCMP_CMP_MASKED_EQ,61440]"
    assert policy.parse(text).notifies and not policy.parse(seccomp.DEFAULT).notifies
    program = seccomp.assemble(text)
    number = numbers(native)["mknodat"]
    assert verdict(program, NATIVE, number, 0, 0, 0o020666) == policy.NOTIFY & 0xFFFF
    assert verdict(program, NATIVE, number, 0, 0, 0o100666) == ALLOW


@pytest.mark.parametrize(
    "text",
    [
        "", "3\ndenylist", "2", "2\nlist", "2\ndenylist maybe", "1\ndenylist\n1", "1\nallowlist\nx",
        "2\ndenylist\nread errno", "2\ndenylist\nread errno x", "2\ndenylist\nread errno 5000",
        "2\ndenylist\nread errno 1 2", "2\ndenylist\nREAD", "2\ndenylist\n[riscv]",
        "2\ndenylist\nread [6,1,SCMP_CMP_EQ]", "2\ndenylist\nread [0,1,EQ]",
        "2\ndenylist\nread [0,1,SCMP_CMP_EQ,1]", "2\ndenylist\nread [0,1,SCMP_CMP_MASKED_EQ]",
        "2\ndenylist\nread [0,99999999999999999999,SCMP_CMP_EQ]", "2\ndenylist\n" + "a" * 70000,
    ],
)  # fmt: skip
def test_policies_that_make_no_sense(text: str) -> None:
    with pytest.raises(ValueError):
        policy.parse(text)
