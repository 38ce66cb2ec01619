"""Files of instances, running and stopped, and of snapshots: single ones, and whole trees."""

from __future__ import annotations

import io
import json
import os
import random
import socket
import struct
import subprocess
import tarfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.support import processes
from tests.support.api import ApiError
from tests.support.daemon import Daemon
from tests.support.fixtures import Launch
from tests.support.websocket import WebSocket

TAR = "application/x-tar"
#: cap_net_raw+ep, revision 2
CAPABILITY = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)


class Files:
    """The files of one instance, through the API."""

    def __init__(self, daemon: Daemon, name: str, snapshot: str = "") -> None:
        self.daemon = daemon
        tail = f"/snapshots/{snapshot}" if snapshot else ""
        self.url = f"/1.0/instances/{name}{tail}/files?path="

    def raw(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        fields = {f"X-LXD-{key}": value for key, value in headers.items()}
        return self.daemon.api.raw(method, self.url + quote(path, safe=""), body, fields)

    def get(self, path: str) -> bytes:
        status, _, body = self.raw("GET", path)
        if status != 200:
            raise ApiError(status, json.loads(body)["error"])
        return body

    def head(self, path: str) -> dict[str, str]:
        status, headers, _ = self.raw("HEAD", path)
        assert status == 200
        return headers

    def names(self, path: str) -> set[str]:
        return set(json.loads(self.get(path))["metadata"])

    def put(self, path: str, body: bytes = b"", **headers: str) -> None:
        status, _, reply = self.raw("POST", path, body, **headers)
        if status != 200:
            raise ApiError(status, json.loads(reply)["error"])

    def delete(self, path: str) -> None:
        status, _, reply = self.raw("DELETE", path)
        if status != 200:
            raise ApiError(status, json.loads(reply)["error"])

    def pack(self, path: str) -> tarfile.TarFile:
        url = self.url + quote(path, safe="")
        status, headers, body = self.daemon.api.raw("GET", url, None, {"Accept": TAR})
        if status != 200:
            raise ApiError(status, json.loads(body)["error"])
        assert headers["content-type"] == TAR
        return tarfile.open(fileobj=io.BytesIO(body))

    def unpack(self, path: str, archive: bytes) -> None:
        url = self.url + quote(path, safe="")
        status, _, body = self.daemon.api.raw("POST", url, archive, {"Content-Type": TAR})
        if status != 200:
            raise ApiError(status, json.loads(body)["error"])


@pytest.fixture(params=["running", "stopped"])
def files(request: pytest.FixtureRequest, daemon: Daemon, launch: Launch) -> Files:
    """The files of an instance that runs, and of one that does not."""
    return Files(daemon, launch(start=request.param == "running"))


def test_a_file_there_and_back(files: Files) -> None:
    files.put("/root/note", b"text\n", uid="1000", gid="1001", mode="0640")
    _, headers, body = files.raw("GET", "/root/note")
    assert body == b"text\n"
    assert headers["content-type"] == "application/octet-stream"
    assert headers["content-disposition"] == "inline;filename=note"
    assert headers["content-length"] == "5"
    owner = (headers["x-lxd-uid"], headers["x-lxd-gid"], headers["x-lxd-mode"])
    assert owner == ("1000", "1001", "0640")
    assert headers["x-lxd-type"] == "file"
    assert headers["x-lxd-modified"].endswith(" +0000 UTC")
    assert files.head("root/note")["content-length"] == "5"
    # Owner and permissions are for new files; the client's paths may lack their slash.
    files.put("root/note", b"other", uid="0", gid="0", mode="0777")
    assert files.get("/root/note") == b"other"
    assert files.head("/root/note")["x-lxd-mode"] == "0640"
    assert files.head("/root/note")["x-lxd-uid"] == "1000"
    files.put("/root/note", b" more", write="append")
    assert files.get("/root/note") == b"other more"
    files.put("/root/plain", b"")
    headers = files.head("/root/plain")
    assert (headers["x-lxd-uid"], headers["x-lxd-mode"]) == ("0", "0644")
    files.delete("/root/note")
    with pytest.raises(ApiError, match="404: Not Found"):
        files.get("/root/note")


def test_directories_and_links(files: Files) -> None:
    files.put("/srv", type="directory")
    files.put("/srv/d", type="directory")
    files.put("/srv/d", type="directory", mode="0700")
    assert files.head("/srv/d")["x-lxd-mode"] == "0750"
    files.put("/srv/e", type="directory", mode="0701", uid="5")
    assert files.head("/srv/e")["x-lxd-mode"] == "0701"
    assert files.head("/srv/e")["x-lxd-uid"] == "5"
    assert files.head("/srv/e")["x-lxd-type"] == "directory"
    files.put("/srv/d/link", b"../target", type="symlink")
    files.put("/srv/d/link", b"../target", type="symlink")
    assert files.get("/srv/d/link") == b"/srv/target"
    assert files.head("/srv/d/link")["x-lxd-type"] == "symlink"
    assert files.names("/srv") == {"d", "e"}
    assert "etc" in files.names("/")
    files.put("/srv/d/link", b"through the link")
    assert files.get("/srv/target") == b"through the link"
    with pytest.raises(ApiError, match="500: remove /srv/d: directory not empty"):
        files.delete("/srv/d")
    for path in ("/srv/d/link", "/srv/d", "/srv/e", "/srv/target", "/srv"):
        files.delete(path)


def test_refused(files: Files, daemon: Daemon) -> None:
    for path, text in (("", "Missing path"), ("/a\0b", "NUL")):
        with pytest.raises(ApiError, match=f"400.*{text}"):
            files.get(path)
    for wish, text in (
        ({"type": "fifo"}, "Bad file type"),
        ({"write": "insert"}, "Bad file write mode"),
        ({"mode": "rwx"}, "Invalid X-LXD-mode"),
        ({"uid": "-2"}, "Invalid X-LXD-uid"),
    ):
        with pytest.raises(ApiError, match=f"400.*{text}"):
            files.put("/root/x", b"", **wish)
    with pytest.raises(ApiError, match="404"):
        files.put("/nowhere/x", b"x")
    with pytest.raises(ApiError, match="404"):
        files.put("/root/nowhere", b"x", write="append")
    with pytest.raises(ApiError, match="not a regular file"):
        files.put("/root", b"x")
    assert "x" not in files.names("/root")
    with pytest.raises(ApiError, match="404: Instance not found"):
        Files(daemon, "nobody").get("/etc")


def test_a_link_leads_nowhere_outside(files: Files, work_directory: Path) -> None:
    secret = work_directory / "secret"
    secret.write_text("the host's")
    files.put("/root/out", str(secret).encode(), type="symlink")
    files.put("/root/up", b"../../../../../.." + str(work_directory).encode(), type="symlink")
    for path in ("/root/up/secret", f"/../../..{secret}"):
        with pytest.raises(ApiError, match="404"):
            files.get(path)
    with pytest.raises(ApiError, match="404"):
        files.put("/root/out", b"changed")
    assert secret.read_text() == "the host's"


def test_big_files_stream(files: Files, daemon: Daemon) -> None:
    block = os.urandom(1 << 20)
    before = processes.rss_bytes(daemon.pid)
    files.put("/root/big", block * 96)
    assert files.get("/root/big") == block * 96
    assert processes.rss_bytes(daemon.pid) - before < 48 << 20


def test_a_broken_upload_leaves_the_old_file(files: Files, daemon: Daemon) -> None:
    files.put("/root/note", b"old")
    names = files.names("/root")
    for path in ("/root/note", "/root/new"):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(daemon.socket))
            head = f"POST {files.url}{quote(path)} HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999"
            sock.sendall(head.encode() + b"\r\n\r\n" + b"x" * 3_000_000)
            time.sleep(0.2)
    assert files.names("/root") == names
    assert files.get("/root/note") == b"old"


def tree(*members: tuple[str, dict[str, Any], bytes]) -> bytes:
    """A tar archive of members: name, attributes of its TarInfo, content."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, attributes, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in attributes.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def test_a_tree_there_and_back(files: Files) -> None:
    value = CAPABILITY.decode("utf-8", "surrogateescape")
    pax = {"SCHILY.xattr.security.capability": value, "SCHILY.xattr.user.note": "hello"}
    archive = tree(
        ("d", {"type": tarfile.DIRTYPE, "mode": 0o701, "uid": 7, "gid": 8}, b""),
        ("d/run", {"mode": 0o4755, "uid": 1000, "gid": 1000, "mtime": 1e9}, b"#!/bin/sh\n"),
        ("d/able", {"mode": 0o755, "pax_headers": pax}, b"able"),
        ("d/other", {"type": tarfile.LNKTYPE, "linkname": "d/run"}, b""),
        ("d/link", {"type": tarfile.SYMTYPE, "linkname": "/etc/../x"}, b""),
        ("deep/er/file", {}, b"x"),
    )
    files.unpack("/root", archive)
    files.unpack("/root/", archive)  # once more changes nothing
    assert files.head("/root/deep/er")["x-lxd-mode"] == "0755"
    with files.pack("/root/d") as found:
        members = {each.name.removeprefix("./"): each for each in found}
        assert set(members) == {".", "run", "able", "other", "link"}
        assert (members["."].uid, members["."].gid, members["."].mode) == (7, 8, 0o701)
        first, second = sorted((members["run"], members["other"]), key=lambda each: each.islnk())
        assert (first.uid, first.mode, first.mtime) == (1000, 0o4755, 1e9)
        assert second.islnk() and second.linkname == f"./{first.name.removeprefix('./')}"
        assert found.extractfile(first).read() == b"#!/bin/sh\n"  # type: ignore[union-attr]
        assert members["link"].linkname == "/etc/../x"
        assert members["able"].pax_headers["SCHILY.xattr.user.note"] == "hello"
        kept = members["able"].pax_headers["SCHILY.xattr.security.capability"]
        assert kept.encode("utf-8", "surrogateescape") == CAPABILITY


def test_hostile_trees(files: Files, work_directory: Path) -> None:
    out = work_directory / "out"
    files.put("/root/out", str(work_directory).encode(), type="symlink")
    for member, text in (
        (("../out", {}, b"x"), "leads out"),
        (("/out", {}, b"x"), "leads out"),
        (("null", {"type": tarfile.CHRTYPE}, b""), "neither a file"),
        (("hard", {"type": tarfile.LNKTYPE, "linkname": "../../etc"}, b""), "leads out"),
        (("out/out", {}, b"x"), "404"),
    ):
        with pytest.raises(ApiError, match=text):
            files.unpack("/root", tree(member))
    for cut in (b"no archive", tree(("a", {}, b"x" * 5000))[:3000]):
        with pytest.raises(ApiError, match="400: Invalid archive"):
            files.unpack("/root", cut)
    assert not out.exists() and "a" not in files.names("/root")
    with pytest.raises(ApiError, match="404"):
        files.pack("/root/nothing")


def test_a_thousand_small_files(files: Files) -> None:
    members = [(f"f{number}", {}, b"x" * 100) for number in range(1000)]
    files.put("/root/many", type="directory")
    began = time.monotonic()
    files.unpack("/root/many", tree(*members))
    with files.pack("/root/many") as found:
        assert len(found.getmembers()) == 1001
    assert time.monotonic() - began < 10


def test_owners_are_the_guests(launch: Launch, daemon: Daemon) -> None:
    name = launch()
    files = Files(daemon, name)
    files.put("/root/mine", b"x", uid="33", gid="44", mode="04755")
    assert daemon.out(name, "stat", "-c", "%u:%g", "/root/mine") == "33:44"
    daemon.exec(
        name, "sh", "-c", "echo guest > /tmp/file; chown 12:13 /tmp/file; ln /tmp/file /tmp/o"
    )
    headers = files.head("/tmp/file")
    assert (headers["x-lxd-uid"], headers["x-lxd-gid"]) == ("12", "13")
    files.put("/tmp/file", b"host\n")
    assert daemon.out(name, "cat", "/tmp/o") == "host"
    with pytest.raises(ApiError, match="400.*no user id 100000"):
        files.put("/root/x", b"", uid="100000")
    daemon.exec(name, "sh", "-c", "mkdir -p /m; mount -t tmpfs none /m")
    files.put("/m/file", b"x", uid="3")
    assert daemon.out(name, "stat", "-c", "%u", "/m/file") == "3"
    with pytest.raises(ApiError, match="mounted there"):
        files.delete("/m")
    daemon.exec(name, "sh", "-c", "touch /m/below /root/over; mount -o bind /m/below /root/over")
    files.put("/root/over", b"both")
    assert daemon.out(name, "cat", "/m/below") == "both"


def test_what_is_the_kernels(launch: Launch, daemon: Daemon) -> None:
    name = launch()
    files = Files(daemon, name)
    pattern = Path("/proc/sys/kernel/core_pattern").read_text()
    daemon.exec(
        name, "sh", "-c", "ln -s /proc/sys/kernel/core_pattern /root/innocent; mkfifo /root/p"
    )
    for path in ("/proc/sys/kernel/core_pattern", "/root/innocent", "/sys/kernel/mm/ksm/run"):
        with pytest.raises(ApiError, match="400.*belongs to the kernel"):
            files.put(path, b"x")
    daemon.exec(name, "sh", "-c", "touch /root/f; mount -o bind /proc/version /root/f")
    for attempt in (files.get, files.put):
        with pytest.raises(ApiError, match="400"):
            attempt("/root/f")
        with pytest.raises(ApiError, match="400"):
            attempt("/root/p")
        with pytest.raises(ApiError, match="400"):
            attempt("/dev/null")
    assert Path("/proc/sys/kernel/core_pattern").read_text() == pattern
    with files.pack("/") as found:
        names = set(found.getnames())
    assert "./proc" in names and "./proc/1" not in names and "./etc" in names
    assert "./root/p" not in names


def test_a_frozen_instance(launch: Launch, daemon: Daemon) -> None:
    name = launch()
    daemon.api.put(f"/1.0/instances/{name}/state", {"action": "freeze", "timeout": 10})
    files = Files(daemon, name)
    files.put("/root/x", b"y")
    assert files.get("/root/x") == b"y"
    daemon.api.put(f"/1.0/instances/{name}/state", {"action": "unfreeze", "timeout": 10})


def test_a_stop_ends_transfers(launch: Launch, daemon: Daemon) -> None:
    name = launch()
    files = Files(daemon, name)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(daemon.socket))
        head = f"POST {files.url}/root/new HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n"
        sock.sendall(head.encode() + b"x" * 3_000_000)
        time.sleep(0.2)
        daemon.api.put(
            f"/1.0/instances/{name}/state", {"action": "restart", "force": True, "timeout": 30}
        )
        sock.settimeout(10)
        assert b"stopped meanwhile" in sock.recv(65536)
    assert "new" not in files.names("/root")


def test_a_start_waits_for_an_upload(launch: Launch, daemon: Daemon) -> None:
    name = launch(start=False)
    files = Files(daemon, name)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(daemon.socket))
        head = f"POST {files.url}/root/new HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345"
        sock.sendall(head.encode())
        time.sleep(0.2)
        body = {"action": "start", "timeout": 30}
        operation = daemon.api.put(f"/1.0/instances/{name}/state", body, wait=False)
        time.sleep(0.5)
        assert daemon.status(name) == "Stopped"
        sock.sendall(b"67890")
        daemon.api.wait(operation)
    assert daemon.out(name, "cat", "/root/new") == "1234567890"


def test_lifecycle_events(files: Files, daemon: Daemon) -> None:
    with WebSocket(Path(daemon.socket), "/1.0/events?type=lifecycle") as socket:
        files.put("/root/x", b"y")
        files.get("/root/x")
        files.delete("/root/x")
        seen = [next(socket.objects(10))["metadata"] for _ in range(3)]
    assert [each["action"] for each in seen] == [
        "instance-file-pushed", "instance-file-retrieved", "instance-file-deleted",
    ]  # fmt: skip
    assert {each["context"]["path"] for each in seen} == {"/root/x"}


def test_no_room(launch: Launch, daemon: Daemon) -> None:
    name = launch()
    files = Files(daemon, name)
    daemon.exec(name, "sh", "-c", "mkdir /m; mount -t tmpfs -o size=1m none /m; echo old > /m/f")
    for path in ("/m/f", "/m/new"):
        with pytest.raises(ApiError, match="500: No space left"):
            files.put(path, b"x" * (2 << 20))
    assert files.names("/m") == {"f"} and files.get("/m/f") == b"old\n"
    with pytest.raises(ApiError, match="500: No space left"):
        files.unpack("/m", tree(("big", {}, b"x" * (2 << 20))))
    assert files.names("/m") == {"f"}


def test_a_snapshot(launch: Launch, daemon: Daemon) -> None:
    name = launch()
    now = Files(daemon, name)
    now.put("/root/note", b"then", uid="9", mode="0600")
    daemon.api.post(f"/1.0/instances/{name}/snapshots", {"name": "s"})
    now.put("/root/note", b"now")
    then = Files(daemon, name, "s")
    assert then.get("/root/note") == b"then" and now.get("/root/note") == b"now"
    assert then.head("/root/note")["x-lxd-uid"] == "9"
    with then.pack("/root") as found:
        assert found.extractfile("./note").read() == b"then"  # type: ignore[union-attr]
    status, _, _ = then.raw("POST", "/root/note", b"x")
    assert status == 501
    with pytest.raises(ApiError, match='404: Failed to fetch snapshot "t"'):
        Files(daemon, name, "t").get("/root/note")


def test_a_daemon_that_dies(own_daemon: Daemon, busybox_image: Path, tmp_path: Path) -> None:
    """Killed at any moment of a push, it leaves the old file or the new one, and nothing else."""
    own_daemon.lxpy("image", "import", busybox_image, "--alias", "tiny")
    own_daemon.lxpy("init", "tiny", "still")
    own_daemon.lxpy("launch", "tiny", "going")
    contents = [tmp_path / "old", tmp_path / "new"]
    for content in contents:
        content.write_bytes(os.urandom(24 << 20))
    chosen = random.Random(5)
    for name in ("still", "going"):
        files = Files(own_daemon, name)
        own_daemon.lxpy("file", "push", contents[0], f"{name}/root/big")
        for turn in range(3):
            push = subprocess.Popen(
                [own_daemon.commands / "lxpy", "file", "push", contents[turn % 2],
                 f"{name}/root/big"], env=own_daemon.environment, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            time.sleep(chosen.uniform(0.02, 0.25))
            own_daemon.kill()
            push.wait(30)
            own_daemon.start()
            assert files.get("/root/big") in [each.read_bytes() for each in contents]
            assert files.names("/root") == {"big"}
    assert [each for each in own_daemon.remains() if "/root" in each] == []
