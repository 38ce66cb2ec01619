"""LXD's client over HTTPS: to a daemon that knows it by token or password, in all it does."""

from __future__ import annotations

import hashlib
import os
import pty
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conformance.conftest import Lxc
from tests.conformance.test_lxc_exec import read_until
from tests.support.tls import free_port

SERVER = ("core.https_address", "core.trust_password")


class Far(Lxc):
    """A user with no daemon on this host, to whom the one under test is the remote `r`."""

    def __init__(self, conf: Path) -> None:
        super().__init__(conf / "nothing", conf)
        self.conf = conf


@pytest.fixture
def address(lxc: Lxc) -> Iterator[str]:
    """Where the daemon listens during a test."""
    found = f"127.0.0.1:{free_port()}"
    before = set(lxc.query("/1.0/certificates"))
    lxc("config", "set", "core.https_address", found)
    yield found
    for key in SERVER:
        lxc("config", "unset", key)
    for url in set(lxc.query("/1.0/certificates")) - before:
        lxc("config", "trust", "remove", url.rpartition("/")[2])


@pytest.fixture
def far(tmp_path: Path) -> Far:
    return Far(tmp_path / "far")


@pytest.fixture
def known(lxc: Lxc, address: str, far: Far) -> Far:
    """That user, trusted; the remote is the default one."""
    far("remote", "add", "r", token(lxc, "bob"))
    far("remote", "switch", "r")
    return far


def token(lxc: Lxc, name: str, *words: str) -> str:
    return lxc("config", "trust", "add", "--name", name, "-q", *words).split()[-1]


def test_token(lxc: Lxc, address: str, far: Far) -> None:
    text = token(lxc, "bob")
    assert text in lxc("config", "trust", "list-tokens", "-f", "csv")
    far("remote", "add", "r", text)
    assert lxc("config", "trust", "list-tokens", "-f", "csv") == ""
    assert "client,bob," in lxc("config", "trust", "list", "-f", "csv")
    assert f"r,https://{address},lxd,tls,NO,NO,NO" in far("remote", "list", "-f", "csv")
    assert "auth: trusted" in far("info", "r:")
    far.refused("remote", "add", "again", text)
    revoked = token(lxc, "eve")
    lxc("config", "trust", "revoke-token", "eve")
    far.refused("remote", "add", "again", revoked)


def test_password(lxc: Lxc, address: str, far: Far) -> None:
    lxc("config", "set", "core.trust_password", "sesame")
    assert lxc("config", "get", "core.trust_password").strip() == "true"
    words = ("remote", "add", "r", address)
    mark = lxc.query("/1.0")["environment"]["certificate_fingerprint"]
    refused = far.run(*words, "--password", "sesame", input="n\n")
    assert refused.returncode != 0 and mark in refused.stdout
    assert "not authorized" in far.refused(*words, "--accept-certificate", "--password", "wrong")
    far(*words, "--password", "sesame", input=f"{mark}\n")
    assert "default" in far("profile", "list", "r:")


def test_an_instance(known: Far, image: str, tmp_path: Path) -> None:
    name = "afar"
    known("launch", image, name, "-c", "user.from=afar")
    try:
        assert known("list", name, "-c", "ns", "-f", "csv") == f"{name},RUNNING\n"
        assert known("config", "get", name, "user.from") == "afar\n"
        done = known.run("exec", name, "--", "sh", "-c", "cat; exit 7", input="hello\n")
        assert (done.stdout, done.returncode) == ("hello\n", 7)
        data = os.urandom(5_000_000)
        (tmp_path / "tree/below").mkdir(parents=True)
        (tmp_path / "tree/below/big").write_bytes(data)
        known("file", "push", "-r", tmp_path / "tree", f"{name}/root/")
        mark = hashlib.sha256(data).hexdigest()
        there = known("exec", name, "--", "sha256sum", "/root/tree/below/big")
        assert there.split()[0] == mark
        known("file", "pull", "-r", f"{name}/root/tree", tmp_path / "back")
        back = next((tmp_path / "back").rglob("big"))
        assert hashlib.sha256(back.read_bytes()).hexdigest() == mark
        every = known("exec", name, "--", "od", "-An", "-v", "-tx1", "/root/tree/below/big")
        assert hashlib.sha256(bytes.fromhex(every.replace("\n", ""))).hexdigest() == mark
        known("snapshot", name, "one")
        known("restore", name, "one")
        known("export", name, tmp_path / "out.tar.gz")
        known("import", tmp_path / "out.tar.gz", "afar2")
        known("publish", name, "--force", "--alias", "afar-published")
        known("image", "delete", "afar-published")
    finally:
        for each in (name, "afar2"):
            known.run("delete", "--force", each)
    assert known("list", "-f", "csv", "^afar") == ""


def test_terminals(known: Far, running: str) -> None:
    for words, said, answer, end in (
        (["exec", running, "--", "sh"], b"echo $((6*7))$((6*7))\n", "4242", (b"exit\n",)),
        (["console", running], b"", "To detach from the console", (b"\x01", b"q")),
    ):
        outer, inner = pty.openpty()
        shell = subprocess.Popen(
            ["lxc", *words], env=known.environment, stdin=inner, stdout=inner, stderr=inner,
            start_new_session=True,
        )  # fmt: skip
        os.close(inner)
        try:
            os.write(outer, said)
            read_until(outer, answer)
            for key in end:  # the client looks at one key at a time
                os.write(outer, key)
                time.sleep(0.2)
            assert shell.wait(15) == 0
        finally:
            shell.kill()
            shell.wait()
            os.close(outer)
    known("console", running, "--show-log")


def test_events(known: Far, instance: Callable[..., str]) -> None:
    with subprocess.Popen(
        ["lxc", "monitor", "--type=lifecycle", "--format=json"], env=known.environment,
        stdout=subprocess.PIPE, text=True, start_new_session=True,
    ) as monitor:  # fmt: skip
        time.sleep(1)
        instance("watched", verb="init")
        assert monitor.stdout is not None
        for line in monitor.stdout:
            if "instance-created" in line and "watched" in line:
                break
        monitor.terminate()
    assert "instance-created" in line


def test_a_restricted_client(lxc: Lxc, address: str, far: Far, image: str) -> None:
    lxc("project", "create", "mine", "-c", "features.images=false", "-c", "features.profiles=false")
    lxc("launch", image, "others")
    try:
        far("remote", "add", "r", token(lxc, "tenant", "--projects", "mine", "--restricted"))
        far("remote", "switch", "r")
        assert far("project", "list", "-f", "csv").split(",")[0].split()[0] == "mine"
        assert far("list", "-f", "csv") == ""
        far("launch", image, "own")
        assert far("list", "-f", "csv", "-c", "n") == "own\n"
        assert far("exec", "own", "--", "hostname") == "own\n"
        for words in (
            ("list", "--project", "default"),
            ("exec", "others", "--project", "default", "--", "true"),
            ("delete", "-f", "others", "--project", "default"),
            ("config", "set", "r:", "user.x=1"),
            ("project", "create", "r:more"),
            ("project", "edit", "default"),
            ("storage", "create", "r:more", "dir"),
            ("config", "trust", "add", "--name", "friend"),
        ):
            refused = far.refused(*words, input="{}")
            assert re.search("not authorized|forbidden|not found|Forbidden", refused), refused
        assert lxc.status("others") == "RUNNING"
    finally:
        lxc.run("delete", "--force", "own", "--project", "mine")
        lxc.run("delete", "--force", "others")
        lxc("project", "delete", "mine")
