"""Headers as LXD 5.0.2 wrote them, and ours read again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lxpy.errors import Failed
from lxpy.migration import wire
from lxpy.migration.messages import (
    NEVER,
    Control,
    Form,
    Header,
    Rsync,
    Shift,
    SnapshotHeader,
    agreed,
    offered,
)

# Recorded: a custom volume with one snapshot, offered by a real LXD 5.0.2.
OFFER = (
    b'\x08\x00"\x02s0*\x10\n\x02s0 \x000\x008\x00@\x00H\x00P\x00B\x08\x08\x01\x10\x01\x18\x01 \x01'
    b"h\x01"
)
texts = st.text(max_size=20)
numbers = st.integers(-(2**63), 2**63 - 1)
snapshots = st.builds(
    SnapshotHeader,
    name=st.text(min_size=1, max_size=9),
    config=st.dictionaries(texts, texts, max_size=3),
    devices=st.dictionaries(texts, st.dictionaries(texts, texts, max_size=2), max_size=2),
    profiles=st.lists(texts, max_size=2).map(tuple),
    ephemeral=st.booleans(),
    architecture=st.integers(0, 15),
    stateful=st.booleans(),
    created=numbers,
    used=numbers,
    expires=numbers,
    made=numbers,
)


def test_what_lxd_offers() -> None:
    header = Header.decode(OFFER)
    assert header.form is Form.RSYNC or header.form == Form.RSYNC
    assert header.snapshots == (SnapshotHeader("s0"),)
    assert header.rsync == Rsync(True, True, True, True)
    assert (header.index_version, header.refresh, header.live) == (1, False, False)


def test_the_end() -> None:
    assert Control(True).encode() == b"\x08\x01\x12\x00"  # recorded
    assert Control.decode(b"\x08\x00\x12\x03why") == Control(False, "why")


@given(
    st.builds(
        Header,
        form=st.sampled_from(list(Form)),
        snapshots=st.lists(snapshots, max_size=3, unique_by=lambda each: each.name).map(tuple),
        shifts=st.lists(
            st.builds(Shift, st.booleans(), st.booleans(), numbers, numbers, numbers), max_size=2
        ).map(tuple),
        rsync=st.none() | st.builds(Rsync, *[st.booleans()] * 5),
        btrfs=st.frozensets(st.integers(1, 3)),
        refresh=st.booleans(),
        size=numbers,
        index_version=st.integers(0, 3),
    )
)
def test_headers_come_as_they_went(header: Header) -> None:
    assert Header.decode(header.encode()) == header


@given(st.binary(max_size=60))
def test_anything_else_is_refused_or_understood(data: bytes) -> None:
    try:
        Header.decode(data)
    except Failed:
        pass


@pytest.mark.parametrize("data", [b"\x08", b"\x0a\x05ab", b"\x0b", b"\xff" * 11])
def test_what_is_cut_short(data: bytes) -> None:
    with pytest.raises(Failed):
        wire.decode(data)


def test_what_is_agreed_on() -> None:
    ours = offered({"rsync.compression": "false"})
    assert not ours.compress
    lxd = Header.decode(OFFER)
    assert agreed(Header(Form.RSYNC, rsync=ours), lxd) == Rsync(True, True, False, True)
    with pytest.raises(Failed, match="too old"):
        agreed(lxd, Header(Form.RSYNC))
    assert NEVER < 0
