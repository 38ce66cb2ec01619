"""The short way to the verbs of every day says what click's declarations say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest

from lxpy.cli import fast
from lxpy.cli.root import root
from lxpy.cli.session import Session
from lxpy.cli.snapshots import VERBS

CALLS = [
    ["exec", "c1", "--", "true"],
    ["exec", "c1", "true"],
    ["exec", "remote:c1", "-T", "--", "sh", "-c", "exit 7", "--", "-x"],
    ["exec", "--env", "A=b", "--env=C=d e", "c1", "--cwd", "/", "-t", "--", "ls", "-l"],
    ["exec", "-n", "--mode", "interactive", "c1", "--", "cat"],
    ["list"],
    ["ls", "web", "--format=csv"],
    ["list", "^a$", "-c", "ns4", "-f", "json", "--fast", "--all-projects"],
    ["list", "local:", "user.x=1"],
    ["start", "c1"],
    ["stop", "c1", "c2", "--force"],
    ["stop", "--all", "-f"],
    ["restart", "c1"],
    ["pause", "c1"],
    ["resume", "--all"],
    ["delete", "-f", "c1", "c2"],
    ["launch", "images:debian/13", "c1"],
    ["launch", "debian", "-c", "limits.cpu=1", "--config=user.x=y z", "-e", "-p", "default"],
    ["init", "debian", "c1", "-n", "lxpybr0", "-s", "default", "-d", "root,size=1GiB"],
    ["snapshot", "c1"],
    ["snapshot", "c1", "s1", "--reuse", "--no-expiry"],
    ["snapshot", "--stateful", "remote:list"],
    ["snapshot", "--", "list", "s1"],
    ["restore", "c1", "s1", "--stateful"],
]

OTHERS = [
    ["exec", "c1", "ls", "-l"],
    ["exec", "c1"],
    ["exec", "--help"],
    ["exec", "c1", "--user", "1000", "--", "id"],
    ["exec", "c1", "--mode", "loud", "--", "id"],
    ["exec", "c1", "-nT", "--", "id"],
    ["exec", "c1", "--force-interactive=false", "--", "id"],
    ["list", "-f", "pdf"],
    ["list", "-c"],
    ["start"],
    ["stop", "c1", "--timeout", "5"],
    ["start", "c1", "--console"],
    ["delete", "-i", "c1"],
    ["delete"],
    ["launch"],
    ["launch", "--empty", "c1"],
    ["launch", "a", "b", "c"],
    ["config", "show"],
    ["snapshot"],
    ["snapshot", "list", "c1"],
    ["snapshot", "diff", "c1", "s1"],
    ["snapshot", "create", "list"],
    ["snapshot", "c1", "s1", "s2"],
    ["restore", "c1"],
]


def by_click(words: list[str]) -> dict[str, object]:
    """The arguments that click finds."""
    name = "list" if words[0] == "ls" else words[0]
    context = declared(name).make_context(name, words[1:], obj=Session())
    if isinstance(context.command, click.Group):
        inner = context.command.resolve_command(context, context._protected_args + context.args)
        assert inner[1] is not None
        context = inner[1].make_context(inner[0], inner[2], parent=context)
    return context.params


def declared(name: str) -> click.Command:
    found = root.get_command(click.Context(root), name)
    assert found is not None
    return found


@pytest.mark.parametrize("words", CALLS, ids=" ".join)
def test_same_as_click(words: list[str]) -> None:
    parsed = fast.parse(words)
    assert parsed is not None
    clicked = by_click(words)
    assert {key: clicked[key] for key in parsed} == parsed
    defaults = by_click([words[0], "a", "b"])
    left = {key: value for key, value in clicked.items() if key not in parsed}
    assert left == {key: defaults[key] for key in left}


@pytest.mark.parametrize("words", OTHERS, ids=" ".join)
def test_left_to_click(words: list[str]) -> None:
    assert fast.parse(words) is None


@pytest.mark.parametrize("verb", sorted(fast.FLAGS))
def test_flags_are_declared(verb: str) -> None:
    found = declared(verb)
    if isinstance(found, click.Group):
        made = found.get_command(click.Context(found), "create")
        assert made is not None
        found = made
    options = {spelling: o for o in found.params for spelling in (*o.opts, *o.secondary_opts)}
    for spelling, (parameter, takes) in fast.FLAGS[verb].items():
        option = options[spelling]
        assert isinstance(option, click.Option)
        assert option.name == parameter
        assert (option.is_flag, option.multiple) == (takes == "", takes == "*")


def test_verbs_of_snapshot() -> None:
    """An instance of such a name is reached another way, as the help says."""
    found = declared("snapshot")
    assert isinstance(found, click.Group)
    assert set(found.list_commands(click.Context(found))) <= set(VERBS)


LIGHT = [
    ["exec", "c1", "true"],
    ["list"],
    ["start", "c1"],
    ["stop", "-f", "c1"],
    ["delete", "c1"],
    ["launch", "-q", "images:debian/13", "c1"],
    ["snapshot", "c1", "s1"],
    ["restore", "c1", "s1"],
]


@pytest.mark.parametrize("words", LIGHT, ids=" ".join)
def test_imports_are_light(words: list[str], tmp_path: Path, repository: Path) -> None:
    """Nothing heavy on the way to a request: neither libraries nor slow parts of Python's own."""
    code = (
        "import sys\n"
        f"sys.path.insert(0, {str(repository)!r})\n"
        "from lxpy.cli.main import main\n"
        f"status = main({words!r})\n"
        "heavy = {'click', 'yaml', 'typing', 'dataclasses', 'http.client', 'asyncio', 'ssl',\n"
        "         'pathlib', 'urllib', 'email', 'datetime', 'subprocess', 'inspect'}\n"
        "print(status, sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-IS", "-c", code],
        env={"LXPY_DIR": str(tmp_path), "LXPY_CONF": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "1 []\n"
    assert "Cannot reach lxpyd" in done.stderr
