"""What is mended in a dump, and what makes it another instance's."""

from __future__ import annotations

import io
import json
import struct
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lxpy.runtime import criu, criu_images, twin
from lxpy.runtime.criu_images import Message, read_records, write_records

HEAD = b"\x19\x43\x56\x54magi"
O_PATH = 0o10000000


def varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def nested(field: int, value: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(value)) + value


def write(directory: Path, name: str, *records: bytes) -> None:
    write_records(str(directory / name), HEAD, records)


def read(directory: Path, name: str) -> list[Message]:
    head, records = read_records(str(directory / name))
    assert head == HEAD
    return [Message(each) for each in records]


@given(st.lists(st.tuples(st.integers(1, 500), st.integers(0, 2**64 - 1))), st.binary())
def test_messages_stay_as_they_are(numbers: list[tuple[int, int]], blob: bytes) -> None:
    raw = (
        b"".join(number(*each) for each in numbers) + nested(7, blob) + varint(9 << 3 | 5) + b"1234"
    )
    assert Message(raw).encode() == raw


def reg_file(id: int, flags: int) -> bytes:
    return (
        number(1, 1)
        + number(2, id)
        + nested(3, number(1, id) + number(2, flags) + nested(5, b"/x"))
    )


def test_programs_opened_by_path_alone_get_a_descriptor_of_their_own(tmp_path: Path) -> None:
    write(tmp_path, "files.img", reg_file(1, 0), reg_file(2, O_PATH))
    mapped = nested(14, number(4, 2) + number(7, 1 << 6)) + nested(14, number(4, 2) + number(7, 1))
    write(tmp_path, "mm-1.img", number(12, 2) + mapped)
    write(tmp_path, "mm-2.img", number(12, 1))
    criu_images.mend(str(tmp_path))
    files = read(tmp_path, "files.img")
    assert [each.number(2) for each in files] == [1, 2, 3]
    copy = files[2].message(3)
    assert copy is not None and (copy.number(1), copy.number(2), copy.text(5)) == (3, 0, "/x")
    (memory,) = read(tmp_path, "mm-1.img")
    areas = [Message(value) for field, _, value in memory.fields if field == 14]  # type: ignore[arg-type]
    assert memory.number(12) == 3 and [each.number(4) for each in areas] == [3, 2]
    assert read(tmp_path, "mm-2.img")[0].number(12) == 1


def test_ramfs_that_is_open_is_mounted_with_its_mode(tmp_path: Path) -> None:
    def mount(place: bytes, options: bytes) -> bytes:
        return nested(7, place) + nested(9, options) + nested(14, b"ramfs")

    directory = number(1, 5) + nested(6, b"/run/c") + number(10, 0o40500)
    write(tmp_path, "files.img", nested(3, directory), nested(5, b"a socket"))
    options = b"size=1,mode=700"
    write(tmp_path, "mountpoints-1.img", mount(b"/run/c", options), mount(b"/run/d", options))
    criu_images.mend(str(tmp_path))
    mounts = read(tmp_path, "mountpoints-1.img")
    assert [each.text(9) for each in mounts] == ["size=1,mode=500", "size=1,mode=700"]


def test_what_is_no_dump_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no files.img"):
        criu_images.mend(str(tmp_path))
    (tmp_path / "files.img").write_bytes(HEAD + struct.pack("<I", 10) + b"short")
    with pytest.raises(ValueError, match="cut off"):
        criu_images.mend(str(tmp_path))


def test_nodes_become_files_that_can_be_mounted_on(tmp_path: Path) -> None:
    write(tmp_path, "files.img")
    path = tmp_path / "tmpfs-dev-1.tar.gz.img"
    with tarfile.open(path, "w:gz") as archive:
        for name, kind, major in (("./null", tarfile.CHRTYPE, 1), ("./gone", tarfile.CHRTYPE, 0)):
            member = tarfile.TarInfo(name)
            member.type, member.devmajor, member.devminor = kind, major, 3 if major else 0
            archive.addfile(member)
        member = tarfile.TarInfo("./text")
        member.size = 4
        archive.addfile(member, io.BytesIO(b"text"))
    criu_images.mend(str(tmp_path))
    with tarfile.open(path) as archive:
        kinds = {each.name: (each.isreg(), each.size) for each in archive}
        assert kinds == {"./null": (True, 0), "./gone": (False, 0), "./text": (True, 4)}
        file = archive.extractfile("./text")
        assert file is not None and file.read() == b"text"


def attribute(kind: int, value: bytes) -> bytes:
    size = 4 + len(value)
    return struct.pack("<HH", size, kind) + value.ljust(size + 3 & ~3, b"\0")[: (size + 3 & ~3) - 4]


def route(*attributes: bytes) -> bytes:
    body = bytes(12) + b"".join(attributes)
    return struct.pack("<IHHII", 16 + len(body), 24, 0, 0, 0) + body


def test_routes_lose_ids_of_nexthops_that_are_not_restored(tmp_path: Path) -> None:
    write(tmp_path, "files.img")
    out, gateway, id = (
        attribute(4, b"\2\0\0\0"),
        attribute(5, b"\n\0\0\1"),
        attribute(30, b"\7\0\0\0"),
    )
    (tmp_path / "route-1.img").write_bytes(b"$\x121E" + route(out, gateway, id) + route(id))
    criu_images.mend(str(tmp_path))
    expected = b"$\x121E" + route(out, gateway) + route(id)
    assert (tmp_path / "route-1.img").read_bytes() == expected


def test_a_twin_is_somebody_else(tmp_path: Path) -> None:
    owner = number(1, 0o755) + number(2, 100_000) + number(3, 100_000)
    below = nested(2, nested(1, b"child") + nested(4, owner))
    file = nested(3, nested(1, b"cgroup.procs") + nested(3, number(1, 0o644) + number(2, 0)))
    hierarchy = nested(1, b"") + nested(2, nested(1, b"/c1/p") + below + file + nested(4, owner))
    write(tmp_path, "cgroup.img", nested(2, hierarchy))
    write(tmp_path, "utsns-1.img", nested(1, b"c1") + nested(2, b"(none)"))
    extent = number(1, 0) + number(2, 100_000) + number(3, 65_536)
    write(tmp_path, "userns-1.img", nested(1, extent) + nested(2, extent))
    write(
        tmp_path, "netdev-1.img",
        number(2, 1) + nested(5, b"lo"),
        number(2, 7) + nested(5, b"eth0") + nested(7, b"\0\1\2\3\4\5"),
    )  # fmt: skip
    groups = [[".", 100_000, 100_000, []], ["system.slice", 0, 0, ["pids"]]]
    (tmp_path / criu.MANIFEST).write_text(
        json.dumps({"name": "c1", "cgroups": groups, "tty": "1:2"})
    )
    twin.adapt(
        str(tmp_path), name="c2", hostname="c2", shift=5, hwaddrs={"eth0": "00:16:3e:00:00:01"}
    )
    assert read(tmp_path, "utsns-1.img")[0].text(1) == "c2"
    (userns,) = read(tmp_path, "userns-1.img")
    maps = [userns.message(field) for field in (1, 2)]
    assert [each.number(2) for each in maps if each] == [100_005, 100_005]
    loopback, card = read(tmp_path, "netdev-1.img")
    assert card.fields[-1][2] == b"\0\x16>\0\0\1" and loopback.text(5) == "lo"
    top = read(tmp_path, "cgroup.img")[0].message(2).message(2)  # type: ignore[union-attr]
    assert top is not None
    for group in (top, top.message(2)):
        found = group.message(4)  # type: ignore[union-attr]
        assert found is not None and (found.number(2), found.number(3)) == (100_005, 100_005)
    manifest = json.loads((tmp_path / criu.MANIFEST).read_text())
    assert manifest["name"] == "c2" and manifest["tty"] == "1:2"
    assert manifest["cgroups"] == [[".", 100_005, 100_005, []], ["system.slice", 0, 0, ["pids"]]]


@pytest.mark.parametrize(
    ("log", "said"),
    [
        (
            "(00.1) Error (criu/net.c:12): net: broken\n(00.2) Error (criu/x.c:1): later\n",
            "net: broken",
        ),
        ("(00.1)     31: Error (criu/files.c:9): No fd\n", "No fd"),
        (
            "Error (criu/util.c:1534): rlimit: Can't setup RLIMIT_NOFILE for self: x\n",
            "names no error",
        ),
        ("Warn  (criu/x.c:1): careful\nError (criu/a.c:2): why\n", "why"),
    ],
)
def test_the_cause_is_the_first_error_that_is_one(tmp_path: Path, log: str, said: str) -> None:
    (tmp_path / "dump.log").write_text(log)
    assert said in criu.cause(str(tmp_path / "dump.log"))
    assert "no log" in criu.cause(str(tmp_path / "nothing"))
