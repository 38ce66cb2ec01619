"""What the supervisor's successor finds."""

from __future__ import annotations

from pathlib import Path

from lxpy.runtime.journal import Journal


def test_entries_come_back(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path), "boot")
    journal.write("c1", {"pid": 1})
    journal.write("c1", {"pid": 2})
    journal.write("c2", {"pid": 3})
    journal.remove("c2")
    journal.remove("c2")
    assert Journal(str(tmp_path), "boot").load() == {"c1": {"pid": 2, "boot": "boot"}}


def test_damaged_and_half_written_entries_are_left_out(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path), "boot")
    journal.write("good", {"pid": 1})
    (tmp_path / "bad").write_text('{"pid": ')
    (tmp_path / "half.new").write_text('{"pid": 7}')
    assert list(journal.load()) == ["good"]


def test_another_boot_of_the_host(tmp_path: Path) -> None:
    before = Journal(str(tmp_path), "before")
    before.write("ran", {"pid": 1})
    before.write("ended", {"pid": 2, "end": {"reason": "crash"}})
    after = Journal(str(tmp_path), "after")
    assert list(after.load()) == ["ended"]
    assert not (tmp_path / "ran").exists()
