"""Working on files as somebody else: whose they are, what is given up, and that it comes back."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from lxpy.kernel import credentials
from lxpy.kernel.credentials import FILES, acting_as, bits

CAP_SYS_RESOURCE = 24


def test_bits() -> None:
    assert bits((0, 3, 31)) == 0x80000009


def test_what_a_thread_has_is_what_proc_says() -> None:
    fields = dict(line.split(":\t") for line in Path("/proc/self/status").read_text().splitlines())
    assert credentials.read() == tuple(
        int(fields[name], 16) for name in ("CapEff", "CapPrm", "CapInh")
    )


def test_acting_without_root_changes_nothing() -> None:
    before = credentials.read()
    with acting_as(os.geteuid(), os.getegid()):
        assert not before[0] & ~bits(FILES) or credentials.read()[0] == before[0] & bits(FILES)
    assert credentials.read() == before


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize("number", [0, 12345])
def test_acting(tmp_path: Path, number: int) -> None:
    (tmp_path / "closed").mkdir(0o700)
    before = credentials.read()
    seen: list[int] = []
    entered, done = threading.Event(), threading.Event()

    def other() -> None:
        entered.wait()
        seen.append(credentials.read()[0])
        (tmp_path / "other").touch()
        done.set()

    thread = threading.Thread(target=other)
    thread.start()
    try:
        with acting_as(number, number):
            entered.set()
            done.wait()
            assert credentials.read()[0] == bits(FILES) & before[1]
            assert not credentials.read()[0] >> CAP_SYS_RESOURCE & 1
            (tmp_path / "closed/file").touch()
            with acting_as(number, number):
                os.chown(tmp_path / "closed/file", -1, 7)
            (tmp_path / "closed/again").touch()
    finally:
        entered.set()
        thread.join()
    assert credentials.read() == before
    status = (tmp_path / "closed/file").stat()
    assert (status.st_uid, status.st_gid) == (number, 7)
    assert (tmp_path / "closed/again").stat().st_uid == number
    assert seen == [before[0]] and (tmp_path / "other").stat().st_uid == 0
    (tmp_path / "closed/mine").touch()
    assert (tmp_path / "closed/mine").stat().st_uid == 0
