"""Which dump the next one can be built on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lxpy.runtime import chains
from lxpy.runtime.running import Held
from lxpy.services.memory.tracking import Tracking

HELD = Held("c1", 7, 100, 1, 0.0, ready=True, frozen=False, restart_count=0)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "@s0").mkdir()
    return tmp_path / "@s0"


def test_the_last_one_once(place: Path) -> None:
    tracking = Tracking()
    assert tracking.take(HELD) is None
    tracking.note(HELD, place)
    assert tracking.take(replace(HELD, name="c2")) is None
    assert tracking.take(HELD) == place
    assert tracking.take(HELD) is None  # until another dump is whole


@pytest.mark.parametrize("other", [replace(HELD, pid=8), replace(HELD, start_time=101)])
def test_not_of_another_boot(place: Path, other: Held) -> None:
    tracking = Tracking()
    tracking.note(HELD, place)
    assert tracking.take(other) is None


def test_not_one_that_is_gone(place: Path) -> None:
    tracking = Tracking()
    tracking.note(HELD, place)
    place.rename(place.with_name("@s1"))
    assert tracking.take(HELD) is None


def test_not_another_of_its_name(place: Path) -> None:
    tracking = Tracking()
    tracking.note(HELD, place)
    place.rename(place.with_name("@s1"))
    place.mkdir()
    assert tracking.take(HELD) is None


def test_not_the_end_of_a_long_chain(place: Path) -> None:
    tracking = Tracking()
    inner = place
    for number in range(chains.DEPTH):
        tracking.note(HELD, place)
        assert tracking.take(HELD) == place, number
        inner /= chains.PARENT
        inner.mkdir()
    tracking.note(HELD, place)
    assert tracking.take(HELD) is None
