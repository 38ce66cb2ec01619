"""Protocol buffers as far as the control socket has them: numbers and strings of bytes.

Source: protobuf.dev, "Encoding".
"""

from __future__ import annotations

from collections.abc import Iterable

from lxpy.errors import Failed

Value = int | bytes
Field = tuple[int, Value]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MASK = (1 << 64) - 1


def encode(fields: Iterable[Field]) -> bytes:
    """Return a message of these fields, in their order. Numbers are of 64 bits, signed."""
    out = bytearray()
    for number, value in fields:
        if isinstance(value, int):
            out += _varint(number << 3 | _VARINT) + _varint(value & _MASK)
        else:
            out += _varint(number << 3 | _BYTES) + _varint(len(value)) + value
    return bytes(out)


def decode(data: bytes) -> list[Field]:
    """Return the fields of a message, unknown ones too. Raises Failed when it is cut short."""
    fields: list[Field] = []
    place = 0
    while place < len(data):
        key, place = _read(data, place)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, place = _read(data, place)
            fields.append((number, value))
            continue
        if kind == _BYTES:
            size, place = _read(data, place)
        elif kind in (_FIXED64, _FIXED32):
            size = 8 if kind == _FIXED64 else 4
        else:
            raise Failed(f"The migration header has a field of an unknown kind ({kind})")
        if place + size > len(data):
            raise Failed("The migration header is cut short")
        fields.append((number, data[place : place + size]))
        place += size
    return fields


def signed(value: Value) -> int:
    """Return a number as the signed one that it stands for; 0 for anything else."""
    if not isinstance(value, int):
        return 0
    return value - (1 << 64) if value >> 63 else value


def text(value: Value) -> str:
    """Return a string."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else ""


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while place < len(data) and shift < 70:
        byte = data[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return value & _MASK, place
    raise Failed("The migration header is cut short")
