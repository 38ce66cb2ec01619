"""kill -9 of the daemon in every storage operation: it is done or undone, and works when repeated.

LXPY_CRASH_POINTS says how often each is interrupted, at random moments; LXPY_CRASH_SEED chooses
others.
"""

from __future__ import annotations

import hashlib
import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lxpy.storage import Volume
from tests.support import leaks
from tests.support.api import ApiError
from tests.support.bench import VOLUMES, Bench, custom
from tests.support.daemon import Daemon
from tests.support.fixtures import change, import_image
from tests.support.processes import wait_until
from tests.system.test_crash import killed_in_the_middle

POINTS = int(os.environ.get("LXPY_CRASH_POINTS", "2"))
GROUNDS = {"dir": {}, "btrfs": {"size": "2GiB"}}

Step = Callable[[Bench, str], None]


def nothing(_: Bench, __: str) -> None:
    """Prepare nothing."""


@dataclass(frozen=True)
class Operation:
    """What is interrupted; `is_done` checks what there is of it and tells whether it is there.

    `again` repeats one that is not done; one that is, is refused or changes nothing.
    """

    prepare: Step
    act: Step
    is_done: Callable[[Bench, str], bool]


def exists(bench: Bench, url: str) -> bool:
    return bench.api.raw("GET", url)[0] == 200


def whole(prefix: str, volume: Callable[[str], Volume]) -> Callable[[Bench, str], bool]:
    """A copy is there with all that is in it, or not at all."""

    def check(bench: Bench, name: str) -> bool:
        if not exists(bench, f"{prefix}/{name}"):
            return False
        bench.is_whole(volume(name))
        return True

    return check


def gone(prefix: str, volume: Callable[[str], Volume]) -> Callable[[Bench, str], bool]:
    """A copy is gone, or as it was."""
    there = whole(prefix, volume)
    return lambda bench, name: not there(bench, name)


def renamed(prefix: str, volume: Callable[[str], Volume]) -> Callable[[Bench, str], bool]:
    """A copy has one of two names."""
    there = whole(prefix, volume)

    def check(bench: Bench, name: str) -> bool:
        old, new = there(bench, name), there(bench, f"{name}x")
        assert old != new
        return new

    return check


def snapshot_of(path: str, volume: Volume) -> Callable[[Bench, str], bool]:
    def check(bench: Bench, name: str) -> bool:
        if not exists(bench, f"{path}/snapshots/{name}"):
            return False
        assert bench.digest(volume.at(name)) == bench.new
        return True

    return check


def restored(volume: Callable[[str], Volume]) -> Callable[[Bench, str], bool]:
    """The volume is what it was, or what its snapshot is; never in between."""

    def check(bench: Bench, name: str) -> bool:
        found = bench.digest(volume(name))
        assert found in (bench.old, bench.new)
        assert bench.digest(volume(name).at("s0")) == bench.old
        return found == bench.old

    return check


def created(bench: Bench, name: str) -> bool:
    if not exists(bench, f"/1.0/instances/{name}"):
        return False
    assert bench.digest(Volume(name)) == ""  # its tree can be read
    return True


def live(bench: Bench, name: str) -> bool:
    """A running instance goes on running, whatever becomes of its snapshot."""
    assert bench.daemon.status("live") == "Running"
    assert bench.daemon.out("live", "echo", "alive") == "alive"
    return exists(bench, f"/1.0/instances/live/snapshots/{name}")


def exported(bench: Bench, _: str) -> bool:
    bench.check()  # its snapshot is gone
    return False


def backed_up(bench: Bench, name: str) -> bool:
    url = f"/1.0/instances/base/backups/{name}"
    if not exists(bench, url):
        return False
    status, _, data = bench.api.raw("GET", f"{url}/export")
    assert status == 200 and data[:4] == b"\x28\xb5\x2f\xfd"
    return True


def published(bench: Bench, _: str) -> bool:
    found = [each for each in bench.api.get("/1.0/images?recursion=1") if not each["aliases"]]
    for each in found:
        data = bench.api.raw("GET", f"/1.0/images/{each['fingerprint']}/export")[2]
        assert hashlib.sha256(data).hexdigest() == each["fingerprint"]
    return bool(found)


def resized(bench: Bench, name: str) -> bool:
    bench.is_whole(custom(name))
    return bool(bench.api.get(f"{VOLUMES}/{name}")["config"].get("size") == "300MiB")


def move(pool: str) -> Step:
    body = {"migration": True, "pool": pool}
    return lambda bench, name: bench.api.post(f"/1.0/instances/{name}", {"name": name, **body})


def moved(pool: str) -> Callable[[Bench, str], bool]:
    """An instance is whole, on one of two pools."""

    def check(bench: Bench, name: str) -> bool:
        url = f"/1.0/instances/{name}"
        status, _, data = bench.api.raw("GET", f"{url}/files?path=/root/data")
        assert status == 200 and hashlib.sha256(data).hexdigest() == bench.new
        status, _, data = bench.api.raw("GET", f"{url}/snapshots/s0/files?path=/root/data")
        assert status == 200 and hashlib.sha256(data).hexdigest() == bench.old
        return bool(bench.api.get(url)["expanded_devices"]["root"]["pool"] == pool)

    return check


def copy_elsewhere(bench: Bench, name: str) -> None:
    bench.copy(name)
    move("default")(bench, name)


def archive(bench: Bench) -> bytes:
    status, _, data = bench.api.raw("GET", "/1.0/instances/base/export")
    assert status == 200, data
    return data


def take_in(bench: Bench, name: str) -> None:
    headers = {"Content-Type": "application/octet-stream", "X-LXD-name": name, "X-LXD-pool": "p"}
    bench.api.call("POST", "/1.0/instances", ARCHIVES[bench.daemon.directory], headers)


ARCHIVES: dict[Path, bytes] = {}
INSTANCES = "/1.0/instances"
OPERATIONS = {
    "create": Operation(nothing, Bench.create, created),
    "copy": Operation(nothing, Bench.copy, whole(INSTANCES, Volume)),
    "snapshot": Operation(
        nothing,
        lambda b, n: b.api.post(f"{INSTANCES}/base/snapshots", {"name": n}),
        snapshot_of(f"{INSTANCES}/base", Volume("base")),
    ),
    "snapshot-running": Operation(
        nothing, lambda b, n: b.api.post(f"{INSTANCES}/live/snapshots", {"name": n}), live
    ),
    "restore": Operation(
        Bench.copy,
        lambda b, n: b.api.put(f"{INSTANCES}/{n}", {"restore": "s0"}),
        restored(Volume),
    ),
    "delete": Operation(
        Bench.copy, lambda b, n: b.api.delete(f"{INSTANCES}/{n}"), gone(INSTANCES, Volume)
    ),
    "rename": Operation(
        Bench.copy,
        lambda b, n: b.api.post(f"{INSTANCES}/{n}", {"name": f"{n}x"}),
        renamed(INSTANCES, Volume),
    ),
    "move-away": Operation(Bench.copy, move("default"), moved("default")),
    "move-here": Operation(copy_elsewhere, move("p"), moved("p")),
    "export": Operation(nothing, lambda b, _: archive(b) and None, exported),
    "backup": Operation(
        nothing, lambda b, n: b.api.post(f"{INSTANCES}/base/backups", {"name": n}), backed_up
    ),
    "import": Operation(nothing, take_in, whole(INSTANCES, Volume)),
    "publish": Operation(
        nothing,
        lambda b, _: b.api.post("/1.0/images", {"source": {"type": "instance", "name": "base"}}),
        published,
    ),
    "volume-create": Operation(
        nothing,
        lambda b, n: b.api.post(VOLUMES, {"name": n, "type": "custom"}),
        lambda b, n: exists(b, f"{VOLUMES}/{n}") and b.digest(custom(n)) == "",
    ),
    "volume-copy": Operation(nothing, Bench.copy_volume, whole(VOLUMES, custom)),
    "volume-snapshot": Operation(
        nothing,
        lambda b, n: b.api.post(f"{VOLUMES}/disk/snapshots", {"name": n}),
        snapshot_of(f"{VOLUMES}/disk", custom("disk")),
    ),
    "volume-restore": Operation(
        Bench.copy_volume,
        lambda b, n: b.api.put(f"{VOLUMES}/{n}", {"restore": "s0"}),
        restored(custom),
    ),
    "volume-delete": Operation(
        Bench.copy_volume, lambda b, n: b.api.delete(f"{VOLUMES}/{n}"), gone(VOLUMES, custom)
    ),
    "volume-rename": Operation(
        Bench.copy_volume,
        lambda b, n: b.api.post(f"{VOLUMES}/{n}", {"name": f"{n}x"}),
        renamed(VOLUMES, custom),
    ),
    "volume-resize": Operation(
        Bench.copy_volume,
        lambda b, n: b.api.patch(f"{VOLUMES}/{n}", {"config": {"size": "300MiB"}}),
        resized,
    ),
}


@pytest.fixture(scope="module", params=GROUNDS)
def bench(
    request: pytest.FixtureRequest, work_directory: Path, commands: Path, busybox_image: Path
) -> Iterator[Bench]:
    """A pool with something on it, and an instance that runs."""
    daemon = Daemon(work_directory / f"crash-{request.param}", commands)
    try:
        daemon.start()
        import_image(daemon, busybox_image, "tiny")
        made = Bench(daemon, request.param, GROUNDS[request.param])
        made.fill()
        made.create("live")
        change(daemon, "live", "start")
        ARCHIVES[daemon.directory] = archive(made)
        yield made
        daemon.remove()
    finally:
        daemon.destroy()


@pytest.mark.timeout(60 + 30 * POINTS)
@pytest.mark.parametrize("kind", OPERATIONS)
def test_killed_during(kind: str, bench: Bench) -> None:
    operation, daemon = OPERATIONS[kind], bench.daemon
    took = in_peace(bench, operation)
    before, opened = leaks.take(daemon), bench.open_on_host()
    chance = random.Random(f"{kind} {POINTS} {os.environ.get('LXPY_CRASH_SEED', '')}")
    for number in range(POINTS):
        name = f"r{number}"
        operation.prepare(bench, name)
        after_s = chance.uniform(0, took * 1.1)
        killed_in_the_middle(daemon, lambda name=name: operation.act(bench, name), after_s)
        daemon.start()
        note = f"{kind} killed after {after_s:.4f} s of {took:.4f}"
        try:
            bench.check()
            if not operation.is_done(bench, name):
                operation.act(bench, name)
                assert operation.is_done(bench, name) or kind == "export"
            bench.check()
            bench.clear()
            wait_until(lambda: bench.open_on_host() == opened, 10, "nothing left open")
            leaks.check(daemon, before, 10)
        except (AssertionError, ApiError, OSError) as error:
            left = f"{bench.open_on_host() ^ opened}"
            raise AssertionError(f"{note}: {error}\n{left}\n{daemon.tail(15)}") from error


def in_peace(bench: Bench, operation: Operation) -> float:
    """Do it once undisturbed; how long it took."""
    operation.prepare(bench, "calm")
    begin = time.monotonic()
    try:
        operation.act(bench, "calm")
    except ApiError as error:
        if "NotSupported" in str(error) or "no quotas" in error.text:
            pytest.skip(error.text)
        raise
    took = time.monotonic() - begin
    operation.is_done(bench, "calm")
    bench.clear()
    return took
