"""The database under attack: copies are made, damage is told, instances run on, nothing is lost."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.support import processes
from tests.support.api import ApiError
from tests.support.daemon import Daemon
from tests.support.fixtures import change, create, import_image
from tests.support.processes import wait_until


def database(daemon: Daemon) -> Path:
    return daemon.directory / "lxpy.db"


def damage(daemon: Daemon) -> None:
    """Overwrite the tables, as a broken disk does; the file's head stays."""
    path = database(daemon)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        roots = connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE name IN ('instances', 'settings', 'images')"
        ).fetchall()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    with path.open("r+b") as file:
        for (root,) in roots:
            file.seek((root - 1) * size)
            file.write(os.urandom(size))
    for suffix in ("-wal", "-shm"):
        path.with_name(f"lxpy.db{suffix}").unlink(missing_ok=True)


def dumps(daemon: Daemon) -> list[Path]:
    return sorted((daemon.directory / "database/dumps").glob("lxpy-*.db"))


def copied(daemon: Daemon) -> None:
    """Have a copy of the database as it is: one is made when the last is old."""
    daemon.stop()
    for path in dumps(daemon):
        path.unlink()
    daemon.start()
    wait_until(lambda: dumps(daemon), 10, "a copy")


def test_a_copy_at_the_start(daemon: Daemon) -> None:
    wait_until(lambda: dumps(daemon), 10, "a copy")
    for path in dumps(daemon):
        assert path.stat().st_mode & 0o777 == 0o600
        with closing(sqlite3.connect(f"file:{path}?immutable=1", uri=True)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert connection.execute("SELECT count(*) FROM profiles").fetchone()[0] > 0


def test_damage(own_daemon: Daemon, busybox_image: Path) -> None:
    import_image(own_daemon, busybox_image, "tiny")
    old = create(own_daemon, "tiny", "old")
    change(own_daemon, old, "start")
    copied(own_daemon)
    new = create(own_daemon, "tiny", "new")
    change(own_daemon, new, "start")
    own_daemon.api.post(f"/1.0/instances/{old}/snapshots", {"name": "late"})
    own_daemon.exec(new, "sh", "-c", "echo kept >/root/file")
    pids = [own_daemon.init_pid(name) for name in (old, new)]
    own_daemon.restart()  # writes the records
    own_daemon.kill()
    damage(own_daemon)
    own_daemon.start()
    # It is there, shows what its copy has, and refuses to change anything.
    api = own_daemon.api
    assert own_daemon.instances() == [old] and own_daemon.init_pid(old) == pids[0]
    assert own_daemon.out(old, "echo", "alive") == "alive"
    warning = api.get("/1.0/warnings?recursion=1")[0]
    assert warning["type"] == "Database is damaged" and "recover" in warning["last_message"]
    assert "damaged" in own_daemon.lxpy("info").stdout
    own_daemon.lxpy("warning", "acknowledge", warning["uuid"])
    assert api.get("/1.0/warnings?recursion=1")[0]["status"] == "acknowledged"
    api.delete(f"/1.0/warnings/{warning['uuid']}")
    assert api.get("/1.0/warnings") == []
    for method, path, body in (
        ("POST", "/1.0/profiles", {"name": "x"}),
        ("PUT", f"/1.0/instances/{old}/state", {"action": "stop", "force": True}),
        ("DELETE", "/1.0/profiles/default", None),
        ("PATCH", "/1.0", {"config": {"user.a": "1"}}),
    ):
        with pytest.raises(ApiError, match="lxpy recover --database") as refused:
            api.call(method, path, body)
        assert refused.value.status == 503
    with pytest.raises(ApiError, match="damaged"):
        api.post("/internal/recover/validate", {})
    assert all(map(processes.alive, pids))
    # The copy is put in place, and what is newer comes from the pools.
    done = own_daemon.lxpy("recover", "--database", "--yes")
    assert "The database is its copy of" in done.stdout and '"new"' in done.stdout
    assert sorted(own_daemon.instances()) == [new, old]
    assert [own_daemon.init_pid(name) for name in (old, new)] == pids
    assert own_daemon.out(new, "cat", "/root/file") == "kept"
    assert len(api.get(f"/1.0/instances/{old}/snapshots")) == 1
    assert api.get("/1.0/warnings") == []
    change(own_daemon, new, "stop")
    aside = [each.name for each in own_daemon.directory.glob("lxpy.db.damaged-*")]
    assert len([each for each in aside if not each.endswith(("-wal", "-shm"))]) == 1
    assert "not damaged" in own_daemon.lxpy("recover", "--database", "--yes", check=False).stderr


def test_a_damaged_index(own_daemon: Daemon, busybox_image: Path) -> None:
    """All rows are there: the file is written anew without loss."""
    import_image(own_daemon, busybox_image, "tiny")
    name = create(own_daemon, "tiny")
    own_daemon.stop()
    with closing(sqlite3.connect(database(own_daemon))) as connection:
        query = "SELECT rootpage FROM sqlite_master WHERE name = 'ix_instance_profiles_profile_id'"
        (root,) = connection.execute(query).fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    with database(own_daemon).open("r+b") as file:
        file.seek((root - 1) * size + 100)
        file.write(b"\0" * (size - 100))
    own_daemon.start()
    assert own_daemon.instances() == [name]
    assert "can still be read" in own_daemon.lxpy("info").stdout
    done = own_daemon.lxpy("recover", "--database", "--yes")
    assert "nothing of it is lost" in done.stdout
    change(own_daemon, name, "start")


def test_no_database_file_at_all(own_daemon: Daemon, busybox_image: Path) -> None:
    """It is overwritten with something else, and there is no copy: the pools tell everything."""
    import_image(own_daemon, busybox_image, "tiny")
    name = create(own_daemon, "tiny")
    change(own_daemon, name, "start")
    pid = own_daemon.init_pid(name)
    own_daemon.restart()
    own_daemon.kill()
    for path in dumps(own_daemon):
        path.unlink()
    database(own_daemon).write_bytes(b"not a database\n" * 1000)
    own_daemon.start()
    assert own_daemon.instances() == [] and processes.alive(pid)
    done = own_daemon.lxpy("recover", "--database", "--yes")
    assert "no sound copy" in done.stdout
    assert own_daemon.init_pid(name) == pid
    change(own_daemon, name, "stop")


def test_a_lost_database_with_a_copy(own_daemon: Daemon, busybox_image: Path) -> None:
    import_image(own_daemon, busybox_image, "tiny")
    old = create(own_daemon, "tiny", "old")
    copied(own_daemon)
    new = create(own_daemon, "tiny", "new")
    own_daemon.restart()
    own_daemon.kill()
    for path in own_daemon.directory.glob("lxpy.db*"):
        path.unlink()
    own_daemon.start()
    done = own_daemon.lxpy("recover", "--database", "--yes")
    assert "The database is its copy of" in done.stdout and f'"{new}"' in done.stdout
    assert f'"{old}"' not in done.stdout
    assert sorted(own_daemon.instances()) == [new, old]
    change(own_daemon, new, "start")


def test_damage_while_it_runs(own_daemon: Daemon, busybox_image: Path) -> None:
    import_image(own_daemon, busybox_image, "tiny")
    name = create(own_daemon, "tiny")
    change(own_daemon, name, "start")
    own_daemon.restart()
    damage(own_daemon)

    def refused() -> bool:
        status, _, reply = own_daemon.api.raw("PATCH", f"/1.0/instances/{name}", {"config": {}})
        return status == 503 and b"recover --database" in reply

    # The first to meet it is told that it failed; from then on nothing is written.
    wait_until(refused, 10, "refusal", interval_s=0.2)
    assert own_daemon.out(name, "echo", "alive") == "alive"
    own_daemon.lxpy("recover", "--database", "--yes")
    assert own_daemon.out(name, "echo", "alive") == "alive"
    change(own_daemon, name, "stop")


def test_an_end_while_it_cannot_be_noted(own_daemon: Daemon, busybox_image: Path) -> None:
    import_image(own_daemon, busybox_image, "tiny")
    name = create(own_daemon, "tiny")
    change(own_daemon, name, "start")
    copied(own_daemon)
    own_daemon.kill()
    damage(own_daemon)
    own_daemon.start()
    pid = own_daemon.init_pid(name)
    own_daemon.exec(name, "poweroff", check=False)
    wait_until(lambda: not processes.alive(pid), 20, "its end")
    own_daemon.lxpy("recover", "--database", "--yes")
    own_daemon.wait_status(name, "Stopped")
    change(own_daemon, name, "start")
    assert own_daemon.out(name, "echo", "again") == "again"
