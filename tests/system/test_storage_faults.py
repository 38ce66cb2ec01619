"""Pools whose ground gives way: full, read-only, not mounted, gone; afterwards all is as before."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

import pytest

from lxpy.storage import loops
from tests.support import leaks
from tests.support.api import ApiError
from tests.support.bench import DATA, VOLUMES, Bench, custom
from tests.support.daemon import Daemon
from tests.support.fixtures import change, import_image
from tests.support.interrupted import ARCHIVES, OPERATIONS, VOLUME_ARCHIVES, archive
from tests.support.pools import sparse
from tests.support.processes import wait_until

#: what is left free: nothing at all, and less than the data takes
LEFT_BYTES = (0, 2 << 20)
_FULL = ("space", "full", "No room", "mkfs")


@contextmanager
def mounted(directory: Path, kind: str) -> Iterator[Path]:
    """A small file system of its own."""
    place = directory / f"{kind}-disk"
    place.mkdir(mode=0o711)
    image = sparse(directory / f"{kind}-disk.img", 256 << 20)
    subprocess.run([f"mkfs.{kind}", "-q", image], check=True)
    try:
        with loops.attached(image) as device:
            subprocess.run(["mount", device, place], check=True)
        yield place
    finally:
        while subprocess.run(["umount", place], capture_output=True).returncode == 0:
            pass
        image.unlink()
        place.rmdir()


@contextmanager
def installed(directory: Path, commands: Path, image: Path, name: str) -> Iterator[Daemon]:
    daemon = Daemon(directory / name, commands)
    try:
        daemon.start()
        import_image(daemon, image, "tiny")
        yield daemon
        daemon.remove()
    finally:
        daemon.destroy()


@pytest.fixture(scope="module", params=[("dir", "ext4"), ("btrfs", "btrfs")], ids=lambda p: p[0])
def bench(
    request: pytest.FixtureRequest, work_directory: Path, commands: Path, busybox_image: Path
) -> Iterator[Bench]:
    """A pool on a small disk, with something on it."""
    driver, kind = request.param
    with (
        mounted(work_directory, kind) as place,
        installed(work_directory, commands, busybox_image, f"fault-{driver}") as daemon,
    ):
        source = place / "pool"
        source.mkdir(mode=0o711)
        made = Bench(daemon, driver, {"source": str(source)})
        made.fill()
        made.create("live")
        change(daemon, "live", "start")
        ARCHIVES[daemon.directory] = archive(made)
        VOLUME_ARCHIVES[daemon.directory] = archive(made, f"{VOLUMES}/disk")
        yield made


@contextmanager
def full(place: Path, left_bytes: int) -> Iterator[None]:
    """Take all space of a file system but some."""
    ballast = place / "ballast"
    descriptor = os.open(ballast, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC)
    try:
        for size in (1 << 20, 1 << 16, 1 << 12):
            try:
                while True:
                    os.write(descriptor, os.urandom(size))
                    os.fsync(descriptor)
            except OSError:
                continue
        if left_bytes:
            os.ftruncate(descriptor, max(0, os.fstat(descriptor).st_size - left_bytes))
            os.fsync(descriptor)
        yield
    finally:
        os.close(descriptor)
        ballast.unlink()
        os.sync()


def place_of(bench: Bench) -> Path:
    return Path(bench.api.get("/1.0/storage-pools/p")["config"]["source"]).parent


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", OPERATIONS)
def test_a_full_disk(kind: str, bench: Bench) -> None:
    operation = OPERATIONS[kind]
    before, opened = leaks.take(bench.daemon), bench.open_on_host()
    for number, left_bytes in enumerate(LEFT_BYTES):
        name, done = f"f{number}", False
        operation.prepare(bench, name)
        with full(place_of(bench), left_bytes):
            try:
                operation.act(bench, name)
                done = True
            except ApiError as error:
                if "no quotas" in error.text or "cannot be resized" in error.text:
                    pytest.skip(error.text)
                assert any(word in error.text for word in _FULL), error.text
            except AssertionError as error:  # a stream that broke off
                assert kind == "export", error
            except (OSError, HTTPException):
                assert kind in ("export", "backup", "volume-backup", "publish")
        bench.check()
        if done:
            assert operation.is_done(bench, name) or kind == "export"
        elif not operation.is_done(bench, name):
            operation.act(bench, name)
            assert operation.is_done(bench, name) or kind == "export"
        bench.check()
        bench.clear()
        wait_until(lambda: bench.open_on_host() == opened, 10, "nothing left open")
        leaks.check(bench.daemon, before, 10)
    assert bench.daemon.out("live", "echo", "alive") == "alive"


@pytest.mark.timeout(300)
def test_a_read_only_disk(bench: Bench) -> None:
    place = place_of(bench)
    change(bench.daemon, "live", "stop")
    subprocess.run(["mount", "-o", "remount,ro", place], check=True)
    try:
        for restart in (False, True):
            if restart:
                bench.daemon.restart()
            for kind in ("create", "copy", "snapshot", "volume-create", "volume-snapshot"):
                with pytest.raises(ApiError, match=r"(?i)read-only|unavailable"):
                    OPERATIONS[kind].act(bench, "refused")
            with pytest.raises(ApiError, match=r"(?i)read-only|unavailable"):
                change(bench.daemon, "live", "start")
            assert "base" in bench.daemon.instances()
    finally:
        subprocess.run(["mount", "-o", "remount,rw", place], check=True)
    OPERATIONS["copy"].act(bench, "again")
    assert OPERATIONS["copy"].is_done(bench, "again")
    bench.check()
    bench.clear()
    change(bench.daemon, "live", "start")


@pytest.mark.timeout(300)
def test_a_disk_that_is_not_mounted(bench: Bench) -> None:
    place, daemon = place_of(bench), bench.daemon
    device = subprocess.run(
        ["findmnt", "-no", "SOURCE", place], capture_output=True, text=True, check=True
    ).stdout.strip()
    daemon.power_cut()
    with loops_kept(device):
        while subprocess.run(["umount", place], capture_output=True).returncode == 0:
            pass
        daemon.start()
        api = daemon.api
        assert api.get("/1.0/storage-pools/p")["status"] == "Unavailable"
        assert sorted(daemon.instances()) == ["base", "live"]
        with pytest.raises(ApiError, match=f"{place}.*missing|not usable|unavailable"):
            change(daemon, "base", "start")
        with pytest.raises(ApiError, match=r"(?i)missing|not usable|unavailable"):
            bench.create("refused")
        daemon.restart()
        assert list(place.iterdir()) == []  # nothing was written to where it belongs
        subprocess.run(["mount", device, place], check=True)
    bench.copy("again")
    bench.check()
    bench.clear()
    change(daemon, "live", "start") if daemon.status("live") != "Running" else None


@contextmanager
def loops_kept(device: str) -> Iterator[None]:
    """Keep a loop device, which goes by itself with its last user."""
    descriptor = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield
    finally:
        os.close(descriptor)


@pytest.mark.timeout(300)
def test_a_file_that_vanishes(work_directory: Path, commands: Path, busybox_image: Path) -> None:
    """The file below a pool is moved away, and comes back."""
    with installed(work_directory, commands, busybox_image, "vanishing") as daemon:
        made = Bench(daemon, "btrfs", {"size": "1GiB"})
        made.fill()
        file = Path(daemon.api.get("/1.0/storage-pools/p")["config"]["source"])
        daemon.power_cut()
        away = file.with_suffix(".away")
        file.rename(away)
        daemon.start()
        assert daemon.api.get("/1.0/storage-pools/p")["status"] == "Unavailable"
        assert daemon.instances() == ["base"]
        with pytest.raises(ApiError, match=str(file)):
            change(daemon, "base", "start")
        with pytest.raises(ApiError, match=str(file)):
            daemon.api.post(VOLUMES, {"name": "refused", "type": "custom"})
        assert not file.exists()
        away.rename(file)
        made.copy("again")
        made.check()
        made.is_whole(custom("disk"))
        change(daemon, "base", "start")
        assert daemon.out("base", "sh", "-c", f"wc -c < /{DATA}") == str(4 << 20)
        change(daemon, "base", "stop")
