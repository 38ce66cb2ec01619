"""What both servers say on the control socket: a header each, and at the end whether it is done.

Every server leaves out what it does not know; fields that LXD requires are always written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from lxpy.errors import Failed
from lxpy.migration import wire
from lxpy.migration.wire import Field, Value, signed, text
from lxpy.units import is_false

#: what LXD writes for "never": the seconds of its zero time
NEVER = -62135596800
INDEX_VERSION = 1
#: of a btrfs stream: it has a description, which lists the subvolumes
BTRFS_FEATURES = frozenset((1, 2))


class Form(IntEnum):
    """How the files travel; others than these exist and are answered with RSYNC."""

    RSYNC = 0
    BTRFS = 1


@dataclass(frozen=True, slots=True)
class Rsync:
    """What both rsyncs are called with. `whole` is ours: hard links and access lists, too."""

    xattrs: bool = False
    delete: bool = False
    compress: bool = False
    bidirectional: bool = False
    whole: bool = False

    def both(self, other: Rsync) -> Rsync:
        """Return what both sides can."""
        return Rsync(*(a and b for a, b in zip(self._values(), other._values(), strict=True)))

    def _values(self) -> tuple[bool, ...]:
        return self.xattrs, self.delete, self.compress, self.bidirectional, self.whole

    def fields(self) -> list[Field]:
        """Return those that are set; the number of our own is far from theirs."""
        numbers = (1, 2, 3, 4, 100)
        found = zip(numbers, self._values(), strict=True)
        return [(number, 1) for number, value in found if value]

    @classmethod
    def of(cls, data: bytes) -> Rsync:
        """Decode it."""
        found = {number for number, value in wire.decode(data) if value}
        return cls(*(number in found for number in (1, 2, 3, 4, 100)))


@dataclass(frozen=True, slots=True)
class Shift:
    """Ids on the source's disk that stand for ids of the guest: `host` for `inside`, and so on."""

    uid: bool
    gid: bool
    host: int
    inside: int
    size: int


@dataclass(frozen=True, slots=True)
class SnapshotHeader:
    """A snapshot; dates are seconds since 1970, NEVER for none.

    `made` is ours: when a snapshot of a custom volume was made, of which LXD says nothing.
    """

    name: str
    config: Mapping[str, str] = field(default_factory=dict)
    devices: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    profiles: tuple[str, ...] = ()
    ephemeral: bool = False
    architecture: int = 0
    stateful: bool = False
    created: int = 0
    used: int = 0
    expires: int = 0
    made: int = 0

    def fields(self) -> list[Field]:
        """Return all of its fields."""
        return [
            (1, self.name.encode()),
            *_pairs(2, self.config),
            *((3, each.encode()) for each in self.profiles),
            (4, int(self.ephemeral)),
            *(
                (5, wire.encode([(1, name.encode()), *_pairs(2, device)]))
                for name, device in self.devices.items()
            ),
            (6, self.architecture),
            (7, int(self.stateful)),
            (8, self.created),
            (9, self.used),
            (10, self.expires),
            *([(100, self.made)] if self.made else []),
        ]

    @classmethod
    def of(cls, data: bytes) -> SnapshotHeader:
        """Decode it."""
        found = _Found(data)
        devices = {}
        for each in found.all(5):
            device = _Found(each)
            devices[text(device.last(1))] = _mapping(device.all(2))
        return cls(
            name=text(found.last(1)),
            config=_mapping(found.all(2)),
            devices=devices,
            profiles=tuple(each.decode("utf-8", "replace") for each in found.all(3)),
            ephemeral=bool(found.last(4)),
            architecture=signed(found.last(6)),
            stateful=bool(found.last(7)),
            created=signed(found.last(8)),
            used=signed(found.last(9)),
            expires=signed(found.last(10)),
            made=signed(found.last(100)),
        )


@dataclass(frozen=True, slots=True)
class Header:
    """What the source offers, or what the sink takes of that.

    `live` is LXD's word for a memory as well, which only LXD could take; `memory` is ours.
    """

    form: int
    snapshots: tuple[SnapshotHeader, ...] = ()
    shifts: tuple[Shift, ...] = ()
    rsync: Rsync | None = None
    btrfs: frozenset[int] = frozenset()
    refresh: bool = False
    live: bool = False
    size: int = 0
    index_version: int = 0
    memory: bool = False

    def encode(self) -> bytes:
        """Return the message."""
        fields: list[Field] = [(1, int(self.form))]
        fields += [
            (3, wire.encode([
                (1, int(each.uid)), (2, int(each.gid)), (3, each.host), (4, each.inside),
                (5, each.size),
            ]))
            for each in self.shifts
        ]  # fmt: skip
        fields += [(4, each.name.encode()) for each in self.snapshots]
        fields += [(5, wire.encode(each.fields())) for each in self.snapshots]
        if self.rsync is not None:
            fields.append((8, wire.encode(self.rsync.fields())))
        fields.append((9, int(self.refresh)))
        if self.size:
            fields.append((11, self.size))
        if self.btrfs:
            fields.append((12, wire.encode([(number, 1) for number in sorted(self.btrfs)])))
        if self.index_version:
            fields.append((13, self.index_version))
        if self.memory:
            fields.append((100, 1))
        return wire.encode(fields)

    @classmethod
    def decode(cls, data: bytes) -> Header:
        """Decode it. Raises Failed."""
        found = _Found(data)
        named = {each.name: each for each in map(SnapshotHeader.of, found.all(5))}
        names = [each.decode("utf-8", "replace") for each in found.all(4)]
        rsync = found.all(8)
        btrfs = [number for each in found.all(12) for number, value in wire.decode(each) if value]
        return cls(
            form=signed(found.last(1)),
            snapshots=tuple(named.get(name) or SnapshotHeader(name) for name in names),
            shifts=tuple(map(_shift, found.all(3))),
            rsync=Rsync.of(rsync[-1]) if rsync else None,
            btrfs=frozenset(btrfs),
            refresh=bool(found.last(9)),
            live=found.has(2),
            size=signed(found.last(11)),
            index_version=signed(found.last(13)),
            memory=bool(found.last(100)),
        )


@dataclass(frozen=True, slots=True)
class Control:
    """The end: it is done, or why not."""

    success: bool
    message: str = ""

    def encode(self) -> bytes:
        """Return the message."""
        return wire.encode([(1, int(self.success)), (2, self.message.encode())])

    @classmethod
    def decode(cls, data: bytes) -> Control:
        """Decode it. Raises Failed."""
        found = _Found(data)
        return cls(bool(found.last(1)), text(found.last(2)))


def offered(pool: Mapping[str, str]) -> Rsync:
    """Return what rsync can be called with for a pool of this config."""
    compress = not is_false(pool.get("rsync.compression", "true"))
    return Rsync(xattrs=True, delete=True, compress=compress, bidirectional=True, whole=True)


def agreed(offer: Header, answer: Header) -> Rsync:
    """Return what both rsyncs are called with. Raises Failed when there is no common way."""
    features = (offer.rsync or Rsync()).both(answer.rsync or Rsync())
    if not features.bidirectional:
        raise Failed("The other server is too old: its rsync does not say when it has ended")
    return features


class _Found:
    """The fields of a message by their numbers."""

    def __init__(self, data: bytes) -> None:
        self._fields = wire.decode(data)

    def has(self, number: int) -> bool:
        return any(each == number for each, _ in self._fields)

    def last(self, number: int) -> Value:
        """Return the value that counts of a field that is there once, 0 if it is not."""
        return next((value for each, value in reversed(self._fields) if each == number), 0)

    def all(self, number: int) -> list[bytes]:
        return [v for each, v in self._fields if each == number and isinstance(v, bytes)]


def _pairs(number: int, values: Mapping[str, str]) -> Iterable[Field]:
    return (
        (number, wire.encode([(1, key.encode()), (2, value.encode())]))
        for key, value in values.items()
    )


def _mapping(pairs: Iterable[bytes]) -> dict[str, str]:
    found = (_Found(each) for each in pairs)
    return {text(each.last(1)): text(each.last(2)) for each in found}


def _shift(data: bytes) -> Shift:
    found = _Found(data)
    uid, gid = bool(found.last(1)), bool(found.last(2))
    return Shift(uid, gid, signed(found.last(3)), signed(found.last(4)), signed(found.last(5)))
