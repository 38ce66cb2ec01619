"""`lxpy` over the network: remotes, trust, and whatever is done with them."""

from __future__ import annotations

import hashlib
import os
import pty
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.daemon import Daemon
from tests.support.fixtures import Launch
from tests.support.tls import free_port

Client = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def address(daemon: Daemon) -> Iterator[str]:
    """Where the shared daemon listens during a test."""
    found = f"127.0.0.1:{free_port()}"
    daemon.api.call("PATCH", "/1.0", {"config": {"core.https_address": found}})
    yield found
    daemon.api.call(
        "PATCH", "/1.0", {"config": {"core.https_address": "", "core.trust_password": ""}}
    )
    for url in daemon.api.get("/1.0/certificates"):
        daemon.api.call("DELETE", url)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A user who knows of no daemon on this host."""
    return {"LXPY_CONF": str(tmp_path / "conf"), "LXPY_DIR": str(tmp_path / "nothing")}


@pytest.fixture
def far(daemon: Daemon, environment: dict[str, str]) -> Client:
    """`lxpy` of that user."""

    def call(*words: str | Path, check: bool = True, **options: str) -> object:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("LX")}
        done = subprocess.run(
            [daemon.commands / "lxpy", *words],
            env={**kept, **environment}, capture_output=True, text=True, timeout=90, check=False,
            **({} if "input" in options else {"stdin": subprocess.DEVNULL}), **options,
        )  # fmt: skip
        assert not check or done.returncode == 0, done.stderr
        return done

    return call  # type: ignore[return-value]  # the checker does not see what run returns


@pytest.fixture
def known(daemon: Daemon, address: str, far: Client) -> Client:
    """`lxpy` of that user, to whom the daemon is the default remote "r"."""
    token = daemon.lxpy("config", "trust", "add", "--name", "bob").stdout.split()[-1]
    assert "now trusted by server: r" in far("remote", "add", "r", token).stderr
    far("remote", "switch", "r")
    return far


def test_a_token_is_listed_and_revoked(daemon: Daemon, address: str, far: Client) -> None:
    said = daemon.lxpy("config", "trust", "add", "--name", "bob").stdout
    assert said.startswith("Client bob certificate add token:\n")
    token = said.split()[-1]
    assert daemon.lxpy("config", "trust", "list-tokens", "-f", "csv").stdout == f"bob,{token},\n"
    daemon.lxpy("config", "trust", "revoke-token", "bob")
    refused = far("remote", "add", "r", token, check=False)
    assert refused.returncode == 1 and "not authorized" in refused.stderr
    assert "r," not in far("remote", "list", "-f", "csv").stdout
    assert daemon.lxpy("config", "trust", "revoke-token", "bob", check=False).returncode == 1


def test_the_fingerprint_is_asked_for(
    daemon: Daemon, address: str, far: Client, environment: dict[str, str]
) -> None:
    daemon.api.call("PATCH", "/1.0", {"config": {"core.trust_password": "sesame"}})
    mark = daemon.api.get("/1.0")["environment"]["certificate_fingerprint"]
    words = ("remote", "add", "r", address, "--password", "sesame")
    refused = far(*words, input="n\n", check=False)
    assert "NACKed by user" in refused.stderr and mark in refused.stdout
    assert daemon.api.get("/1.0/certificates") == []
    far(*words, input=f"{mark}\n")
    assert "default" in far("profile", "list", "r:").stdout
    conf = Path(environment["LXPY_CONF"])
    assert (conf / "client.key").stat().st_mode & 0o777 == 0o600
    # Another server at that address is not spoken to.
    (conf / "servercerts/r.crt").write_text((conf / "client.crt").read_text())
    refused = far("list", "r:", check=False)
    assert "another certificate" in refused.stderr
    (conf / "servercerts/r.crt").unlink()
    assert "not trusted" in far("list", "r:", check=False).stderr


def test_a_wrong_password(daemon: Daemon, address: str, far: Client) -> None:
    daemon.api.call("PATCH", "/1.0", {"config": {"core.trust_password": "sesame"}})
    words = ("remote", "add", "r", f"https://{address}", "--accept-certificate")
    refused = far(*words, "--password", "wrong", check=False)
    assert refused.returncode == 1 and "not authorized" in refused.stderr
    assert "r," not in far("remote", "list", "-f", "csv").stdout
    far(*words, input="sesame\n")
    assert "r," in far("remote", "list", "-f", "csv").stdout


def test_the_list_of_remotes(known: Client, address: str, environment: dict[str, str]) -> None:
    row = f"r (current),https://{address},lxd,tls,NO,NO,NO"
    assert row in known("remote", "list", "-f", "csv").stdout
    assert "Can't remove the default remote" in known("remote", "remove", "r", check=False).stderr
    assert "exists as" in known("remote", "add", "r", address, check=False).stderr
    assert "is static" in known("remote", "rename", "local", "x", check=False).stderr
    known("remote", "rename", "r", "s")
    assert known("remote", "get-default").stdout == "s\n"
    assert "default" in known("profile", "list").stdout
    known("remote", "add", "m", "https://images.example.com", "--protocol=simplestreams")
    known("remote", "set-url", "m", "https://images.example.com/streams")
    assert "m,https://images.example.com/streams,simplestreams,none,YES,NO,NO" in (
        known("remote", "list", "-f", "csv").stdout
    )
    known("remote", "switch", "local")
    known("remote", "rm", "s")
    assert not (Path(environment["LXPY_CONF"]) / "servercerts/s.crt").exists()
    assert "doesn't exist" in known("remote", "remove", "s", check=False).stderr


def test_who_is_trusted(daemon: Daemon, known: Client, tmp_path: Path) -> None:
    (row,) = daemon.lxpy("config", "trust", "list", "-f", "csv").stdout.splitlines()
    kind, name, _, mark = row.split(",")[:4]
    assert (kind, name) == ("client", "bob")
    shown = daemon.lxpy("config", "trust", "show", mark).stdout
    changed = shown.replace("restricted: false", "restricted: true").replace("name: bob", "name: b")
    daemon.lxpy("config", "trust", "edit", mark, input=changed)
    assert "name: b\n" in daemon.lxpy("config", "trust", "show", mark).stdout
    assert "not authorized" in known("list", check=False).stderr  # it is for no project yet
    changed = changed.replace("projects: []", "projects: [default]")
    daemon.lxpy("config", "trust", "edit", mark, input=changed)
    assert known("list").returncode == 0
    refused = known("config", "set", "r:", "user.note=1", check=False)
    assert "not authorized" in refused.stderr
    daemon.lxpy("config", "trust", "remove", mark)
    assert "not authorized" in known("list", check=False).stderr
    certificate = tmp_path / "conf/client.crt"
    daemon.lxpy("config", "trust", "add", certificate, "--name", "again")
    assert known("list").returncode == 0
    twice = daemon.lxpy("config", "trust", "add", certificate, check=False)
    assert "already in trust store" in twice.stderr


def test_exec_and_files(known: Client, launch: Launch, tmp_path: Path) -> None:
    name = launch()
    done = known("exec", name, "--", "sh", "-c", "cat; exit 7", input="hello\n", check=False)
    assert (done.stdout, done.returncode) == ("hello\n", 7)
    data = os.urandom(9_000_000)
    (tmp_path / "big").write_bytes(data)
    known("file", "push", tmp_path / "big", f"{name}/root/big")
    mark = known("exec", name, "--", "sha256sum", "/root/big").stdout.split()[0]
    assert mark == hashlib.sha256(data).hexdigest()
    known("file", "pull", f"{name}/root/big", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == data
    much = known("exec", name, "--", "sh", "-c", "cat /root/big | od -An -v -tx1 | wc -c")
    assert int(much.stdout) > len(data)
    every = known("exec", name, "--", "od", "-An", "-v", "-tx1", "/root/big").stdout
    assert hashlib.sha256(bytes.fromhex(every.replace("\n", ""))).hexdigest() == mark


def test_a_terminal(
    daemon: Daemon, known: Client, launch: Launch, environment: dict[str, str]
) -> None:
    name = launch()
    ours, theirs = pty.openpty()
    kept = {key: value for key, value in os.environ.items() if not key.startswith("LX")}
    with subprocess.Popen(
        [daemon.commands / "lxpy", "exec", name, "--", "sh"],
        stdin=theirs, stdout=theirs, stderr=theirs, env={**kept, **environment},
        start_new_session=True,
    ) as shell:  # fmt: skip
        os.close(theirs)
        os.write(ours, b"tty; echo $((6*7))$((6*7)); exit 5\n")
        said = b""
        while b"4242" not in said:
            said += os.read(ours, 4096)
        assert b"/dev/" in said
        assert shell.wait(30) == 5
    os.close(ours)


def test_the_life_of_an_instance(daemon: Daemon, known: Client, tiny: str, tmp_path: Path) -> None:
    name = daemon.name()
    known("launch", tiny, f"r:{name}", "-c", "user.from=afar")
    assert known("list", f"r:{name}", "-c", "ns", "-f", "csv").stdout == f"{name},RUNNING\n"
    known("snapshot", name, "one")
    known("export", name, tmp_path / "out.tar.gz")
    assert (tmp_path / "out.tar.gz").stat().st_size > 1000
    known("stop", name, "--force")
    known("delete", name)
    assert name not in daemon.instances()
