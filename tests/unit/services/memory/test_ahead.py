"""Parts of memory that are sent ahead, where they arrive."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lxpy.errors import BadRequest
from lxpy.services.memory import ahead


def part(states: Path, token: str) -> Path:
    """What has come."""
    new = states / f".arriving-{token}"
    new.mkdir(parents=True, mode=0o711)
    (new / "token").write_text(token)
    (new / "pages-1.img").write_text(token)
    (new / "dump.log").write_text(token)
    ahead.keep_pages(new)
    return new


def test_each_on_top_of_the_last(tmp_path: Path) -> None:
    states = tmp_path / "c1"
    ahead.receive(part(states, "one"), states, "")
    ahead.receive(part(states, "two"), states, "one")
    last = ahead.place(states)
    assert ahead.token(last) == "two" and ahead.token(last / "parent") == "one"
    assert sorted(os.listdir(last)) == ["pages-1.img", "parent", "token"]
    assert (last / "parent").stat().st_mode & 0o777 == 0o755
    final = part(states, "all")
    ahead.build(final, states, "two")
    assert (final / "parent/parent/pages-1.img").read_text() == "one"
    assert ahead.token(last) == ""


def test_a_part_that_begins_anew(tmp_path: Path) -> None:
    states = tmp_path / "c1"
    ahead.receive(part(states, "one"), states, "")
    ahead.receive(part(states, "two"), states, "")
    assert ahead.token(ahead.place(states)) == "two"
    assert not (ahead.place(states) / "parent").exists()


def test_what_it_is_built_on_is_gone(tmp_path: Path) -> None:
    states = tmp_path / "c1"
    ahead.receive(part(states, "one"), states, "")
    with pytest.raises(BadRequest, match="send all of the memory"):
        ahead.receive(part(states, "three"), states, "two")
    ahead.drop(states)
    with pytest.raises(BadRequest, match="send all of the memory"):
        ahead.build(part(states, "four"), states, "one")


def test_what_nobody_asks_for_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "c2").mkdir()
    ahead.receive(part(tmp_path / "c1", "one"), tmp_path / "c1", "")
    ahead.prune(tmp_path)
    assert ahead.token(ahead.place(tmp_path / "c1")) == "one"
    monkeypatch.setattr(ahead, "KEPT_S", -1)
    ahead.prune(tmp_path)
    assert os.listdir(tmp_path / "c1") == []
    ahead.prune(tmp_path / "none")
