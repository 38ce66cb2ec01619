"""docs/reference.md says what the code declares."""

from __future__ import annotations

from tests import reference


def test_it_is_as_declared() -> None:
    assert (reference.DOCS / "reference.md").read_text() == reference.reference(), "make reference"
