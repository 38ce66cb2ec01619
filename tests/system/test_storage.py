"""Storage pools with real overlays: exact copies, shared images, stubborn files, no room."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from lxpy.errors import Failed
from lxpy.images.store import ImageStore
from lxpy.storage import Layers, Pool, StoragePools, Volume
from tests.support.api import ApiError
from tests.support.daemon import Daemon
from tests.support.fixtures import Launch

OPTIONS = "redirect_dir=on,index=on,nfs_export=on,metacopy=off"


@pytest.fixture
def directory(work_directory: Path, commands: Path) -> Iterator[Path]:
    """A directory on the file system that instances lie on."""
    path = work_directory / "storage"
    path.mkdir(mode=0o711)
    yield path
    subprocess.run(["rm", "-rf", "--one-file-system", path], check=True)


@pytest.fixture
async def storage(directory: Path) -> AsyncIterator[StoragePools]:
    pools = StoragePools(directory / "pools")
    yield pools
    await pools.close()


async def started(storage: StoragePools, name: str, **config: str) -> Pool:
    pool = Pool(name, "dir", storage.fill(name, "dir", config))
    await storage.create(pool)
    await storage.start(pool)
    return pool


@pytest.fixture
async def pool(storage: StoragePools) -> Pool:
    return await started(storage, "p")


@pytest.fixture
async def image(storage: StoragePools, pool: Pool, directory: Path, busybox_image: Path) -> str:
    """The tiny image, unpacked on the pool, with a file of two names in it."""
    store = ImageStore(directory / "images", max_bytes=1 << 30, max_files=10_000)
    await store.sweep()

    async def chunks() -> AsyncIterator[bytes]:
        yield busybox_image.read_bytes()

    stored = await store.receive_unified(chunks())

    async def unpack(target: Path) -> None:
        await store.unpack(stored.fingerprint, target)
        (target / "rootfs/one").write_text("image\n")
        (target / "rootfs/two").hardlink_to(target / "rootfs/one")
        (target / "rootfs/folder/inner").mkdir(parents=True)
        (target / "rootfs/folder/inner/file").write_text("inner\n")

    await storage.ensure_image(pool, stored.fingerprint, unpack)
    return stored.fingerprint


async def upper(storage: StoragePools, pool: Pool, name: str) -> Path:
    """Where a volume's own files are."""
    found = await storage.rootfs(pool, Volume(name))
    assert isinstance(found, Layers) and found.root is not None
    return Path(found.root) / "upper"


async def inside(storage: StoragePools, pool: Pool, volume: Volume, script: str) -> str:
    """Run a script in a volume's tree, mounted as the runtime does, in a namespace of its own."""
    found = await storage.rootfs(pool, volume)
    assert isinstance(found, Layers)
    layers = f"lowerdir={':'.join(found.lower)},upperdir={found.root}/upper"
    command = (
        f"mkdir -p {found.root}/m && "
        f"mount -t overlay overlay -o {layers},workdir={found.root}/work,{OPTIONS} "
        f"{found.root}/m && cd {found.root}/m && {script}"
    )
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-ec", command], capture_output=True, text=True
    )
    (Path(found.root) / "m").rmdir()
    assert done.returncode == 0, done.stderr
    return done.stdout


async def test_a_copy_shows_what_the_original_does(
    storage: StoragePools, pool: Pool, image: str
) -> None:
    one, two = Volume("one"), Volume("two")
    await storage.create_volume(pool, one, image)
    change = (
        "echo changed > one; ln one three; mv folder moved; echo more >> moved/inner/file; "
        "rm -r etc; mkdir etc; mknod etc/device c 1 3; chown 1000:1000 bin; "
        "setfattr -n user.key -v value one; truncate -s 100M etc/sparse"
    )
    await inside(storage, pool, one, change)
    look = (
        "cat one two three moved/inner/file; stat -c '%n %u %g %a %F %h %t:%T' one two three bin "
        "moved etc etc/*; getfattr --only-values -n user.key two; ls -A . etc; test ! -e folder"
    )
    original = await inside(storage, pool, one, look)
    await storage.copy(pool, one, pool, two)
    assert await inside(storage, pool, two, look) == original
    assert original.startswith("changed\nchanged\nchanged\ninner\nmore\n")
    used = subprocess.run(["du", "-sk", pool.path / "layers"], capture_output=True)
    assert int(used.stdout.split()[0]) < 10_000
    # Both live on, each by itself.
    await inside(storage, pool, two, "echo again > three")
    assert "again" not in await inside(storage, pool, one, "cat one two")
    assert await inside(storage, pool, two, "cat one two") == "again\nagain\n"
    await storage.delete_image(pool, image)
    await storage.delete_volume(pool, one)
    assert await inside(storage, pool, two, "cat two") == "again\n"
    await storage.delete_volume(pool, two)
    assert not list((pool.path / "images").iterdir())


async def test_a_copy_on_another_pool(storage: StoragePools, pool: Pool, image: str) -> None:
    other = await started(storage, "q")
    source = pool.path / "images" / image

    async def unpack(target: Path) -> None:
        subprocess.run(["cp", "-a", f"{source}/.", target], check=True)

    await storage.ensure_image(other, image, unpack)
    one, two = Volume("one"), Volume("two")
    await storage.create_volume(pool, one, image)
    await inside(storage, pool, one, "mv folder moved; echo more >> moved/inner/file; rm -r etc")
    await storage.copy(pool, one, other, two)
    look = "cat moved/inner/file; ls -A"
    assert await inside(storage, other, two, look) == await inside(storage, pool, one, look)
    await inside(storage, pool, one, "echo changed > one")
    await storage.copy(pool, one, other, Volume("three"))
    assert await inside(storage, other, Volume("three"), "cat one two") == "changed\nchanged\n"


async def test_immutable_files_go_too(storage: StoragePools, pool: Pool, image: str) -> None:
    await storage.create_volume(pool, Volume("one"), image)
    path = await upper(storage, pool, "one") / "stuck"
    path.write_text("a privileged guest can do this")
    subprocess.run(["chattr", "+i", path], check=True)
    await storage.delete_volume(pool, Volume("one"))
    assert not list((pool.path / ".trash").iterdir())


async def test_a_deep_tree_goes_too(storage: StoragePools, pool: Pool) -> None:
    await storage.create_volume(pool, Volume("one"))
    root = await upper(storage, pool, "one")
    script = "import os\nfor _ in range(3000): os.mkdir('x' * 200); os.chdir('x' * 200)"
    subprocess.run(["python3", "-c", script], cwd=root, check=True)
    await storage.copy(pool, Volume("one"), pool, Volume("two"))  # nothing is looked at
    other = await started(storage, "q")
    with pytest.raises(Failed, match="a path of more than 4096 bytes"):
        await storage.copy(pool, Volume("two"), other, Volume("three"))
    await storage.delete_volume(pool, Volume("one"))
    await storage.delete_volume(pool, Volume("two"))
    assert not list((other.path / "containers").iterdir())
    for area in ("containers", "layers", ".trash"):
        assert not list((pool.path / area).iterdir())


async def test_a_full_pool(storage: StoragePools, directory: Path, image: str, pool: Pool) -> None:
    source = directory / "small"
    source.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", source], check=True)
    try:
        small = await started(storage, "small", source=str(source))
        (source / "ballast").write_bytes(b"x" * (100 << 10))

        async def unpack(target: Path) -> None:
            (target / "rootfs").mkdir()
            (target / "rootfs/big").write_bytes(b"x" * (1 << 20))

        with pytest.raises(Failed, match=r'No space left in storage pool "small": free some'):
            await storage.ensure_image(small, image, unpack)
        await storage.create_volume(pool, Volume("one"))
        (await upper(storage, pool, "one") / "big").write_bytes(b"x" * (1 << 20))
        with pytest.raises(Failed, match=r'No space left in storage pool "small"'):
            await storage.copy(pool, Volume("one"), small, Volume("two"))
        for area in ("containers", "layers", "images", ".trash"):
            assert not list((source / area).iterdir())
        (source / "ballast").unlink()
        await storage.create_volume(small, Volume("three"))
    finally:
        subprocess.run(["umount", source], check=True)


def test_pools(launch: Launch, daemon: Daemon) -> None:
    api = daemon.api
    default = api.get("/1.0/storage-pools/default")
    assert (default["driver"], default["status"]) == ("dir", "Created")
    assert default["config"]["source"] == str(daemon.directory / "storage-pools/default")
    assert "/1.0/profiles/default" in default["used_by"]
    api.post("/1.0/storage-pools", {"name": "aside", "driver": "dir", "description": "x"})
    devices = {"root": {"type": "disk", "path": "/", "pool": "aside"}}
    name = launch(devices=devices)
    status, _, reply = api.raw("DELETE", "/1.0/storage-pools/aside")
    assert status == 400 and b"currently in use" in reply
    volumes = api.get("/1.0/storage-pools/aside/volumes?recursion=1&filter=")
    assert {(each["type"], each["name"]) for each in volumes} >= {("container", name)}
    daemon.lxpy("delete", "--force", name)
    api.call("DELETE", "/1.0/storage-pools/aside")
    assert not (daemon.directory / "storage-pools/aside").exists()


def test_a_size_holds(launch: Launch, daemon: Daemon) -> None:
    root = {"type": "disk", "path": "/", "pool": "default", "size": "300MiB"}
    name = launch(devices={"root": root})
    size = int(daemon.out(name, "df", "-m", "/").splitlines()[-1].split()[1])
    assert 290 <= size <= 300
    done = daemon.exec(name, "dd", "if=/dev/zero", "of=/big", "bs=1M", "count=400", check=False)
    assert "No space left on device" in done.stderr
    daemon.exec(name, "rm", "/big")


def test_a_pool_that_holds_no_sizes_refuses_them(launch: Launch, daemon: Daemon) -> None:
    config = {"dir.quota": "none"}
    daemon.api.post("/1.0/storage-pools", {"name": "free", "driver": "dir", "config": config})
    root = {"type": "disk", "path": "/", "pool": "free", "size": "1GiB"}
    before = daemon.instances()
    with pytest.raises(ApiError, match="dir.quota=none"):
        launch(devices={"root": root})
    assert daemon.instances() == before
    daemon.api.call("DELETE", "/1.0/storage-pools/free")


def test_a_custom_volume(daemon: Daemon, launch: Launch) -> None:
    api, path = daemon.api, "/1.0/storage-pools/default/volumes/custom"
    api.post(path, {"name": "data", "type": "custom"})
    disk = {"type": "disk", "pool": "default", "source": "data", "path": "/data"}
    name = launch(devices={"data": disk})
    daemon.lxpy("exec", name, "--", "sh", "-c", "echo text > /data/file")
    assert api.get(f"{path}/data")["used_by"] == [f"/1.0/instances/{name}"]
    status, _, reply = api.raw("DELETE", f"{path}/data")
    assert status == 400 and b"still in use" in reply
    daemon.lxpy("delete", "--force", name)
    kept = daemon.directory / "storage-pools/default/custom/data/files/file"
    assert kept.read_text() == "text\n" and kept.stat().st_uid == 0
    api.call("DELETE", f"{path}/data")


def test_a_pool_whose_source_is_gone_keeps_nobody_back(own_daemon: Daemon) -> None:
    api, source = own_daemon.api, own_daemon.directory / "elsewhere"
    api.post(
        "/1.0/storage-pools", {"name": "p", "driver": "dir", "config": {"source": str(source)}}
    )
    own_daemon.stop()
    source.rename(source.with_name("away"))
    own_daemon.start()
    assert api.get("/1.0/storage-pools/p")["status"] == "Unavailable"
    (warning,) = api.get("/1.0/warnings?recursion=1")
    assert warning["type"] == "Storage pool unavailable" and warning["severity"] == "high"
    assert warning["entity_url"] == "/1.0/storage-pools/p"
    status, _, reply = api.raw("GET", "/1.0/storage-pools/p/resources")
    assert status == 503 and b"mount or restore it" in reply
    source.with_name("away").rename(source)
    api.get("/1.0/storage-pools/p/resources")
    assert api.get("/1.0/storage-pools/p")["status"] == "Created"
    assert api.get("/1.0/warnings") == []
    api.call("DELETE", "/1.0/storage-pools/p")
    assert source.is_dir()
