"""Every verb is there, with help; completion scripts and the manual page come from the same."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator

import click
import pytest

from lxpy.cli.completion import SHELLS
from lxpy.cli.declare import Group
from lxpy.cli.manpage import page
from lxpy.cli.root import root, run

#: What `lxc` 5.0.2 has and this version promises.
VERBS = """
config get, config set, config unset, config show, config edit
config device add, config device remove, config device set, config device get
config device unset, config device list, config device show, config device override
file push, file pull, file edit, file delete, file create
console, copy, delete, exec, help, info, init, launch, list, monitor, move
image list, image info, image import, image export, image delete, image show, image edit
image copy, image refresh, image get-property, image set-property, image unset-property
image alias create, image alias delete, image alias list, image alias rename
network list, network show, network info, network create, network delete, network edit
network get, network set, network unset, network rename, network attach, network detach
network list-leases, network attach-profile, network detach-profile
network forward list, network forward show, network forward create, network forward get
network forward set, network forward unset, network forward edit, network forward delete
network forward port add, network forward port remove
network acl list, network acl show, network acl create, network acl get, network acl set
network acl unset, network acl edit, network acl delete, network acl rename, network acl show-log
network acl rule add, network acl rule remove, network peer list, network zone list
operation list, operation show, operation delete, pause, query, rename, restart
profile list, profile show, profile get, profile set, profile unset, profile create, profile edit
profile copy, profile delete, profile rename, profile add, profile remove, profile assign
profile device add, profile device remove, profile device list
start, stop, version
storage list, storage show, storage info, storage create, storage delete, storage edit
storage get, storage set, storage unset, storage volume list, storage volume show
storage volume create, storage volume delete, storage volume rename, storage volume info
storage volume get, storage volume set, storage volume unset, storage volume edit
storage volume attach, storage volume detach, storage volume attach-profile
storage volume detach-profile, storage volume copy, storage volume move
storage volume snapshot, storage volume restore, storage volume export, storage volume import
snapshot create, snapshot list, snapshot delete, snapshot rename, snapshot diff, restore
doctor, completion, manpage, recover, shutdown, resume, shell, image build
"""


def commands(
    parent: Group = root, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command below a group, with its words."""
    for name in parent.list_commands(click.Context(parent)):
        found = parent.get_command(click.Context(parent), name)
        assert found is not None
        yield (*path, name), found
        if isinstance(found, Group):
            yield from commands(found, (*path, name))


def test_every_verb() -> None:
    have = {" ".join(path) for path, _ in commands()}
    wanted = {verb.strip() for line in VERBS.strip().splitlines() for verb in line.split(",")}
    assert wanted - have == set()


@pytest.mark.parametrize(("path", "found"), list(commands()), ids=lambda each: str(each))
def test_help(
    path: tuple[str, ...], found: click.Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert found.help and found.get_short_help_str()
    assert run([*path, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"Usage: lxpy {' '.join(path)} ")
    for option in found.params:
        if isinstance(option, click.Option):
            assert option.help, f"{path}: {option.opts} has no help"
    assert run(["help", *path]) == 0
    assert capsys.readouterr().out == text


@pytest.mark.parametrize("shell", SHELLS)
def test_completion(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "_LXPY_COMPLETE" in script
    if shutil.which(shell):
        subprocess.run([shell, "-n", "/dev/stdin"], input=script, text=True, check=True)


def test_manual_page_is_complete() -> None:
    text = "\n".join(page())
    for path, found in commands():
        if not isinstance(found, Group):
            assert f"lxpy {' '.join(path)}".replace("-", "\\-") in text
    assert text.startswith(".TH LXPY 1 ")
    assert not [line for line in text.splitlines() if line.startswith("'")]


def test_other_spellings(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["rm", "--help"], ["profile", "ls", "--help"], ["image", "cp", "--help"]):
        assert run(words) == 0
    assert "Usage: lxpy rm " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["nothing"], 'unknown command "nothing" for "lxpy"'),
        (["profile", "nothing"], 'unknown command "nothing" for "lxpy profile"'),
        (["launch", "--nothing"], "unknown flag: --nothing"),
        (["exec", "c1", "ls", "-l"], "unknown shorthand flag: 'l' in -l"),
        (["profile", "delete", "a", "b"], "Invalid number of arguments"),
        (["exec", "c1"], "Invalid number of arguments"),
        (["list", "-f", "pdf"], 'Invalid format "pdf"'),
        (["init", "a", "b", "--target", "m"], "must be a cluster"),
    ],
)
def test_wrong_calls(words: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(words) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert f"Error: {text}" in shown.err or text in shown.err
