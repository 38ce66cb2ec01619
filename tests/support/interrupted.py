"""Operations of storage that tests interrupt or starve, and how each of them is looked at after."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lxpy.storage import Volume
from tests.images import busybox
from tests.support.bench import ELSEWHERE, POOL, VOLUMES, VOLUMES_ELSEWHERE, Bench, custom

Step = Callable[[Bench, str], None]
Check = Callable[[Bench, str], bool]


def nothing(_: Bench, __: str) -> None:
    """Prepare nothing."""


@dataclass(frozen=True)
class Operation:
    """What is interrupted; `is_done` checks what there is of it and tells whether it is there.

    `again` repeats one that is not done; one that is, is refused or changes nothing.
    """

    prepare: Step
    act: Step
    is_done: Check


def exists(bench: Bench, url: str) -> bool:
    return bench.api.raw("GET", url)[0] == 200


def whole(prefix: str, volume: Callable[[str], Volume]) -> Check:
    """A copy is there with all that is in it, or not at all."""

    def check(bench: Bench, name: str) -> bool:
        if not exists(bench, f"{prefix}/{name}"):
            return False
        bench.is_whole(volume(name))
        return True

    return check


def gone(prefix: str, volume: Callable[[str], Volume]) -> Check:
    """A copy is gone, or as it was."""
    there = whole(prefix, volume)
    return lambda bench, name: not there(bench, name)


def renamed(prefix: str, volume: Callable[[str], Volume]) -> Check:
    """A copy has one of two names."""
    there = whole(prefix, volume)

    def check(bench: Bench, name: str) -> bool:
        old, new = there(bench, name), there(bench, f"{name}x")
        assert old != new
        return new

    return check


def snapshot_of(path: str, volume: Volume) -> Check:
    def check(bench: Bench, name: str) -> bool:
        if not exists(bench, f"{path}/snapshots/{name}"):
            return False
        assert bench.digest(volume.at(name)) == bench.new
        return True

    return check


def restored(volume: Callable[[str], Volume]) -> Check:
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


def backed_up(owner: str) -> Check:
    """A backup can be read from begin to end, or is not there."""

    def check(bench: Bench, name: str) -> bool:
        url = f"{owner}/backups/{name}"
        if not exists(bench, url):
            return False
        status, _, data = bench.api.raw("GET", f"{url}/export")
        assert status == 200 and gzip.decompress(data)
        return True

    return check


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


def moved(pool: str) -> Check:
    """An instance is whole, on one of two pools."""

    def check(bench: Bench, name: str) -> bool:
        url = f"/1.0/instances/{name}"
        here = str(bench.api.get(url)["expanded_devices"]["root"]["pool"])
        bench.is_whole(Volume(name), here)
        return here == pool

    return check


def copy_elsewhere(bench: Bench, name: str) -> None:
    bench.copy(name)
    move(ELSEWHERE)(bench, name)


def snapshot_gone(prefix: str, volume: Callable[[str], Volume]) -> Check:
    """The snapshot is gone, or whole; what it was taken of is as it was."""

    def check(bench: Bench, name: str) -> bool:
        assert bench.digest(volume(name)) == bench.new
        if exists(bench, f"{prefix}/{name}/snapshots/s0"):
            assert bench.digest(volume(name).at("s0")) == bench.old
            return False
        return True

    return check


def snapshot_renamed(prefix: str, volume: Callable[[str], Volume]) -> Check:
    def check(bench: Bench, name: str) -> bool:
        names = [
            each for each in ("s0", "s1") if exists(bench, f"{prefix}/{name}/snapshots/{each}")
        ]
        assert len(names) == 1
        assert bench.digest(volume(name).at(names[0])) == bench.old
        return names == ["s1"]

    return check


def archive(bench: Bench, of: str = "/1.0/instances/base") -> bytes:
    status, _, data = bench.api.raw("GET", f"{of}/export")
    assert status == 200, data
    return data


def take_in(bench: Bench, name: str) -> None:
    headers = {"Content-Type": "application/octet-stream", "X-LXD-name": name, "X-LXD-pool": "p"}
    bench.api.call("POST", "/1.0/instances", ARCHIVES[bench.daemon.directory], headers)


def take_in_volume(bench: Bench, name: str) -> None:
    headers = {"Content-Type": "application/octet-stream", "X-LXD-name": name}
    bench.api.call("POST", VOLUMES, VOLUME_ARCHIVES[bench.daemon.directory], headers)


def resize_root(bench: Bench, name: str) -> None:
    root = {"type": "disk", "path": "/", "pool": "p", "size": "300MiB"}
    bench.api.patch(f"/1.0/instances/{name}", {"devices": {"root": root}})


def root_resized(bench: Bench, name: str) -> bool:
    bench.is_whole(Volume(name))
    return "size" in bench.api.get(f"/1.0/instances/{name}")["devices"]["root"]


def volume_moved(bench: Bench, name: str) -> bool:
    """A volume is on one of two pools."""
    old, new = (exists(bench, f"{url}/{name}") for url in (VOLUMES, VOLUMES_ELSEWHERE))
    assert old != new
    bench.is_whole(custom(name), ELSEWHERE if new else POOL)
    return new


def image_file(bench: Bench, name: str) -> Path:
    """Return an image that no other name has."""
    path = bench.daemon.directory.with_name(f"{bench.daemon.directory.name}-{name}.tar.gz")
    return path if path.exists() else busybox.build(path, name)


def fingerprint(bench: Bench, name: str) -> str:
    return hashlib.sha256(image_file(bench, name).read_bytes()).hexdigest()


def import_image(bench: Bench, name: str) -> None:
    headers = {"Content-Type": "application/octet-stream"}
    bench.api.call("POST", "/1.0/images", image_file(bench, name).read_bytes(), headers)


def import_used_image(bench: Bench, name: str) -> None:
    """Have an image that is unpacked on the pool."""
    import_image(bench, name)
    source = {"type": "image", "fingerprint": fingerprint(bench, name)}
    devices = {"root": {"type": "disk", "path": "/", "pool": POOL}}
    bench.api.post("/1.0/instances", {"name": "short", "source": source, "devices": devices})
    bench.daemon.delete("short")


def image_imported(bench: Bench, name: str) -> bool:
    url = f"/1.0/images/{fingerprint(bench, name)}"
    if not exists(bench, url):
        return False
    status, _, data = bench.api.raw("GET", f"{url}/export")
    assert status == 200 and data == image_file(bench, name).read_bytes()
    return True


def pool_there(bench: Bench, name: str) -> bool:
    """A pool can be used, or its name is free."""
    url = f"/1.0/storage-pools/{name}"
    if not exists(bench, url):
        return False
    volumes = f"{url}/volumes/custom"
    bench.api.post(volumes, {"name": "try", "type": "custom"})
    bench.api.delete(f"{volumes}/try")
    return True


def create_pool(bench: Bench, name: str) -> None:
    config = {"size": "512MiB"} if bench.driver == "btrfs" else {}
    body = {"name": name, "driver": bench.driver, "config": config}
    bench.api.post("/1.0/storage-pools", body)


ARCHIVES: dict[Path, bytes] = {}
VOLUME_ARCHIVES: dict[Path, bytes] = {}
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
    "move-away": Operation(Bench.copy, move(ELSEWHERE), moved(ELSEWHERE)),
    "move-here": Operation(copy_elsewhere, move(POOL), moved(POOL)),
    "snapshot-delete": Operation(
        Bench.copy,
        lambda b, n: b.api.delete(f"{INSTANCES}/{n}/snapshots/s0"),
        snapshot_gone(INSTANCES, Volume),
    ),
    "snapshot-rename": Operation(
        Bench.copy,
        lambda b, n: b.api.post(f"{INSTANCES}/{n}/snapshots/s0", {"name": "s1"}),
        snapshot_renamed(INSTANCES, Volume),
    ),
    "resize": Operation(Bench.copy, resize_root, root_resized),
    "export": Operation(nothing, lambda b, _: archive(b) and None, exported),
    "backup": Operation(
        nothing,
        lambda b, n: b.api.post(f"{INSTANCES}/base/backups", {"name": n}),
        backed_up(f"{INSTANCES}/base"),
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
    "volume-snapshot-delete": Operation(
        Bench.copy_volume,
        lambda b, n: b.api.delete(f"{VOLUMES}/{n}/snapshots/s0"),
        snapshot_gone(VOLUMES, custom),
    ),
    "volume-snapshot-rename": Operation(
        Bench.copy_volume,
        lambda b, n: b.api.post(f"{VOLUMES}/{n}/snapshots/s0", {"name": "s1"}),
        snapshot_renamed(VOLUMES, custom),
    ),
    "volume-backup": Operation(
        nothing,
        lambda b, n: b.api.post(f"{VOLUMES}/disk/backups", {"name": n}),
        backed_up(f"{VOLUMES}/disk"),
    ),
    "volume-import": Operation(nothing, take_in_volume, whole(VOLUMES, custom)),
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
#: Those that concern more than one pool, or none; the other ones are OPERATIONS.
ON_OTHERS = {
    "volume-move": Operation(
        Bench.copy_volume,
        lambda b, n: b.api.post(f"{VOLUMES}/{n}", {"name": n, "pool": ELSEWHERE}),
        volume_moved,
    ),
    "image-import": Operation(nothing, import_image, image_imported),
    "image-delete": Operation(
        import_used_image,
        lambda b, n: b.api.delete(f"/1.0/images/{fingerprint(b, n)}"),
        lambda b, n: not image_imported(b, n),
    ),
    "pool-create": Operation(nothing, create_pool, pool_there),
    "pool-delete": Operation(
        create_pool,
        lambda b, n: b.api.delete(f"/1.0/storage-pools/{n}"),
        lambda b, n: not pool_there(b, n),
    ),
}
