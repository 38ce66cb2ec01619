"""The API over the network: who is trusted, by what, and for what; LXD's client is the client."""

from __future__ import annotations

import base64
import http.client
import json
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.api import ApiError
from tests.support.daemon import Daemon
from tests.support.tls import free_port, revocation, self_signed

Lxc = Callable[..., subprocess.CompletedProcess[str]]


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
def lxc(tmp_path: Path) -> Lxc:
    """LXD's client with a configuration, and so a certificate, of its own."""

    def call(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            ["lxc", *arguments],
            env={"PATH": "/usr/bin:/bin", "LXD_CONF": str(tmp_path), "HOME": "/"},
            capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert not check or done.returncode == 0, done.stderr
        return done

    return call


def token(daemon: Daemon, **fields: Any) -> str:
    wish = {"type": "client", "token": True, **fields}
    _, _, data = daemon.api.raw("POST", "/1.0/certificates", wish)
    found = json.loads(data)["metadata"]["metadata"]
    text = json.dumps(
        {
            "client_name": found["request"]["name"], "fingerprint": found["fingerprint"],
            "addresses": found["addresses"], "secret": found["secret"],
        }
    )  # fmt: skip
    return base64.b64encode(text.encode()).decode()


def stranger(
    address: str, method: str, path: str, pem: Path | None = None
) -> tuple[int, dict[str, Any]]:
    """Send a request without a certificate, or with one that nobody has added."""
    context = ssl._create_unverified_context()
    if pem is not None:
        context.load_cert_chain(pem)
    host, _, port = address.partition(":")
    connection = http.client.HTTPSConnection(host, int(port), context=context, timeout=10)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def test_a_token_is_good_once(daemon: Daemon, address: str, lxc: Lxc) -> None:
    text = token(daemon, name="bob")
    lxc("remote", "add", "r1", text, "--accept-certificate")
    (known,) = daemon.api.get("/1.0/certificates?recursion=1")
    assert (known["name"], known["type"], known["restricted"]) == ("bob", "client", False)
    assert "running" not in daemon.api.get("/1.0/operations")
    daemon.api.call("DELETE", f"/1.0/certificates/{known['fingerprint'][:12]}")
    refused = lxc("list", "r1:", check=False)
    assert "not authorized" in refused.stderr
    again = lxc("remote", "add", "r2", text, "--accept-certificate", check=False)
    assert again.returncode != 0


def test_the_password(daemon: Daemon, address: str, lxc: Lxc) -> None:
    daemon.api.call("PATCH", "/1.0", {"config": {"core.trust_password": "sesame"}})
    add = ("remote", "add", "r", address, "--accept-certificate", "--password")
    assert "not authorized" in lxc(*add, "wrong", check=False).stderr
    lxc(*add, "sesame")
    assert "default" in lxc("profile", "list", "r:").stdout


def test_all_of_an_instance_over_https(
    daemon: Daemon, address: str, lxc: Lxc, tiny: str, tmp_path: Path
) -> None:
    lxc("remote", "add", "r", token(daemon, name="bob"), "--accept-certificate")
    name = daemon.name()
    lxc("launch", f"r:{tiny}", f"r:{name}")
    try:
        assert lxc("exec", f"r:{name}", "--", "echo", "over tls").stdout == "over tls\n"
        file = tmp_path / "file"
        file.write_bytes(b"x" * 3_000_000)
        lxc("file", "push", str(file), f"r:{name}/root/file")
        lxc("file", "pull", f"r:{name}/root/file", str(tmp_path / "back"))
        assert (tmp_path / "back").read_bytes() == file.read_bytes()
        assert lxc("list", "r:", "-c", "n", "-f", "csv").stdout == f"{name}\n"
    finally:
        lxc("delete", "--force", f"r:{name}", check=False)


def test_what_a_restricted_client_may(daemon: Daemon, address: str, lxc: Lxc) -> None:
    text = token(daemon, name="tenant", restricted=True, projects=["default"])
    lxc("remote", "add", "r", text, "--accept-certificate")
    assert lxc("list", "r:", "-f", "csv").stdout == ""
    assert lxc("config", "show", "r:").stdout == "config: {}\n"
    for refused in (
        ("storage", "create", "r:x", "dir"),
        ("config", "set", "r:", "user.x=1"),
        ("config", "trust", "remove", "r:", "0123"),
        ("query", "r:/1.0/instances?project=other"),
        ("query", "r:/internal/ready"),
        ("query", "r:/1.0/instances?all-projects=true"),
    ):
        done = lxc(*refused, check=False)
        assert done.returncode != 0, refused
    assert daemon.api.get("/1.0")["config"].get("user.x") is None


def test_strangers(daemon: Daemon, address: str) -> None:
    status, reply = stranger(address, "GET", "/1.0")
    assert status == 200 and reply["metadata"]["auth"] == "untrusted"
    assert "environment" not in reply["metadata"]
    assert stranger(address, "GET", "/1.0/images")[1]["metadata"] == []
    for path in ("/1.0/instances", "/1.0/certificates", "/internal/ready", "/1.0/events"):
        status, reply = stranger(address, "GET", path)
        assert (status, reply["error"]) == (403, "not authorized"), path


def test_the_address_changes_or_stays(daemon: Daemon, address: str) -> None:
    with pytest.raises(ApiError, match="Cannot listen on HTTPS address"):
        daemon.api.call("PATCH", "/1.0", {"config": {"core.https_address": "192.0.2.7:8443"}})
    assert daemon.api.get("/1.0")["config"]["core.https_address"] == address
    assert stranger(address, "GET", "/")[0] == 200
    other = f"127.0.0.1:{free_port()}"
    daemon.api.call("PATCH", "/1.0", {"config": {"core.https_address": other}})
    assert daemon.api.get("/1.0")["environment"]["addresses"] == [other]
    assert stranger(other, "GET", "/")[0] == 200
    with pytest.raises(ConnectionRefusedError):
        stranger(address, "GET", "/")


def test_only_the_latest_tls(daemon: Daemon, address: str) -> None:
    context = ssl._create_unverified_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    host, _, port = address.partition(":")
    with (
        socket.create_connection((host, int(port)), timeout=10) as sock,
        pytest.raises(ssl.SSLError),
    ):
        context.wrap_socket(sock)
    with socket.create_connection((host, int(port)), timeout=10) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\n\r\n")  # no TLS at all
        while sock.recv(4096):
            continue
    assert stranger(address, "GET", "/")[0] == 200


def test_certificates_are_kept(own_daemon: Daemon, tmp_path: Path) -> None:
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "9", "-subj", "/CN=c", "-keyout", "/proc/self/fd/2"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    wish = {"type": "client", "name": "kept", "certificate": made.stdout}
    own_daemon.api.call("POST", "/1.0/certificates", wish)
    with pytest.raises(ApiError, match="Certificate already in trust store"):
        own_daemon.api.call("POST", "/1.0/certificates", wish)
    (url,) = own_daemon.api.get("/1.0/certificates")
    own_daemon.api.call("PATCH", url, {"restricted": True, "projects": ["p"]})
    server = own_daemon.api.get("/1.0")["environment"]["certificate_fingerprint"]
    own_daemon.restart()
    assert own_daemon.api.get("/1.0")["environment"]["certificate_fingerprint"] == server
    found = own_daemon.api.get(url)
    assert (found["name"], found["restricted"], found["projects"]) == ("kept", True, ["p"])
    own_daemon.api.call("DELETE", url)
    assert own_daemon.api.get("/1.0/certificates") == []


def test_a_token_expires(daemon: Daemon, address: str, lxc: Lxc) -> None:
    key = "core.remote_token_expiry"
    daemon.api.call("PATCH", "/1.0", {"config": {key: "1S"}})
    try:
        text = token(daemon, name="late")
        time.sleep(1.2)
        refused = lxc("remote", "add", "r", text, "--accept-certificate", check=False)
        assert refused.returncode != 0 and daemon.api.get("/1.0/certificates") == []
    finally:
        daemon.api.call("PATCH", "/1.0", {"config": {key: ""}})


def test_pages_of_other_sites(daemon: Daemon) -> None:
    """What browsers ask before a page may use the API. On the unix socket, too, as LXD."""
    keys = {"origin": "https://ui.example.com", "methods": "GET, PUT", "credentials": "true"}
    config = {f"core.https_allowed_{name}": value for name, value in keys.items()}
    daemon.api.call("PATCH", "/1.0", {"config": config})
    try:
        origin = {"Origin": "https://ui.example.com"}
        status, headers, data = daemon.api.raw("OPTIONS", "/1.0/instances", headers=origin)
        assert (status, data) == (200, b"")
        for said in (headers, daemon.api.raw("GET", "/1.0", headers=origin)[1]):
            assert said["access-control-allow-origin"] == "https://ui.example.com"
            assert said["access-control-allow-methods"] == "GET, PUT"
            assert said["access-control-allow-credentials"] == "true"
            assert "access-control-allow-headers" not in said
        assert "access-control-allow-origin" not in daemon.api.raw("GET", "/1.0")[1]
    finally:
        daemon.api.call("PATCH", "/1.0", {"config": dict.fromkeys(config, "")})
    assert not [key for key in daemon.api.raw("GET", "/1.0", headers=origin)[1] if "allow" in key]


def openssl(directory: Path, *words: str) -> None:
    subprocess.run(["openssl", *words], cwd=directory, check=True, capture_output=True)


def test_an_authority(own_daemon: Daemon, tmp_path: Path) -> None:
    """With server.ca, a client needs a certificate of that authority, which is not revoked."""
    subject = ("-subj", "/CN=x", "-nodes", "-newkey", "ec", "-pkeyopt",
               "ec_paramgen_curve:prime256v1")  # fmt: skip
    openssl(tmp_path, "req", "-x509", *subject, "-days", "9", "-keyout", "ca.key", "-out", "ca.crt")
    openssl(tmp_path, "req", *subject, "-keyout", "c.key", "-out", "c.csr")
    openssl(tmp_path, "x509", "-req", "-in", "c.csr", "-CA", "ca.crt", "-CAkey", "ca.key",
            "-set_serial", "77", "-days", "9", "-out", "c.crt")  # fmt: skip
    issued, own = tmp_path / "issued.pem", tmp_path / "own.pem"
    issued.write_bytes((tmp_path / "c.key").read_bytes() + (tmp_path / "c.crt").read_bytes())
    known = base64.b64encode(ssl.PEM_cert_to_DER_cert(self_signed(own))).decode()
    shutil.copy(tmp_path / "ca.crt", own_daemon.directory / "server.ca")
    own_daemon.restart()
    address = f"127.0.0.1:{free_port()}"
    config = {"core.https_address": address}
    own_daemon.api.call("PATCH", "/1.0", {"config": config})
    own_daemon.api.call("POST", "/1.0/certificates", {"type": "client", "certificate": known})
    path = "/1.0/instances"
    assert stranger(address, "GET", path, issued)[0] == 403
    assert stranger(address, "GET", path, own)[0] == 403  # it is known, but not of the authority
    own_daemon.api.call("PATCH", "/1.0", {"config": {"core.trust_ca_certificates": "true"}})
    assert stranger(address, "GET", path, issued)[0] == 200
    assert stranger(address, "GET", path, own)[0] == 403
    revoked = revocation(tmp_path / "ca.crt", tmp_path / "ca.key", 77)
    (own_daemon.directory / "ca.crl").write_bytes(revoked)
    assert stranger(address, "GET", path, issued)[0] == 403
