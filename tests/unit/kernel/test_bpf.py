"""The device program is run by an interpreter of the few eBPF operations it consists of."""

from __future__ import annotations

import struct

import pytest

from lxpy.kernel import bpf

MKNOD, READ, WRITE = 1, 2, 4


def allows(program: bytes, kind: str, major: int, minor: int, access: int) -> bool:
    """Run the program on one access to one device."""
    context = struct.pack("=III", access << 16 | {"b": 1, "c": 2}[kind], major, minor)
    code = list(struct.iter_unpack("=BBhi", program))
    registers = [0] * 11
    position = 0
    while True:
        operation, both, offset, value = code[position]
        position += 1
        target, source = both & 15, both >> 4
        if operation == 0x61:
            registers[target] = struct.unpack_from("=I", context, offset)[0]
        elif operation == 0xBF:
            registers[target] = registers[source]
        elif operation == 0xB7:
            registers[target] = value
        elif operation == 0x57:
            registers[target] &= value
        elif operation == 0x77:
            registers[target] >>= value
        elif operation == 0x55:
            position += offset if registers[target] != value else 0
        elif operation == 0x95:
            return bool(registers[0])
        else:
            raise AssertionError(f"operation {operation:#x}")


def test_listed_devices_may_be_opened() -> None:
    program = bpf.device_program([("c", 1, 3), ("b", 7, 0), ("c", 136, -1)])
    assert allows(program, "c", 1, 3, READ | WRITE)
    assert allows(program, "b", 7, 0, READ)
    assert allows(program, "c", 136, 0, WRITE)
    assert allows(program, "c", 136, 999, READ | WRITE)


@pytest.mark.parametrize(
    ("kind", "major", "minor"), [("c", 1, 1), ("b", 1, 3), ("b", 8, 0), ("c", 7, 0)]
)
def test_no_other_device_can_be_opened_but_all_can_be_made(
    kind: str, major: int, minor: int
) -> None:
    program = bpf.device_program([("c", 1, 3), ("b", 7, 0)])
    assert not allows(program, kind, major, minor, READ)
    assert not allows(program, kind, major, minor, WRITE)
    assert not allows(program, kind, major, minor, MKNOD | READ)
    assert allows(program, kind, major, minor, MKNOD)


def test_nothing_listed_opens_nothing() -> None:
    assert not allows(bpf.device_program([]), "c", 1, 3, READ)


def test_the_standard_nodes() -> None:
    program = bpf.device_program(bpf.STANDARD)
    assert allows(program, "c", 5, 1, READ | WRITE)
    assert not allows(program, "c", 1, 1, READ)
