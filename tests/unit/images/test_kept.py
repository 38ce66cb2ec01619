"""metadata.yaml and templates/ as an instance keeps them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lxpy.errors import Failed
from lxpy.images import kept, metadata


def test_missing_files_are_none(tmp_path: Path) -> None:
    assert kept.read(tmp_path, "metadata.yaml") is None
    assert kept.read(tmp_path, "templates/a") is None
    assert kept.names(tmp_path) == []


def test_plain_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates/b").write_text("x")
    (tmp_path / "templates/a").write_text("y")
    assert kept.names(tmp_path) == ["a", "b"]
    assert kept.read(tmp_path, "templates/b") == b"x"


def test_nothing_else_is(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    top = tmp_path / "top"
    top.mkdir()
    (top / "templates").symlink_to(outside)
    (top / "link").symlink_to(outside / "secret")
    os.mkfifo(top / "fifo")
    (top / "large").write_bytes(bytes(kept.MAX_BYTES + 1))
    assert kept.names(top) == []
    for name in ("templates/secret", "link", "fifo"):
        with pytest.raises(Failed, match="no plain file"):
            kept.read(top, name)
    with pytest.raises(Failed, match="larger"):
        kept.read(top, "large")
    with pytest.raises(Failed):
        kept.read(top, "../outside/secret")


def test_what_an_instance_keeps_may_lack_everything() -> None:
    assert metadata.kept("{}") == metadata.Metadata("", 0)
    text = "architecture: amd64\ntemplates:\n  /a: {template: a.tpl, when: [start]}\n"
    found = metadata.kept(text)
    assert found.architecture == "amd64"  # as it is written
    assert found.templates == (metadata.Template("/a", "a.tpl", ("start",)),)


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "a: [",
        "templates: {a: {template: x}}",
        "templates: {/a: {template: ../x}}",
        "templates: {/a: x}",
    ],
)
def test_but_not_be_wrong(text: str) -> None:
    with pytest.raises(Failed):
        metadata.kept(text)


@pytest.mark.parametrize(
    ("name", "fine"),
    [("a.tpl", True), ("é", True), ("", False), (".", False), ("..", False), ("a/b", False),
     ("a\nb", False), ("a\0", False)],
)  # fmt: skip
def test_names_of_templates(name: str, fine: bool) -> None:
    assert metadata.is_template_name(name) is fine
