"""`lxpy` has every noun, verb and flag of LXD's own client, whose help is asked here."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from lxpy.cli.root import root

Tree = dict[str, frozenset[str]]


def lxc_help(words: list[str], conf: Path) -> str:
    """What `lxc WORDS --help` prints; all commands, the less common ones included."""
    more = [] if words else ["--all"]
    environment = {**os.environ, "LXD_DIR": str(conf), "LXD_CONF": str(conf)}
    return subprocess.run(
        ["lxc", *words, *more, "--help"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def lxc_tree(conf: Path) -> Iterator[tuple[str, frozenset[str]]]:
    """Every command of `lxc` with its own flags."""
    waiting: list[list[str]] = [[]]
    while waiting:
        words = waiting.pop()
        section, flags = "", set()
        for line in lxc_help(words, conf).splitlines():
            if re.match(r"\S.*:$", line):
                section = line
            elif section == "Available Commands:" and (found := re.match(r"  (\S+)", line)):
                waiting.append([*words, found[1]])
            elif section == "Flags:" and (found := re.match(r" +(?:(-\w), )?(--[\w-]+)", line)):
                flags |= {each for each in found.groups() if each}
        yield " ".join(words), frozenset(flags)


def lxpy_tree() -> Iterator[tuple[str, frozenset[str]]]:
    """Every command of `lxpy` with all its flags, those of every command included."""
    waiting: list[tuple[str, click.Command]] = [("", root)]
    while waiting:
        words, command = waiting.pop()
        context = click.Context(command)
        flags = {"--help", "-h"}
        for parameter in command.get_params(context):
            if isinstance(parameter, click.Option):
                flags |= {*parameter.opts, *parameter.secondary_opts}
        yield words, frozenset(flags)
        if isinstance(command, click.Group):
            for name in command.list_commands(context):
                found = command.get_command(context, name)
                assert found is not None
                waiting.append((f"{words} {name}".strip(), found))


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    if not shutil.which("lxc"):
        pytest.skip("needs LXD's client (lxd-client)")
    return dict(lxc_tree(tmp_path_factory.mktemp("lxc-help")))


@pytest.fixture(scope="module")
def ours() -> Tree:
    found = dict(lxpy_tree())
    found["snapshot"] |= found["snapshot create"]  # the noun is the verb, too
    return found


def test_every_command(theirs: Tree, ours: Tree) -> None:
    assert len(theirs) > 250
    missing = sorted(theirs.keys() - ours.keys())
    assert not missing, "\n".join(missing)


def test_every_flag(theirs: Tree, ours: Tree) -> None:
    missing = [
        f"{words or 'lxpy'} {' '.join(more)}"
        for words, flags in theirs.items()
        if words in ours and (more := sorted(flags - ours[words]))
    ]
    assert not missing, "\n".join(missing)
