"""Backups: kept by the daemon, and as streams; out, and in again."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
import yaml

from tests.support import leaks
from tests.support.api import ApiError
from tests.support.daemon import Daemon
from tests.support.fixtures import Launch, change, create, import_image
from tests.support.processes import wait_until

FILES = (
    "echo mine >/root/file; ln /root/file /root/other; chown 1000:1000 /root/file; "
    "mkfifo /root/pipe; ln -s /etc/passwd /root/link; chmod 4755 /root/file; "
    "dd if=/dev/urandom of=/root/data bs=1k count=300 2>/dev/null; truncate -s 50M /root/sparse"
)


def members(archive: Path) -> list[str]:
    done = subprocess.run(["tar", "-tf", archive], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def index_of(archive: Path) -> dict[str, object]:
    command = ["tar", "-xOf", archive, "backup/index.yaml"]
    found = yaml.safe_load(subprocess.run(command, capture_output=True, check=True).stdout)
    assert isinstance(found, dict)
    return found


def export(daemon: Daemon, name: str, path: Path, query: str = "") -> Path:
    """Stream an export into a file."""
    status, _, data = daemon.api.raw("GET", f"/1.0/instances/{name}/export{query}")
    assert status == 200, data
    path.write_bytes(data)
    return path


def snapshot(daemon: Daemon, name: str, snapshot: str) -> None:
    daemon.api.post(f"/1.0/instances/{name}/snapshots", {"name": snapshot})


def snapshots_on_disk(daemon: Daemon, name: str) -> list[str]:
    place = daemon.directory / "storage-pools/default/containers-snapshots" / name
    return sorted(each.name for each in place.iterdir()) if place.exists() else []


def test_an_export_is_an_archive_that_tar_reads(
    daemon: Daemon, launch: Launch, tmp_path: Path
) -> None:
    name = launch()
    daemon.exec(name, "sh", "-c", FILES)
    snapshot(daemon, name, "s0")
    daemon.exec(name, "sh", "-c", "echo later >/root/later; mkdir /root/dir")
    archive = export(daemon, name, tmp_path / "a.tar.zst")
    found = members(archive)
    assert found[0] == "backup/index.yaml"
    assert found[-1] == "backup/checksums"
    assert "backup/snapshots/s0/rootfs/root/file" in found
    assert "backup/snapshots/s0/rootfs/root/later" not in found
    assert "backup/container/rootfs/root/later" in found
    assert {"backup/container/backup.yaml", "backup/container/metadata.yaml"} <= set(found)
    about = index_of(archive)
    assert (about["name"], about["snapshots"], about["type"]) == (name, ["s0"], "container")
    assert snapshots_on_disk(daemon, name) == ["s0"]
    alone = members(export(daemon, name, tmp_path / "b.tar", "?compression=none&instance-only=1"))
    assert not [each for each in alone if "snapshots" in each]


def test_the_daemon_keeps_backups(daemon: Daemon, launch: Launch, tmp_path: Path) -> None:
    name = launch(start=False)
    url = f"/1.0/instances/{name}/backups"
    done = daemon.api.post(url, {"name": "", "compression_algorithm": "gzip"})
    assert done["resources"]["backups"] == ["/1.0/backups/backup0"]
    daemon.api.post(url, {"instance_only": True, "expires_at": "2020-01-01T00:00:00Z"})
    assert daemon.api.get(url) == [f"{url}/backup0", f"{url}/backup1"]
    full = daemon.api.get(f"/1.0/instances/{name}?recursion=1")
    assert [each["name"] for each in full["backups"]] == ["backup0", "backup1"]
    found = daemon.api.get(f"{url}/backup1")
    assert (found["instance_only"], found["expires_at"][:4]) == (True, "2020")
    daemon.api.post(f"{url}/backup0", {"name": "weekly"})
    _, headers, data = daemon.api.raw("GET", f"{url}/weekly/export")
    assert int(headers["content-length"]) == daemon.api.get(f"{url}/weekly")["size"] == len(data)
    assert data.startswith(b"\x1f\x8b")
    for body, text in (
        ({"name": "weekly"}, "already exists"),
        ({"name": "a b"}, "Invalid backup name"),
        ({"compression_algorithm": "zip"}, "Invalid compression"),
    ):
        with pytest.raises(ApiError, match=text):
            daemon.api.post(url, body)
    daemon.restart()  # what has expired goes
    assert f"{url}/weekly" in daemon.api.get(url)
    daemon.api.delete(f"{url}/weekly")
    with pytest.raises(ApiError, match="not found"):
        daemon.api.get(f"{url}/weekly")
    daemon.api.post(url, {"name": "last", "optimized_storage": True})
    assert not daemon.api.get(f"{url}/last")["optimized_storage"]  # any pool can take it in
    daemon.delete(name)
    assert not list((daemon.directory / "backups/instances").glob("*/*"))


def take_in(daemon: Daemon, archive: Path, name: str = "", pool: str = "") -> dict[str, object]:
    """Upload an archive as `lxc import` does."""
    headers = {"Content-Type": "application/octet-stream"}
    headers |= {key: value for key, value in (("X-LXD-name", name), ("X-LXD-pool", pool)) if value}
    done = daemon.api.call("POST", "/1.0/instances", archive.read_bytes(), headers)
    assert isinstance(done, dict)
    return done


LOOK = (
    "cd /root && find . ! -type d -exec stat -c '%n %u %g %a %F %h %s' {} + | sort && "
    "find . -type f | sort | xargs md5sum && readlink link"
)


def test_in_again(daemon: Daemon, launch: Launch, tmp_path: Path) -> None:
    name = launch(config={"user.mine": "yes", "limits.memory": "100MiB"})
    daemon.exec(name, "sh", "-c", FILES)
    snapshot(daemon, name, "s0")
    daemon.exec(name, "sh", "-c", "echo later >/root/later")
    expected = daemon.out(name, "sh", "-c", LOOK)
    archive = export(daemon, name, tmp_path / "a.tar.zst")
    was = daemon.api.get(f"/1.0/instances/{name}")
    snap = daemon.api.get(f"/1.0/instances/{name}/snapshots/s0")
    with pytest.raises(ApiError, match="already exists on target"):
        take_in(daemon, archive)
    daemon.delete(name)
    done = take_in(daemon, archive)
    assert done["resources"]["instances"] == [f"/1.0/instances/{name}"]  # type: ignore[index]
    now = daemon.api.get(f"/1.0/instances/{name}")
    for key in ("config", "devices", "profiles", "created_at", "architecture"):
        fresh = ("volatile.idmap", "volatile.last_state", "volatile.eth0.host_name")
        one, other = (
            {k: v for k, v in each[key].items() if not k.startswith(fresh)}
            if isinstance(each[key], dict) else each[key]
            for each in (was, now)
        )  # fmt: skip
        assert one == other, key
    again = daemon.api.get(f"/1.0/instances/{name}/snapshots/s0")
    assert (again["created_at"], again["profiles"]) == (snap["created_at"], snap["profiles"])
    change(daemon, name, "start")
    assert daemon.out(name, "sh", "-c", LOOK) == expected
    assert daemon.out(name, "cat", "/etc/hostname") == name
    # Beside its original it gets another name, other ids and addresses.
    take_in(daemon, archive, "second")
    second = daemon.api.get("/1.0/instances/second")["config"]
    for key in ("volatile.uuid", "volatile.eth0.hwaddr", "volatile.idmap.next"):
        assert second[key] != now["config"][key], key
    change(daemon, "second", "start")
    assert daemon.out("second", "cat", "/etc/hostname") == "second"
    change(daemon, "second", "stop")
    daemon.api.put("/1.0/instances/second", {"restore": "s0"})
    change(daemon, "second", "start")
    assert daemon.exec("second", "test", "-e", "/root/later", check=False).returncode == 1
    assert daemon.out("second", "stat", "-c", "%u %a %h", "/root/other") == "1000 4755 2"
    daemon.delete("second")


def test_what_is_cut_off_leaves_nothing(daemon: Daemon, launch: Launch, tmp_path: Path) -> None:
    name = launch(start=False)
    archive = export(daemon, name, tmp_path / "a.tar", "?compression=none")
    daemon.delete(name)
    data = archive.read_bytes()
    part = tmp_path / "part.tar"
    for end, text in (
        (100, "neither plain nor compressed"),
        (len(data) // 2, "truncated"),
        (len(data) - 2048, "truncated"),
    ):
        part.write_bytes(data[:end])
        with pytest.raises(ApiError, match=text):
            take_in(daemon, part)
    altered = bytearray(data)
    at = data.index(b"udhcpc")
    altered[at] ^= 1
    part.write_bytes(altered)
    with pytest.raises(ApiError, match="altered or damaged"):
        take_in(daemon, part)
    with pytest.raises(ApiError, match="Storage pool not found"):
        take_in(daemon, archive, "", "nowhere")
    with pytest.raises(ApiError, match="Invalid instance name"):
        take_in(daemon, archive, "a/b")
    assert name not in daemon.instances()
    take_in(daemon, archive)


def test_the_command_line(daemon: Daemon, launch: Launch, tmp_path: Path) -> None:
    name = launch()
    daemon.exec(name, "sh", "-c", FILES)
    expected = daemon.out(name, "sh", "-c", LOOK)
    pipe = f"lxpy export {name} - | lxpy import - piped"
    daemon.run("bash", "-o", "pipefail", "-c", pipe)
    change(daemon, "piped", "start")
    assert daemon.out("piped", "sh", "-c", LOOK) == expected
    daemon.delete("piped")
    daemon.lxpy("export", name, cwd=tmp_path)
    daemon.lxpy("export", name, tmp_path, "--compression", "gzip", "--instance-only")
    assert {each.name for each in tmp_path.iterdir()} == {f"{name}.tar.zst", f"{name}.tar.gz"}
    daemon.delete(name)
    daemon.lxpy("import", tmp_path / f"{name}.tar.zst", "--storage", "default")
    assert daemon.status(name) == "Stopped"
    for words, text in (
        (("import", tmp_path / "none"), "No such file"),
        (("import", tmp_path / f"{name}.tar.gz"), "already exists on target"),
        (("export", "nobody", "-"), "Instance not found"),
        (("export", name, "--since", "none", "-"), f'Snapshot "{name}/none" not found'),
        (("import", "/bin/busybox"), "neither plain nor compressed"),
    ):
        done = daemon.lxpy(*words, check=False)
        assert (done.returncode, text in done.stderr) == (1, True), done.stderr


def test_a_client_that_goes_away_leaves_nothing(
    daemon: Daemon, launch: Launch, tmp_path: Path
) -> None:
    name = launch()
    daemon.exec(name, "dd", "if=/dev/urandom", "of=/root/big", "bs=1M", "count=64")
    reading = f"lxpy export {name} - --compression none | head -c 1000000 >/dev/null"
    daemon.run("bash", "-c", reading)
    archive = export(daemon, name, tmp_path / "a.tar", "?compression=none")
    writing = f"(head -c 20000000 {archive}; sleep 0.3; kill -9 $$) | lxpy import - away"
    daemon.run("bash", "-c", writing, check=False)
    wait_until(lambda: not snapshots_on_disk(daemon, name), 10, "the snapshot is gone")
    containers = daemon.directory / "storage-pools/default/containers"
    wait_until(lambda: not list(containers.glob("*away*")), 10, "the volume is gone")
    assert "away" not in daemon.instances()


def test_a_daemon_that_is_killed_leaves_nothing(
    own_daemon: Daemon, busybox_image: Path, tmp_path: Path
) -> None:
    daemon = own_daemon
    import_image(daemon, busybox_image, "tiny")
    name, stopped = create(daemon, "tiny"), create(daemon, "tiny")
    change(daemon, name, "start")
    daemon.exec(name, "dd", "if=/dev/urandom", "of=/root/big", "bs=1M", "count=64")
    archive = export(daemon, name, tmp_path / "a.tar", "?compression=none")
    before = leaks.take(daemon)
    for command in (
        f"lxpy export {name} - --compression none | (sleep 1; cat >/dev/null)",
        f"(head -c 20000000 {archive}; sleep 1; cat {archive}) | lxpy import - away",
        f"lxpy query -X POST -d '{{}}' --wait /1.0/instances/{name}/backups",
        f"lxpy publish {stopped}",
    ):
        client = subprocess.Popen(
            ["bash", "-c", command], env=daemon.environment, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        time.sleep(0.5)
        daemon.kill()
        client.wait(20)
        daemon.start()
        for url in daemon.api.get(f"/1.0/instances/{name}/backups"):
            daemon.api.delete(url)  # it was finished before
        leaks.check(daemon, before)
        assert not snapshots_on_disk(daemon, name), command
    assert daemon.out(name, "stat", "-c", "%s", "/root/big") == str(64 << 20)
    take_in(daemon, archive, "away")  # a second try succeeds


def test_only_what_changed(daemon: Daemon, launch: Launch, tmp_path: Path) -> None:
    name = launch()
    daemon.exec(name, "sh", "-c", FILES + "; mkdir -p /root/a/b /root/c; echo deep >/root/a/b/f; "
                "echo x >/root/c/x; dd if=/dev/urandom of=/root/large bs=1M count=8")  # fmt: skip
    snapshot(daemon, name, "s0")
    full = export(daemon, name, tmp_path / "full.tar")
    edit = (
        "rm -r /root/a /root/link /root/c; mkdir /root/link; echo file >/root/c; "
        "echo more >>/root/file; mv /root/data /root/moved"
    )
    daemon.exec(name, "sh", "-c", edit)
    snapshot(daemon, name, "s1")
    daemon.exec(name, "sh", "-c", "echo last >/root/last; chmod 700 /root/link")
    expected = daemon.out(name, "sh", "-c", LOOK.replace("readlink link", "cat last"))
    changes = tmp_path / "changes.tar.zst"
    daemon.lxpy("config", "set", name, "user.later", "yes")
    daemon.lxpy("export", name, changes, "--since", "s0")
    assert changes.stat().st_size < 2 << 20 < full.stat().st_size
    daemon.delete(name)

    with pytest.raises(ApiError, match="import the full backup"):
        take_in(daemon, changes)
    take_in(daemon, full)
    # What goes wrong leaves the instance as it was.
    broken = bytearray(changes.read_bytes())
    broken[len(broken) // 2] ^= 1
    (tmp_path / "broken").write_bytes(broken)
    before = tree_of(daemon, name)
    with pytest.raises(ApiError, match="damaged|altered|ends early"):
        take_in(daemon, tmp_path / "broken")
    assert (tree_of(daemon, name), snapshots_on_disk(daemon, name)) == (before, ["s0"])

    take_in(daemon, changes)
    assert snapshots_on_disk(daemon, name) == ["s0", "s1"]
    assert daemon.api.get(f"/1.0/instances/{name}")["config"]["user.later"] == "yes"
    change(daemon, name, "start")
    assert daemon.out(name, "sh", "-c", LOOK.replace("readlink link", "cat last")) == expected
    take_in(daemon, changes)  # once more, while it runs
    assert daemon.out(name, "cat", "/root/last", "/root/c") == "last\nfile"
    daemon.api.put(f"/1.0/instances/{name}", {"restore": "s1"})
    assert daemon.exec(name, "test", "-e", "/root/last", check=False).returncode == 1
    assert daemon.out(name, "cat", "/root/other") == "mine\nmore"
    daemon.api.put(f"/1.0/instances/{name}", {"restore": "s0"})
    assert daemon.out(name, "cat", "/root/a/b/f", "/root/c/x") == "deep\nx"
    # Another instance of that name has another snapshot of that name.
    daemon.delete(name)
    create(daemon, "tiny", name)
    snapshot(daemon, name, "s0")
    with pytest.raises(ApiError, match="does not have"):
        take_in(daemon, changes)


def tree_of(daemon: Daemon, name: str) -> str:
    """A digest of a stopped instance's files."""
    done = daemon.run("bash", "-o", "pipefail", "-c",
                      f"lxpy export {name} - --compression none --instance-only | "
                      "tar -xO --wildcards 'backup/container/rootfs/*' | sha256sum")  # fmt: skip
    return done.stdout


def test_from_one_pool_to_another(daemon: Daemon, launch: Launch, tmp_path: Path) -> None:
    pool = daemon.name("pool")
    daemon.api.post("/1.0/storage-pools", {"name": pool, "driver": "btrfs",
                                           "config": {"size": "512MiB"}})  # fmt: skip
    name = launch()
    daemon.exec(name, "sh", "-c", FILES)
    snapshot(daemon, name, "s0")
    expected = daemon.out(name, "sh", "-c", LOOK)
    archive = export(daemon, name, tmp_path / "a.tar")
    take_in(daemon, archive, "moved", pool)
    try:
        assert daemon.api.get("/1.0/instances/moved")["devices"]["root"]["pool"] == pool
        change(daemon, "moved", "start")
        assert daemon.out("moved", "sh", "-c", LOOK) == expected
        daemon.api.put("/1.0/instances/moved", {"restore": "s0"})
        assert daemon.out("moved", "sh", "-c", LOOK) == expected
        daemon.exec("moved", "sh", "-c", "echo late >/root/late; rm /root/pipe")
        changes = export(daemon, "moved", tmp_path / "b.tar", "?since=s0")
        assert changes.stat().st_size < 200_000
        daemon.exec("moved", "rm", "/root/late")
        take_in(daemon, changes, "moved")
        assert daemon.out("moved", "cat", "/root/late") == "late"
        assert daemon.exec("moved", "test", "-e", "/root/pipe", check=False).returncode == 1
    finally:
        daemon.delete("moved")
        daemon.api.delete(f"/1.0/storage-pools/{pool}")
