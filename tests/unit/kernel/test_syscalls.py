"""Tables of system call numbers."""

from __future__ import annotations

import pytest

from lxpy.kernel.libc import MACHINE, NUMBERS, failure
from lxpy.kernel.syscalls import numbers


@pytest.mark.parametrize(
    ("table", "name", "number"),
    [
        ("x86_64", "read", 0),
        ("x86_64", "umount2", 166),
        ("x86_64", "kexec_load", 246),
        ("x86_64", "open_by_handle_at", 304),
        ("x86_64", "finit_module", 313),
        ("x86_64", "rseq", 334),
        ("i386", "umount2", 52),
        ("i386", "init_module", 128),
        ("i386", "open_by_handle_at", 342),
        ("aarch64", "umount2", 39),
        ("aarch64", "kexec_file_load", 294),
        ("aarch64", "openat2", 437),
    ],
)
def test_known_numbers(table: str, name: str, number: int) -> None:
    """Source: asm/unistd_64.h, asm/unistd_32.h, asm-generic/unistd.h."""
    assert numbers(table)[name] == number


@pytest.mark.parametrize("table", ["x86_64", "aarch64"])
def test_no_number_is_given_twice(table: str) -> None:
    known = numbers(table)
    assert len(set(known.values())) == len(known)


def test_the_calls_that_we_make_have_the_numbers_of_the_tables() -> None:
    if MACHINE not in ("x86_64", "aarch64"):
        pytest.skip(f"no table for {MACHINE}")
    assert {name: numbers(MACHINE)[name] for name in NUMBERS} == NUMBERS


def test_errors_name_call_and_subject() -> None:
    assert "mount(/proc): " in str(failure("mount", "/proc"))
