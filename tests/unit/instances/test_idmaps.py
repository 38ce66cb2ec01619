"""Id ranges never overlap, maps cover what they promise."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lxpy.errors import InvalidConfig, Unavailable
from lxpy.instances import idmaps
from lxpy.instances.idmaps import IdPool
from lxpy.runtime.spec import IdMapEntry

SIZE = idmaps.DEFAULT_SIZE
RANGES = st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 400)), max_size=20)
INITIAL = "         0          0 4294967295\n"


@given(RANGES, st.integers(1, 300))
def test_what_is_allocated_is_free_lowest_and_in_the_pool(
    taken: list[tuple[int, int]], size: int
) -> None:
    pool = IdPool(((500, 900), (1000, 2500)))
    used = {each for base, length in taken for each in range(base, base + length)}

    def fits(base: int) -> bool:
        return used.isdisjoint(range(base, base + size))

    possible = [
        base for first, end in pool.intervals for base in range(first, end - size + 1) if fits(base)
    ]
    if possible:
        assert pool.allocate(taken, size) == possible[0]
    else:
        with pytest.raises(Unavailable, match="Not enough uid/gid available"):
            pool.allocate(taken, size)


@given(st.lists(st.integers(1, 200_000), max_size=60), st.data())
def test_ranges_of_many_instances_are_disjoint(sizes: list[int], data: st.DataObject) -> None:
    pool, taken = IdPool(), []
    for size in sizes:
        taken.append((pool.allocate(taken, size), size))
        if len(taken) > 3 and data.draw(st.booleans()):
            taken.pop(data.draw(st.integers(0, len(taken) - 1)))
    spans = sorted(taken)
    for (base, size), (following, _) in zip(spans, spans[1:], strict=False):
        assert base + size <= following
    assert all(base >= idmaps.DEFAULT_BASE for base, _ in taken)


def test_the_pool_holds_thousands() -> None:
    taken = [(idmaps.DEFAULT_BASE + number * SIZE, SIZE) for number in range(30_000)]
    assert IdPool().allocate(reversed(taken)) == idmaps.DEFAULT_BASE + 30_000 * SIZE


def test_a_used_up_pool_says_what_to_do() -> None:
    with pytest.raises(Unavailable, match=r"/etc/subuid"):
        IdPool(((1000, 1000 + SIZE),)).allocate([(1000, 1)])


def test_pool_of_the_host() -> None:
    assert idmaps.pool_of("", "", INITIAL, INITIAL).describe() == "1000000-2147352575"
    own = "root:100000:10000000\nlxd:1:65536\n"
    assert idmaps.pool_of(own, own, INITIAL, INITIAL).intervals == ((100_000, 10_100_000),)
    assert idmaps.pool_of(own, "root:200000:65536", INITIAL, INITIAL).intervals == (
        (200_000, 265_536),
    )
    small = "root:100000:1000\n"
    assert idmaps.pool_of(small, small, INITIAL, INITIAL).intervals[0][0] == 1_000_000


def test_pool_leaves_out_ids_of_users() -> None:
    users = "# users\njoe:100000:65536\nann:1000000:65536\nbroken\nx:y:z\n0:5:0\n"
    pool = idmaps.pool_of(users, "bob:1100000:10\n", INITIAL, INITIAL)
    assert pool.intervals == ((1_065_536, 1_100_000), (1_100_010, idmaps.DEFAULT_END))


def test_pool_shares_no_ids_with_lxd() -> None:
    lines = "_lxd:100000:10000001\nroot:100000:10000001\n"
    pool = idmaps.pool_of(lines, lines, INITIAL, INITIAL)
    assert pool.intervals == ((10_100_001, idmaps.DEFAULT_END),)


def test_pool_of_a_nested_daemon() -> None:
    own_map = f"0 1000000 {idmaps.NESTING_SIZE}\n"
    pool = idmaps.pool_of("", "", own_map, own_map)
    assert pool == IdPool(((0, idmaps.NESTING_SIZE),), shared=True)
    own_ids = idmaps.choose({}, {}, [(0, SIZE)], pool)
    assert own_ids == idmaps.build(0, SIZE)
    small = idmaps.pool_of("", "", "0 1000000 65536\n", "0 1000000 65536\n")
    assert idmaps.choose({"security.nesting": "true"}, {}, [], small) == own_ids
    for key, value in (("security.idmap.base", "1000"), ("raw.idmap", "both 1000 1000")):
        with pytest.raises(InvalidConfig, match="nested lxpyd"):
            idmaps.choose({key: value}, {}, [], pool)


def test_read_pool(tmp_path: Path) -> None:
    assert idmaps.read_pool(tmp_path, tmp_path) == IdPool()
    for name in ("subuid", "subgid"):
        (tmp_path / name).write_text("root:5000000:131072\n", encoding="utf-8")
    assert idmaps.read_pool(tmp_path, tmp_path).intervals == ((5_000_000, 5_131_072),)


@st.composite
def raw_lines(draw: st.DrawFn) -> str:
    lines, inside, outside = [], 0, 100
    for _ in range(draw(st.integers(0, 6))):
        inside += draw(st.integers(0, 500))
        outside += draw(st.integers(0, 500))
        size = draw(st.integers(1, 50))
        kind = draw(st.sampled_from(("uid", "gid", "both")))
        if size == 1 and draw(st.booleans()):
            lines.append(f"{kind} {outside} {inside}")
        else:
            lines.append(f"{kind} {outside}-{outside + size - 1} {inside}-{inside + size - 1}")
        inside += size
        outside += size
    return "\n".join(lines)


@given(raw_lines(), st.integers(1, 5000))
def test_a_map_is_whole_and_maps_nothing_twice(raw: str, size: int) -> None:
    idmap = idmaps.build(1_000_000, size, raw)
    extra = idmaps.parse_raw(raw)
    for kind in ("u", "g"):
        entries = [each for each in idmap.entries if each.kind == kind]
        inside = [id for each in entries for id in range(each.inside, each.inside + each.size)]
        outside = [id for each in entries for id in range(each.outside, each.outside + each.size)]
        assert len(set(inside)) == len(inside)
        assert len(set(outside)) == len(outside)
        pairs = dict(zip(inside, outside, strict=True))
        punched = {
            each.inside + number: each.outside + number
            for each in extra
            if each.kind == kind
            for number in range(each.size)
        }
        assert pairs == {id: 1_000_000 + id for id in range(size)} | punched


@given(raw_lines(), st.integers(1, 5000))
def test_json_reads_back(raw: str, size: int) -> None:
    idmap = idmaps.build(1_000_000, size, raw)
    assert idmaps.from_json(idmaps.to_json(idmap.entries)) == idmap.entries


def test_json_is_lxds() -> None:
    text = idmaps.to_json(idmaps.build(1_000_000, 65_536).entries)
    assert text == (
        '[{"Isuid":true,"Isgid":false,"Hostid":1000000,"Nsid":0,"Maprange":65536},'
        '{"Isuid":false,"Isgid":true,"Hostid":1000000,"Nsid":0,"Maprange":65536}]'
    )
    both = '[{"Isuid":true,"Isgid":true,"Hostid":5,"Nsid":0,"Maprange":9}]'
    assert idmaps.from_json(both) == (IdMapEntry("u", 0, 5, 9), IdMapEntry("g", 0, 5, 9))
    assert idmaps.from_json("[]") == idmaps.from_json("") == idmaps.from_json("null") == ()


@pytest.mark.parametrize(
    "text", ["{", "[1]", '[{"Nsid":0}]', "1", '"x"', '{"a":1}',
             '[{"Nsid":-1,"Hostid":0,"Maprange":1}]', '[{"Nsid":true,"Hostid":0,"Maprange":1}]',
             "[" * 100_000],
)  # fmt: skip
def test_bad_json(text: str) -> None:
    with pytest.raises(InvalidConfig, match="^Invalid idmap value specified"):
        idmaps.from_json(text)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("both 1000", "Invalid raw.idmap line"),
        ("all 1 1", "Invalid raw.idmap line"),
        ("uid 1-5 1-4", "differ in length"),
        ("uid 5-1 5-1", "is no range"),
        ("uid 4294967295 1", "is no range"),
        ("uid 1 7\nuid 2 7", "inside id 7 is mapped twice"),
        ("uid 7 1\nboth 7 2", "host id 7 is mapped twice"),
        ("uid 1000010 5", "Host ID is in the range of subids"),
    ],
)
def test_bad_raw_idmap(raw: str, text: str) -> None:
    with pytest.raises(InvalidConfig, match=text):
        idmaps.build(1_000_000, SIZE, raw)


def test_too_many_lines() -> None:
    raw = "\n".join(f"both {number * 2} {number * 2}" for number in range(400))
    with pytest.raises(InvalidConfig, match="340 lines"):
        idmaps.build(1_000_000, SIZE, raw)


def test_an_instance_keeps_its_range() -> None:
    pool = IdPool()
    first = idmaps.choose({}, {}, [], pool)
    assert (first.base, first.size) == (1_000_000, SIZE)
    own = idmaps.volatile(first)
    assert idmaps.held(own) == (1_000_000, SIZE)
    second = idmaps.choose({}, {}, [(first.base, first.size)], pool)
    assert second.base == 1_065_536
    assert idmaps.choose({}, own, [(second.base, second.size)], pool) == first
    moved = idmaps.choose({}, own, [(first.base, first.size)], pool)
    assert moved.base == 1_065_536


def test_nesting_takes_more() -> None:
    pool = IdPool()
    own = idmaps.volatile(idmaps.choose({}, {}, [], pool))
    grown = idmaps.choose({"security.nesting": "true"}, own, [], pool)
    assert (grown.base, grown.size) == (1_000_000, idmaps.NESTING_SIZE)
    taken = [(1_065_536, SIZE)]
    moved = idmaps.choose({"security.nesting": "true"}, own, taken, pool)
    assert (moved.base, moved.size) == (1_131_072, idmaps.NESTING_SIZE)


def test_size_base_and_privileged() -> None:
    pool = IdPool()
    config = {"security.idmap.size": "1000", "security.idmap.base": "5000000"}
    assert idmaps.choose(config, {}, [(5_000_000, 10)], pool).entries == (
        IdMapEntry("u", 0, 5_000_000, 1000), IdMapEntry("g", 0, 5_000_000, 1000),
    )  # fmt: skip
    privileged = idmaps.choose({"security.privileged": "true"}, {}, [], pool)
    assert privileged.entries == ()
    assert idmaps.held(idmaps.volatile(privileged)) is None
    with pytest.raises(InvalidConfig, match="do not exist"):
        idmaps.build(4_294_960_000, SIZE)


def test_held_counts_its_range_alone() -> None:
    idmap = idmaps.build(1_000_000, SIZE, "both 3000000 1000")
    assert idmaps.held(idmaps.volatile(idmap)) == (1_000_000, SIZE)
    assert idmaps.choose({"raw.idmap": "both 1000010 1000"}, {}, [], IdPool()).base == 1_000_011


def test_a_range_in_the_way_of_raw_idmap_moves() -> None:
    own = idmaps.volatile(idmaps.build(1_000_000, SIZE))
    assert idmaps.choose({"raw.idmap": "uid 1000010 5"}, own, [], IdPool()).base == 1_000_011
