"""The user's own commands: kept in config.yml, put into calls."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from lxpy.cli.expansion import expand
from lxpy.client import aliases
from lxpy.errors import BadRequest, Conflict, NotFound


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LXPY_CONF", str(tmp_path))
    return tmp_path / "config.yml"


def test_aliases_are_kept_beside_everything_else(config: Path) -> None:
    config.write_text("default-remote: lab\nremotes:\n  lab: {addr: 'unix:///x'}\n")
    aliases.add("ll", "list -c ns")
    with pytest.raises(Conflict, match="Alias ll already exists"):
        aliases.add("ll", "other")
    aliases.rename("ll", "l2")
    assert aliases.load() == {"l2": "list -c ns"}
    assert yaml.safe_load(config.read_text())["default-remote"] == "lab"
    aliases.remove("l2")
    assert aliases.load() == {}
    with pytest.raises(NotFound, match="Alias l2 doesn't exist"):
        aliases.remove("l2")


def test_no_file_is_no_aliases() -> None:
    assert aliases.load() == {}


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["other", "x"], ["other", "x"]),
        (["ll", "c1"], ["list", "-c", "ns", "c1"]),
        (["ll", "deep", "c1"], ["info", "c1"]),
        (["sh", "c1", "-v"], ["exec", "c1", "-v", "--", "su", "-l"]),
        (["pair", "a", "b", "c"], ["copy", "b", "a", "c"]),
        (["list"], ["list", "-c", "n"]),
    ],
)
def test_expansion(words: list[str], wanted: list[str]) -> None:
    known = {
        "ll": "list -c ns",
        "ll deep": "info",
        "sh": "exec @ARGS@ -- su -l",
        "pair": "copy @ARG2@ @ARG1@",
        "list": "list -c n",
    }
    assert expand(words, known) == wanted


def test_a_missing_argument_is_told() -> None:
    with pytest.raises(BadRequest, match="@ARG2@"):
        expand(["pair", "a"], {"pair": "copy @ARG2@ @ARG1@"})
