"""`lxpy` over HTTPS to a real LXD, which knows it by token or password."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conformance.conftest import Lxd
from tests.conformance.test_lxc_exec import read_until

Lxpy = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def environment(lxd: Lxd, tmp_path: Path) -> Iterator[dict[str, str]]:
    """A user who knows of no daemon on this host; LXD forgets about it afterwards."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("LX")}
    yield kept | {"LXPY_CONF": str(tmp_path / "conf"), "LXPY_DIR": str(tmp_path / "nothing")}
    lxd("config", "unset", "core.trust_password")
    for each in json.loads(lxd("config", "trust", "list", "-f", "json")):
        lxd("config", "trust", "remove", each["fingerprint"])


@pytest.fixture
def lxpy(commands: Path, environment: dict[str, str]) -> Lxpy:
    """`lxpy` of that user."""

    def call(*words: str | Path, check: bool = True, **options: str) -> object:
        streams = {} if "input" in options else {"stdin": subprocess.DEVNULL}
        done = subprocess.run(
            [commands / "lxpy", *words], env=environment, capture_output=True, text=True,
            timeout=90, check=False, **streams, **options,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"lxpy {words}: {done.stderr}"
        return done

    return call  # type: ignore[return-value]  # the checker does not see what run returns


@pytest.fixture
def known(lxd: Lxd, lxpy: Lxpy) -> Lxpy:
    """The same, trusted; LXD is its default remote."""
    token = lxd("config", "trust", "add", "--name", "lxpy", "-q").split()[-1]
    lxpy("remote", "add", "r", token)
    lxpy("remote", "switch", "r")
    return lxpy


@pytest.fixture(scope="module")
def tiny(lxd: Lxd, busybox_image: Path) -> Iterator[str]:
    lxd("image", "import", busybox_image, "--alias", "small")
    yield "small"
    lxd("image", "delete", "small")


def test_password(lxd: Lxd, lxpy: Lxpy) -> None:
    lxd("config", "set", "core.trust_password", "sesame")
    words = ("remote", "add", "r", lxd.url, "--accept-certificate", "--password")
    refused = lxpy(*words, "wrong", check=False)
    assert refused.returncode == 1 and "not authorized" in refused.stderr
    lxpy(*words, "sesame")
    assert "default" in lxpy("profile", "list", "r:").stdout
    assert "auth: trusted" in lxpy("info", "r:").stdout


def test_who_is_trusted(lxd: Lxd, known: Lxpy) -> None:
    """`lxpy config trust` shows and changes what `lxc config trust` does."""
    for words in (("list", "-f", "csv"), ("list-tokens", "-f", "csv"), ("list", "-f", "json")):
        theirs = lxd("config", "trust", *words)
        assert known("config", "trust", *words).stdout.strip() == theirs.strip()
    made = known("config", "trust", "add", "--name", "another").stdout.split()[-1]
    assert made in lxd("config", "trust", "list-tokens", "-f", "csv")
    for form in ("csv", "json", "yaml"):
        words = ("config", "trust", "list-tokens", "-f", form)
        assert known(*words).stdout.strip() == lxd(*words).strip()
    known("config", "trust", "revoke-token", "another")
    assert lxd("config", "trust", "list-tokens", "-f", "csv") == ""
    mark = json.loads(lxd("config", "trust", "list", "-f", "json"))[0]["fingerprint"]
    shown = known("config", "trust", "show", mark[:12]).stdout
    assert shown == lxd("config", "trust", "show", mark[:12])
    known("config", "trust", "edit", mark, input=shown.replace("name: lxpy", "name: other"))
    assert "client,other," in lxd("config", "trust", "list", "-f", "csv")


def test_an_instance(lxd: Lxd, known: Lxpy, tiny: str, tmp_path: Path) -> None:
    name = "lxpy-afar"
    known("launch", tiny, name, "-c", "user.from=lxpy")
    try:
        assert known("list", name, "-c", "ns", "-f", "csv").stdout == f"{name},RUNNING\n"
        done = known("exec", name, "--", "sh", "-c", "cat; exit 7", input="hi\n", check=False)
        assert (done.stdout, done.returncode) == ("hi\n", 7)
        data = os.urandom(3_000_000)
        (tmp_path / "tree").mkdir()
        (tmp_path / "tree/big").write_bytes(data)
        known("file", "push", "-r", tmp_path / "tree", f"{name}/root/")
        mark = hashlib.sha256(data).hexdigest()
        there = known("exec", name, "--", "sha256sum", "/root/tree/big").stdout
        assert there.split()[0] == mark
        known("file", "pull", f"{name}/root/tree/big", tmp_path / "back")
        assert hashlib.sha256((tmp_path / "back").read_bytes()).hexdigest() == mark
        known("config", "set", name, "limits.memory=100MiB")
        assert lxd("config", "get", name, "limits.memory") == "100MiB\n"
        known("snapshot", name, "one")
        known("restore", name, "one")
        known("export", name, tmp_path / "out.tar.gz")
        assert (tmp_path / "out.tar.gz").stat().st_size > 1000
        known("stop", name, "--force")
        known("delete", name)
    finally:
        lxd.run("delete", "--force", name)
    assert known("list", "-f", "csv").stdout == ""


def test_terminals(
    lxd: Lxd, known: Lxpy, tiny: str, commands: Path, environment: dict[str, str]
) -> None:
    name = "lxpy-shown"
    lxd("launch", tiny, name)
    try:
        for words, said, answer, end in (
            (["exec", name, "--", "sh"], b"echo $((6*7))$((6*7))\n", "4242", b"exit\n"),
            (["console", name], b"", "To detach from the console", b"\x01q"),
        ):
            outer, inner = pty.openpty()
            shell = subprocess.Popen(
                [commands / "lxpy", *words], env=environment, stdin=inner, stdout=inner,
                stderr=inner, start_new_session=True,
            )  # fmt: skip
            os.close(inner)
            try:
                os.write(outer, said)
                read_until(outer, answer)
                time.sleep(0.5)  # the console is not there before it says so
                os.write(outer, end)
                assert shell.wait(15) == 0
            finally:
                shell.kill()
                shell.wait()
                os.close(outer)
    finally:
        lxd("delete", "--force", name)
