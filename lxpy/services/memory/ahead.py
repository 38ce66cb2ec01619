"""Memory that is sent ahead of an instance which moves: at its source, and at its target.

    LXPY_DIR/states/INSTANCE/ahead/           the pages that were saved, or have come, last
    LXPY_DIR/states/INSTANCE/ahead/parent/    those before, and so on

Each part has a token, by which both sides know which one the next is built on. A move that breaks
off leaves one behind, until the next dump, the end of the daemon, or `KEPT_S`.
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from pathlib import Path

from lxpy.errors import BadRequest
from lxpy.runtime import chains
from lxpy.runtime.chains import PARENT, TOKEN

NAME = "ahead"
KEPT_S = 3600


def place(states: Path) -> Path:
    """Return where the last part is, below the states of an instance."""
    return states / NAME


def put(new: Path, states: Path) -> str:
    """Give a part that was saved a token and its place; the token."""
    token = secrets.token_hex(8)
    (new / TOKEN).write_text(token)
    drop(states)
    new.rename(place(states))
    return token


def token(directory: Path) -> str:
    """Return the token of a part, "" where there is none."""
    try:
        return (directory / TOKEN).read_text()
    except FileNotFoundError:
        return ""


def receive(new: Path, states: Path, beyond: str) -> None:
    """Give a part that has come its place, with what it is built on below it, "" for nothing.

    Raises BadRequest when that is not here.
    """
    build(new, states, beyond)
    drop(states)
    new.rename(place(states))


def build(new: Path, states: Path, beyond: str) -> None:
    """Put what was sent ahead below what is built on it. Raises BadRequest when it is not here."""
    if not beyond:
        return
    if token(place(states)) != beyond:
        raise BadRequest("What was sent ahead is not here any more: send all of the memory")
    place(states).rename(new / PARENT).chmod(chains.PARENT_MODE)


def drop(states: Path) -> None:
    """Remove what was sent ahead, if there is anything."""
    shutil.rmtree(place(states), ignore_errors=True)


def prune(root: Path) -> None:
    """Remove what nobody has asked for any more."""
    for states in root.iterdir() if root.is_dir() else ():
        try:
            age_s = time.time() - os.stat(place(states)).st_ctime
        except (FileNotFoundError, NotADirectoryError):
            continue
        if age_s > KEPT_S:
            drop(states)


def keep_pages(directory: Path) -> None:
    """Remove all but pages and the token from a part that has come."""
    for entry in directory.iterdir():
        if entry.name not in (TOKEN, PARENT) and not chains.is_page_file(entry.name):
            entry.unlink()
