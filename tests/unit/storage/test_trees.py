"""Trees that are copied in rounds."""

from __future__ import annotations

import os
import time
from itertools import chain, repeat
from pathlib import Path

import pytest

from lxpy.storage.trees import Copier


@pytest.mark.parametrize("recent", [1, 2, 3])
def test_hard_links_made_just_before_a_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recent: int
) -> None:
    """All names of a file stay one, also when its change is just long enough ago on the way."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    (source / "a").write_text("mine")
    os.link(source / "a", source / "b")
    changed_ns = (source / "a").stat().st_ctime_ns
    clock = chain(repeat(changed_ns, recent), repeat(changed_ns + 10**9))
    monkeypatch.setattr(time, "time_ns", lambda: next(clock))
    ends = [os.open(each, os.O_RDONLY) for each in (source, target)]
    try:
        copier = Copier(*ends)
        for _ in range(3):
            copier.round()
            assert (target / "a").samefile(target / "b")
    finally:
        for each in ends:
            os.close(each)
