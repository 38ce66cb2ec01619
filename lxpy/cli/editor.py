"""Definitions as YAML: from stdin, or through the user's editor until they are accepted."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable

import click

from lxpy.cli.yamltext import dump, load
from lxpy.client.client import Json
from lxpy.errors import BadRequest, LxpyError

_EDITORS = ("editor", "vi", "emacs", "nano")


def edit(before: Json, help_text: str, save: Callable[[Json], object]) -> None:
    """Let the user change `before` and save it; without a terminal, what stdin has is saved.

    An error of `save` is shown and the editor opened again, if the user wants to.
    Raises what `save` raises, and BadRequest for YAML that is none.
    """
    if not sys.stdin.isatty():
        save(load(sys.stdin.read()))
        return
    comments = "".join(f"### {line}\n".replace(" \n", "\n") for line in help_text.splitlines())
    text = f"{comments}\n{dump(before)}"
    while True:
        text = _run_editor(text)
        try:
            save(load(text))
            return
        except LxpyError as error:
            print(f"Error: {error}", file=sys.stderr)
            if not click.confirm("Open the editor again", default=True):
                raise BadRequest("Not saved") from error


def _run_editor(text: str) -> str:
    """Return what the user's editor made of a text. Raises BadRequest when there is none."""
    with tempfile.NamedTemporaryFile("w", prefix="lxpy-", suffix=".yaml", delete=False) as file:
        file.write(text)
    try:
        open_in_editor(file.name)
        with open(file.name, encoding="utf-8") as edited:
            return edited.read()
    finally:
        os.unlink(file.name)


def open_in_editor(path: str) -> None:
    """Let the user edit a file. Raises BadRequest when there is no editor, or it fails."""
    try:
        subprocess.run([*_editor(), path], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise BadRequest(f"The editor failed: {error}") from error


def _editor() -> list[str]:
    for variable in ("VISUAL", "EDITOR"):
        if chosen := os.environ.get(variable):
            return shlex.split(chosen)
    for program in _EDITORS:
        if shutil.which(program):
            return [program]
    raise BadRequest("There is no editor: set EDITOR, or give the new definition on stdin")
