"""Pools on LVM: config, names, and what the reports of its programs say."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lxpy.errors import BadRequest, InvalidConfig
from lxpy.storage import ContentType, Pool, Volume, VolumeType
from lxpy.storage.drivers import lvm_filesystems, lvm_group, lvm_source, lvm_volumes
from lxpy.storage.drivers.lvm_group import Group, LogicalVolume
from lxpy.storage.keys import validate_pool, validate_volume

ROOT = Path("/nowhere/storage-pools")
GROUP = Group("vg", "LXDThinPool")
NAMES = st.from_regex(r"[a-z0-9][a-z0-9-]{0,20}", fullmatch=True)

REPORT = b"""
{ "report": [ { "lv": [
  {"lv_name":"LXDThinPool", "lv_size":"1061158912", "data_percent":"12.50",
   "lv_tags":"lxpy.pool", "pool_lv":""},
  {"lv_name":"containers_c1", "lv_size":"10737418240", "data_percent":"10.00",
   "lv_tags":"lxpy,lxpy.content=filesystem,lxpy.fs=xfs", "pool_lv":"LXDThinPool"},
  {"lv_name":"custom_d", "lv_size":"16777216", "data_percent":"",
   "lv_tags":"lxpy,lxpy.content=block", "pool_lv":"LXDThinPool"} ] } ],
  "log": [] }
"""


def pool(**config: str) -> Pool:
    given = {key.replace("__", "."): value for key, value in config.items()}
    return Pool("p", "lvm", given, ROOT / "p")


@pytest.mark.parametrize(
    ("given", "kind", "filled"),
    [
        (
            {"size": "9GiB"},
            "file",
            {"source": "/nowhere/disks/p.img", "lvm.vg_name": "p", "size": "9GiB"},
        ),
        (
            {"source": "/dev/vdb", "volatile.initial_source": "/dev/vdb"},
            "device",
            {"source": "p", "lvm.vg_name": "p"},
        ),
        (
            {"source": "/dev/vdb", "volatile.initial_source": "/dev/vdb", "lvm.vg_name": "data"},
            "device",
            {"source": "data", "lvm.vg_name": "data"},
        ),
        (
            {"source": "mine", "volatile.initial_source": "mine"},
            "group",
            {"source": "mine", "lvm.vg_name": "mine"},
        ),
    ],
)
def test_sources(given: dict[str, str], kind: str, filled: dict[str, str]) -> None:
    config = lvm_source.fill("p", dict(given), ROOT)
    assert filled.items() <= config.items()
    assert config["lvm.thinpool_name"] == "LXDThinPool"
    validate_pool("lvm", config)
    assert lvm_source.kind(Pool("p", "lvm", config, ROOT / "p")) == kind


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"source": "vg", "size": "1GiB"}, "the size of the file"),
        ({"source": "vg", "lvm.vg_name": "other"}, "leave it out"),
    ],
)
def test_sources_refused(config: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidConfig, match=words):
        lvm_source.fill("p", config, ROOT)


def test_only_thin_volumes() -> None:
    validate_pool("lvm", {"source": "vg", "lvm.use_thinpool": "true"})
    with pytest.raises(InvalidConfig, match="not thin slow down every write"):
        validate_pool("lvm", {"source": "vg", "lvm.use_thinpool": "false"})
    with pytest.raises(InvalidConfig, match="such as LVM has them"):
        validate_pool("lvm", {"source": "vg", "lvm.vg_name": "-x"})


def test_volume_options() -> None:
    validate_volume("lvm", {"block.filesystem": "xfs", "block.mount_options": "discard,noatime"})
    with pytest.raises(InvalidConfig, match="btrfs"):
        validate_volume("lvm", {"block.filesystem": "btrfs"})
    with pytest.raises(InvalidConfig, match="mount_options"):
        validate_volume("lvm", {"block.mount_options": "a b"})


@given(NAMES, st.one_of(st.just(""), NAMES), st.sampled_from(VolumeType))
def test_names_come_back(name: str, snapshot: str, kind: VolumeType) -> None:
    if kind is VolumeType.IMAGE:
        return
    volume = Volume(name, kind, snapshot=snapshot)
    encoded = lvm_group.encode(GROUP, volume)
    found = LogicalVolume(encoded, 0, 0, "ext4", ContentType.FILESYSTEM)
    assert lvm_group.decode(found) == volume


def test_names_as_lxd_has_them() -> None:
    assert lvm_group.encode(GROUP, Volume("c-1")) == "containers_c--1"
    assert lvm_group.encode(GROUP, Volume("c-1").at("a-b")) == "containers_c--1-a--b"
    assert lvm_group.encode(GROUP, Volume("d", VolumeType.CUSTOM, "web")) == "custom_web_d"
    image = lvm_group.encode_image("a" * 64, "ext4")
    assert lvm_group.decode_image(image) == "a" * 64
    assert lvm_group.decode_image("new_123") is None
    with pytest.raises(BadRequest, match="too long"):
        lvm_group.encode(GROUP, Volume("c" + "-" * 40 + "1"))


def test_reports() -> None:
    lines = lvm_group.parse_report(REPORT)
    assert [line["lv_name"] for line in lines] == ["LXDThinPool", "containers_c1", "custom_d"]
    one, two = map(lvm_group.parse, lines[1:])
    assert one == LogicalVolume(
        "containers_c1", 10737418240, 1073741824, "xfs", ContentType.FILESYSTEM
    )
    assert two == LogicalVolume("custom_d", 16777216, 0, "", ContentType.BLOCK)
    assert one.tags == ("lxpy", "lxpy.content=filesystem", "lxpy.fs=xfs")


def test_sizes_are_extents() -> None:
    assert [lvm_group.rounded(each) for each in (1, 4 << 20, (4 << 20) + 1)] == [
        4 << 20,
        4 << 20,
        8 << 20,
    ]


@pytest.mark.parametrize(
    ("filesystem", "size", "can"),
    [
        ("ext4", "1GiB", True),
        ("ext4", "512MiB", False),
        ("xfs", "1GiB", False),
        ("xfs", "3GiB", True),
        ("xfs", "", True),
    ],
)
def test_what_a_snapshot_can_become(filesystem: str, size: str, can: bool) -> None:
    origin = LogicalVolume("images_x", 2 << 30, 0, filesystem, ContentType.FILESYSTEM)
    assert lvm_volumes.can_become(origin, Volume("c1", config={"size": size})) is can


def test_how_volumes_are_mounted() -> None:
    own = Volume("d", VolumeType.CUSTOM, config={"block.mount_options": "noatime"})
    of_pool = pool(volume__block__mount_options="nodiscard", volume__block__filesystem="xfs")
    assert lvm_filesystems.options(of_pool, own) == "noatime"
    assert lvm_filesystems.options(of_pool, Volume("c1")) == "nodiscard"
    assert lvm_filesystems.wanted(of_pool, Volume("c1")) == "xfs"
    assert lvm_filesystems.mount_options("ext4", "discard") == "discard"
    assert lvm_filesystems.mount_options("xfs", "discard") == "nouuid,discard"
    assert lvm_filesystems.mount_options("ext4", "discard", sealed=True) == "ro,noload"
    with pytest.raises(BadRequest, match="300MiB that xfs needs"):
        lvm_filesystems.check_size("xfs", 64 << 20)
