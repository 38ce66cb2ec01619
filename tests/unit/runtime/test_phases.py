"""What a forked child reports."""

from __future__ import annotations

import os

import pytest

from lxpy.runtime import frames, phases
from lxpy.runtime.phases import Report, explain


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(2, "mount(/x): gone"), "mount(/x): gone"),
        (FileNotFoundError(2, "No such file or directory", "/x"), "/x: No such file or directory"),
        (ValueError("gid 7 is not mapped"), "gid 7 is not mapped"),
        (KeyError("name"), "KeyError: 'name'"),
    ],
)  # fmt: skip
def test_errors_are_said_without_numbers(error: Exception, text: str) -> None:
    assert explain(error) == text


def test_news_and_descriptors_arrive() -> None:
    ours, theirs = frames.pair()
    report = Report(theirs.detach())
    report.begin("one")
    reader, writer = os.pipe()
    report.send_descriptor(writer, pty=True)
    report.about_to_exec()
    news, fd = phases.receive(ours) or ({}, -1)
    assert news == {"pty": True}
    os.write(fd, b"x")
    assert os.read(reader, 1) == b"x"
    news, none = phases.receive(ours) or ({}, 0)
    assert none == -1
    assert news["exec"] is True
    assert [step for step, _ in news["steps"]] == ["start", "one"]
    frames.close_all([reader, writer, fd])
    report._sock.close()  # a child's ends with the child
    ours.close()
