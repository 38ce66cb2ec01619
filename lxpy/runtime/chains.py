"""Dumps that build on an earlier one: pages that have not changed since are in that one.

CRIU looks for them in `parent`, and makes that a link to the earlier dump. Here it becomes a
directory with hard links of that one's pages, and of those below: every dump is whole by itself,
and they go in any order. Blocking. Source: criu(8), "--prev-images-dir"; CRIU's wiki, "Incremental
dumps".
"""

from __future__ import annotations

import os
import re
from pathlib import Path

PARENT = "parent"
#: by which those who send memory ahead know a part of it
TOKEN = "token"
#: a restored process in its user namespace opens it
PARENT_MODE = 0o755
#: so many dumps are read at a restore at the most
DEPTH = 8
_PAGES = re.compile(r"(pagemap|pages)-[a-z0-9-]+\.img")


def link(directory: Path, base: Path) -> None:
    """Have a dump that CRIU has built on `base` keep its pages by itself. Raises OSError."""
    parent = directory / PARENT
    new = directory / f".{PARENT}"
    _link(base, new)
    parent.unlink()
    new.rename(parent)


def depth(directory: Path) -> int:
    """Return how many dumps one is built on."""
    found = 0
    while (directory := directory / PARENT).is_dir():
        found += 1
    return found


def is_page_file(name: str) -> bool:
    """Tell whether a file of a dump holds pages, or says where they are."""
    return _PAGES.fullmatch(name) is not None


def _link(source: Path, target: Path) -> None:
    target.mkdir(mode=PARENT_MODE)
    for entry in os.scandir(source):
        if entry.name == TOKEN or is_page_file(entry.name):
            os.link(entry.path, target / entry.name)
    if (source / PARENT).is_dir():
        _link(source / PARENT, target / PARENT)
