"""Targets, key=value words, columns, filters, YAML from users."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from lxpy.cli import columns, filters, target, yamltext
from lxpy.cli.console import Detach
from lxpy.cli.image_export import extension
from lxpy.cli.session import Session
from lxpy.client import remotes
from lxpy.errors import BadRequest, NotFound

INSTANCE: dict[str, Any] = {
    "name": "web1",
    "status": "Running",
    "type": "container",
    "architecture": "x86_64",
    "ephemeral": True,
    "project": "default",
    "config": {"volatile.base_image": "0123456789abcdef"},
    "profiles": ["default", "web"],
    "snapshots": [{}, {}],
    "expanded_config": {"user.blah": "abc", "security.privileged": "true", "image.os": "Debian"},
    "expanded_devices": {"root": {"type": "disk", "path": "/", "pool": "p1"}},
    "state": {
        "pid": 77,
        "processes": 3,
        "cpu": {"usage": 2_500_000_000},
        "memory": {"usage": 3 * 1024**2},
        "network": {
            "lo": {"type": "loopback", "addresses": []},
            "eth0": {
                "type": "broadcast",
                "addresses": [
                    {"family": "inet", "address": "10.1.2.3", "scope": "global"},
                    {"family": "inet", "address": "10.1.2.4", "scope": "global"},
                    {"family": "inet6", "address": "fe80::1", "scope": "link"},
                ],
            },
        },
    },
}


def row(text: str) -> list[tuple[str, str]]:
    """Titles and cells of the instance above."""
    return [(title, cell(INSTANCE)) for title, cell, _ in columns.parse(text)]


def test_columns() -> None:
    assert row("ns46tS") == [
        ("NAME", "web1"),
        ("STATE", "RUNNING"),
        ("IPV4", "10.1.2.4 (eth0)\n10.1.2.3 (eth0)"),
        ("IPV6", ""),
        ("TYPE", "CONTAINER (EPHEMERAL)"),
        ("SNAPSHOTS", "2"),
    ]
    assert row("n,b,Pf") == [
        ("NAME", "web1"),
        ("STORAGE POOL", "p1"),
        ("PROFILES", "default\nweb"),
        ("BASE IMAGE", "0123456789ab"),
    ]
    assert row("mpNu") == [
        ("MEMORY USAGE", "3.00MiB"),
        ("PID", "77"),
        ("PROCESSES", "3"),
        ("CPU USAGE", "2s"),
    ]
    assert row("user.blah") == [("USER.BLAH", "abc")]
    assert row("config:image.os,devices:root.pool:POOL,user.blah:B:2") == [
        ("IMAGE OS", "Debian"),
        ("POOL", "p1"),
        ("B", "ab"),
    ]
    assert row("user.blah::0") == [("", "abc")] or row("user.blah:B:0") == [("B", "a")]


@pytest.mark.parametrize("text", ["z", "n,,s", "devices:root", "a.b:c:x", "a.b:c:1:2"])
def test_wrong_columns(text: str) -> None:
    with pytest.raises(BadRequest):
        row(text)


@pytest.mark.parametrize(
    ("words", "selected"),
    [
        ([], True),
        (["web"], True),
        (["eb"], False),
        ([".*eb"], True),
        (["^web1$"], True),
        (["^web$"], False),
        (["web["], False),
        (["user.blah=abc"], True),
        (["u.blah=abc"], True),
        (["u.blah=ab"], False),
        (["u.blah=a.*"], True),
        (["s.privileged=true", "web"], True),
        (["s.privileged=true", "db"], False),
        (["type=container", "status=running"], True),
        (["status=stopped,running"], True),
        (["status=stopped"], False),
        (["ipv4=10.1.2.3"], True),
        (["ipv4=10.1.0.0/16"], True),
        (["ipv4=192.0.2.0/24"], False),
        (["ipv4=nonsense"], False),
    ],
)
def test_filters(words: list[str], selected: bool) -> None:
    assert filters.selects(words, INSTANCE) is selected


def test_words() -> None:
    assert target.pairs(["a=b", "c=", "d=e=f"]) == {"a": "b", "c": "", "d": "e=f"}
    assert target.settings(("limits.cpu", "2")) == {"limits.cpu": "2"}
    assert target.settings(("a=b", "c=d")) == {"a": "b", "c": "d"}
    assert target.overrides(["root,size=1GiB", "root,pool=p", "eth0,mtu=9,name=x"]) == {
        "root": {"size": "1GiB", "pool": "p"},
        "eth0": {"mtu": "9", "name": "x"},
    }
    assert target.split_snapshot("c1/s1") == ("c1", "s1")
    for wrong in (["a"], ["=b"]):
        with pytest.raises(BadRequest):
            target.pairs(wrong)
    with pytest.raises(BadRequest):
        target.overrides(["root"])


def test_remotes(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    for name in ("LXPY_SOCKET", "LXPY_DIR", "LXD_SOCKET", "LXD_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LXPY_CONF", str(tmp_path))
    session = Session()
    assert session.server("c1")[0].path == "/var/lib/lxpy/unix.socket"
    monkeypatch.setenv("LXD_DIR", "/lxd")
    assert remotes.socket_path() == "/lxd/unix.socket"
    monkeypatch.setenv("LXPY_DIR", "/ours")
    assert remotes.socket_path() == "/ours/unix.socket"
    monkeypatch.setenv("LXPY_SOCKET", "/ours.socket")
    assert remotes.socket_path() == "/ours.socket"
    with pytest.raises(NotFound, match='The remote "nowhere" doesn\'t exist'):
        session.parse("nowhere:c1")
    with pytest.raises(BadRequest, match="images only"):
        session.server("images:debian/13")
    (tmp_path / "config.yml").write_text(
        "default-remote: lab\nremotes:\n  lab: {addr: 'unix:///lab.socket', project: web}\n"
        "  far: {addr: 'https://192.0.2.1:8443/'}\n"
        "  odd: {addr: 'http://192.0.2.1'}\n"
    )
    session = Session()
    client, name = session.server("c1")
    assert (client.path, client.project, name) == ("/lab.socket", "web", "c1")
    assert session.server("local:c1")[0].path == "/ours.socket"
    assert session.server("far:c1")[0].path == "https://192.0.2.1:8443"
    with pytest.raises(BadRequest, match="use .https://"):
        session.server("odd:")
    (tmp_path / "config.yml").write_text("remotes: [a\n")
    with pytest.raises(BadRequest, match="config.yml"):
        Session().server("c1")


def test_yaml_is_read_as_users_mean_it() -> None:
    text = "config:\n  security.nesting: true\n  limits.cpu: 2\n  user.n:\ndevices:\n"
    text += "  root: {size: 10, type: disk}\nephemeral: true\ncreated_at: 2026-01-02T03:04:05Z\n"
    assert yamltext.load(text) == {
        "config": {"security.nesting": "true", "limits.cpu": "2", "user.n": ""},
        "devices": {"root": {"size": "10", "type": "disk"}},
        "ephemeral": True,
        "created_at": "2026-01-02T03:04:05Z",
    }
    assert yamltext.load("") == {} == yamltext.load("### only comments\n")
    assert yamltext.load("config:\n") == {"config": {}}
    for wrong in ("a: [", "- a", "words", "config: [1]"):
        with pytest.raises(BadRequest):
            yamltext.load(wrong)


def test_yaml_is_written_as_lxc_does() -> None:
    data = {
        "name": "c1",
        "config": {"b": "1", "a": "true", "c": "x: y", "d": '{"k":1}', "e": "two\nlines\n"},
        "created_at": "2026-01-02T03:04:05Z",
        "used_by": None,
        "description": "",
        "ephemeral": False,
    }
    assert yamltext.dump(data) == (
        'name: c1\nconfig:\n  a: "true"\n  b: "1"\n  c: \'x: y\'\n  d: \'{"k":1}\'\n'
        "  e: |\n    two\n    lines\n"
        'created_at: 2026-01-02T03:04:05Z\nused_by: []\ndescription: ""\nephemeral: false\n'
    )


@given(some.dictionaries(some.text(min_size=1), some.text()))
def test_yaml_keeps_every_config(config: dict[str, str]) -> None:
    assert yamltext.load(yamltext.dump({"config": config})) == {"config": config}


@pytest.mark.parametrize(
    ("pieces", "sent", "left"),
    [
        ([b"ls\n"], b"ls\n", False),
        ([b"\x01q"], b"", True),
        ([b"\x01", b"q"], b"", True),
        ([b"ab\x01", b"\x01", b"c"], b"ab\x01c", False),
        ([b"\x01x"], b"\x01x", False),
        ([b"\x01"], b"", False),
    ],
)
def test_detach(pieces: list[bytes], sent: bytes, left: bool) -> None:
    typed = Detach()
    results = [typed(piece) for piece in pieces]
    assert (None in results) is left
    assert b"".join(result for result in results if result is not None) == sent


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("debian-13.1.tar.xz", ".tar.xz"),
        ("x.tar", ".tar"),
        ("a.tgz", ".tgz"),
        ("rootfs.squashfs", ".squashfs"),
        ("odd", ""),
    ],
)
def test_extension(name: str, end: str) -> None:
    assert extension(name) == end
