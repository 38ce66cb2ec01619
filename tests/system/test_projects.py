"""Projects: scopes of names, what they share, what they may have; real instances in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.api import ApiError
from tests.support.daemon import Daemon
from tests.support.fixtures import Launch

Make = Callable[..., str]


@pytest.fixture
def project(daemon: Daemon, request: pytest.FixtureRequest) -> Iterator[Make]:
    """Make projects; they and what is in them go after the test."""
    names: list[str] = []

    def make(**config: str) -> str:
        name = f"p{len(names)}-{daemon.name()}"
        body = {"name": name, "config": {k.replace("__", "."): v for k, v in config.items()}}
        daemon.api.call("POST", "/1.0/projects", body)
        names.append(name)
        return name

    yield make
    for name in names:
        for url in daemon.api.get(f"/1.0/instances?project={name}"):
            if daemon.api.get(url)["status"] == "Running":
                path, _, query = url.partition("?")
                stop = {"action": "stop", "force": True, "timeout": 10}
                daemon.api.call("PUT", f"{path}/state?{query}", stop)
            daemon.api.call("DELETE", url)
        daemon.api.call("DELETE", f"/1.0/projects/{name}")


def create(daemon: Daemon, project: str, image: str, name: str = "c1", **fields: Any) -> None:
    body = {"name": name, "source": {"type": "image", "alias": image}, **fields}
    daemon.api.call("POST", f"/1.0/instances?project={project}", body)


def run(daemon: Daemon, project: str, *command: str, name: str = "c1") -> str:
    done = daemon.lxpy("exec", name, "--project", project, "--", *command)
    return done.stdout.strip()


def test_the_same_name_twice(daemon: Daemon, launch: Launch, tiny: str, project: Make) -> None:
    first = launch()
    here = project(features__images="false", features__profiles="false")
    create(daemon, here, tiny, first)
    start = {"action": "start", "timeout": 10}
    daemon.api.call("PUT", f"/1.0/instances/{first}/state?project={here}", start)
    daemon.exec(first, "sh", "-c", "echo default >/root/where")
    run(daemon, here, "sh", "-c", "echo other >/root/where", name=first)
    assert daemon.out(first, "cat", "/root/where") == "default"
    assert run(daemon, here, "cat", "/root/where", name=first) == "other"
    found = daemon.api.get("/1.0/instances?recursion=1&all-projects=true")
    assert {each["project"] for each in found if each["name"] == first} == {"default", here}
    assert daemon.api.get("/1.0/instances?project=nowhere") == []
    with pytest.raises(ApiError, match="Project not found"):
        create(daemon, "nowhere", tiny)


def test_features(daemon: Daemon, tiny: str, project: Make) -> None:
    own = project()
    assert daemon.api.get(f"/1.0/images?project={own}") == []
    assert daemon.api.get(f"/1.0/profiles?project={own}") == [
        f"/1.0/profiles/default?project={own}"
    ]
    with pytest.raises(ApiError, match="not found"):
        create(daemon, own, tiny)
    shares = project(features__images="false", features__profiles="false",
                     features__storage__volumes="false")  # fmt: skip
    assert daemon.api.get(f"/1.0/images?project={shares}")
    create(daemon, shares, tiny)
    used = daemon.api.get("/1.0/profiles/default")["used_by"]
    assert f"/1.0/instances/c1?project={shares}" in used
    with pytest.raises(ApiError, match="non-empty projects"):
        daemon.api.call("PATCH", f"/1.0/projects/{shares}", {"config": {"features.images": "true"}})
    with pytest.raises(ApiError, match="networks of lxpy are bridges"):
        daemon.api.call("PATCH", f"/1.0/projects/{own}", {"config": {"features.networks": "true"}})


def test_volumes(daemon: Daemon, tiny: str, project: Make) -> None:
    own = project(features__images="false", features__profiles="false")
    volumes = "/1.0/storage-pools/default/volumes/custom"
    for scope, text in (("default", "a"), (own, "b")):
        daemon.api.call("POST", f"{volumes}?project={scope}", {"name": "pv", "description": text})
    try:
        disk = {"type": "disk", "pool": "default", "source": "pv", "path": "/mnt"}
        create(daemon, own, tiny, devices={"pv": disk})
        (user,) = daemon.api.get(f"{volumes}/pv?project={own}")["used_by"]
        assert user == f"/1.0/instances/c1?project={own}"
        assert daemon.api.get(f"{volumes}/pv")["used_by"] == []
        with pytest.raises(ApiError, match="still in use"):
            daemon.api.call("DELETE", f"{volumes}/pv?project={own}")
    finally:
        daemon.api.call("DELETE", f"/1.0/instances/c1?project={own}")
        for scope in ("default", own):
            daemon.api.call("DELETE", f"{volumes}/pv?project={scope}")


def test_volumes_of_the_default_project(daemon: Daemon, tiny: str, project: Make) -> None:
    own = project(
        features__images="false", features__profiles="false", features__storage__volumes="false"
    )
    pool = "/1.0/storage-pools/default/volumes"
    daemon.api.call("POST", f"{pool}/custom?project={own}", {"name": "pv"})
    try:
        create(daemon, own, tiny)
        found = daemon.api.get(f"{pool}?project={own}&recursion=1")
        kinds = [(each["type"], each["name"], each["project"]) for each in found]
        assert ("custom", "pv", "default") in kinds and ("container", "c1", own) in kinds
        assert daemon.api.get(f"{pool}/container/c1?project={own}")["project"] == own
        with pytest.raises(ApiError, match="not found"):
            daemon.api.get(f"{pool}/container/c1")
    finally:
        daemon.api.call("DELETE", f"{pool}/custom/pv")


def test_the_default_project(daemon: Daemon) -> None:
    before = daemon.api.get("/1.0/projects/default")
    daemon.api.call("PATCH", "/1.0/projects/default", {"config": {"user.a": "b"}})
    assert daemon.api.get("/1.0/projects/default")["config"]["user.a"] == "b"
    for name in ("images", "networks"):
        with pytest.raises(ApiError, match="can't change the features"):
            body = {"config": {f"features.{name}": "false"}}
            daemon.api.call("PATCH", "/1.0/projects/default", body)
    daemon.api.call(
        "PUT", "/1.0/projects/default", {each: before[each] for each in ("config", "description")}
    )
    assert daemon.api.get("/1.0/projects/default")["config"] == before["config"]


def test_volume_moves(daemon: Daemon, project: Make) -> None:
    own = project(limits__disk="100MiB")
    volumes = "/1.0/storage-pools/default/volumes/custom"
    daemon.api.post(volumes, {"name": "pv", "config": {"size": "200MiB"}})
    try:
        daemon.api.post(f"{volumes}/pv/snapshots", {"name": "s0"})
        move = {"name": "pv", "pool": "default", "project": own}
        with pytest.raises(ApiError, match="limits.disk"):
            daemon.api.post(f"{volumes}/pv", move)
        daemon.api.patch(f"/1.0/projects/{own}", {"config": {"limits.disk": ""}})
        daemon.api.post(f"{volumes}/pv", move)
        assert daemon.api.raw("GET", f"{volumes}/pv")[0] == 404
        assert daemon.api.get(f"{volumes}/pv/snapshots?project={own}")
        daemon.lxpy(
            "storage", "volume", "move", "default/pv", "default/pv", "--project", own,
            "--target-project", "default",
        )  # fmt: skip
        assert daemon.api.get(f"{volumes}?project={own}") == []
    finally:
        daemon.api.delete(f"{volumes}/pv")


def test_limits(daemon: Daemon, tiny: str, project: Make) -> None:
    here = project(
        features__images="false", features__profiles="false", limits__instances="2",
        limits__memory="100MiB",
    )  # fmt: skip
    with pytest.raises(ApiError, match='no "limits.memory" config, either'):
        create(daemon, here, tiny)
    create(daemon, here, tiny, config={"limits.memory": "60MiB"})
    with pytest.raises(ApiError, match='Reached maximum aggregate value "100MiB"'):
        create(daemon, here, tiny, "c2", config={"limits.memory": "60MiB"})
    create(daemon, here, tiny, "c2", config={"limits.memory": "40MiB"})
    with pytest.raises(ApiError, match="Reached maximum number of instances"):
        create(daemon, here, tiny, "c3", config={"limits.memory": "1MiB"})
    with pytest.raises(ApiError, match="Reached maximum aggregate"):
        daemon.api.call(
            "PATCH", f"/1.0/instances/c2?project={here}", {"config": {"limits.memory": "41MiB"}}
        )
    with pytest.raises(ApiError, match='"limits.instances" is too low: .* 2 instances'):
        daemon.api.call("PATCH", f"/1.0/projects/{here}", {"config": {"limits.instances": "1"}})
    with pytest.raises(ApiError, match='"limits.memory" is too low: current total .* "100.0MiB"'):
        daemon.api.call("PATCH", f"/1.0/projects/{here}", {"config": {"limits.memory": "99MiB"}})
    archive = daemon.api.raw("GET", f"/1.0/instances/c1/export?project={here}")[2]
    kind = {"Content-Type": "application/octet-stream", "X-LXD-name": "c3"}
    with pytest.raises(ApiError, match="Reached maximum"):
        daemon.api.call("POST", f"/1.0/instances?project={here}", archive, kind)
    state = daemon.api.get(f"/1.0/projects/{here}/state")["resources"]
    assert state["instances"] == {"Limit": 2, "Usage": 2}
    assert state["memory"] == {"Limit": 100 << 20, "Usage": 100 << 20}
    assert state["cpu"]["Limit"] == -1


def test_images_that_there_is_no_room_for(
    daemon: Daemon, busybox_image: Path, project: Make
) -> None:
    here = project(limits__disk="1kB")
    data = busybox_image.read_bytes()
    kind = {"Content-Type": "application/octet-stream"}
    with pytest.raises(ApiError, match='Reached maximum aggregate value "1kB" for "limits.disk"'):
        daemon.api.call("POST", f"/1.0/images?project={here}", data, kind)
    assert daemon.api.get(f"/1.0/images?project={here}") == []
    assert not list((daemon.directory / "images").glob(".incoming*"))
    daemon.api.call("PATCH", f"/1.0/projects/{here}", {"config": {"limits.disk": "1GB"}})
    daemon.api.call("POST", f"/1.0/images?project={here}", data, kind)
    for url in daemon.api.get(f"/1.0/images?project={here}"):
        daemon.api.call("DELETE", url)


@pytest.mark.parametrize(
    ("config", "devices", "words"),
    [
        ({"security.privileged": "true"}, {}, "Privileged containers are forbidden"),
        ({"security.nesting": "true"}, {}, "Container nesting is forbidden"),
        ({"raw.lxc": "lxc.environment = A=b"}, {}, 'low-level config "raw.lxc" on'),
        ({"raw.idmap": "both 0 0"}, {}, 'low-level "raw.idmap" element 0'),
        ({}, {"d": {"type": "disk", "source": "/etc", "path": "/mnt"}}, "not backed by a pool"),
        (
            {},
            {"d": {"type": "unix-char", "path": "/dev/fuse"}},
            "character devices are forbidden",
        ),
    ],
)
def test_restrictions(
    daemon: Daemon, tiny: str, project: Make,
    config: dict[str, str], devices: dict[str, Any], words: str,
) -> None:  # fmt: skip
    here = project(features__images="false", features__profiles="false", restricted="true")
    with pytest.raises(ApiError, match=words):
        create(daemon, here, tiny, config=config, devices=devices)
    create(daemon, here, tiny)
    key = {"config": {"volatile.uuid": "f3b5a40e-a1f2-4d0a-8c1e-2bd3eeb2bb0f"}}
    with pytest.raises(ApiError, match='Setting "volatile.uuid" on container "c2" .* forbidden'):
        create(daemon, here, tiny, "c2", **key)
    with pytest.raises(ApiError, match='Changing "volatile.uuid" on container "c1" .* forbidden'):
        daemon.api.call("PATCH", f"/1.0/instances/c1?project={here}", key)
    own = project(features__images="false", restricted="true")
    body = {"config": config, "devices": devices}
    with pytest.raises(ApiError, match=f"profile update allowed: .*{words}"):
        daemon.api.call("PATCH", f"/1.0/profiles/default?project={own}", body)
    daemon.api.call("PATCH", f"/1.0/projects/{own}", {"config": {"restricted": "false"}})
    daemon.api.call("PATCH", f"/1.0/profiles/default?project={own}", body)
    with pytest.raises(ApiError, match=f'Conflict detected when changing "restricted".*{words}'):
        daemon.api.call("PATCH", f"/1.0/projects/{own}", {"config": {"restricted": "true"}})
    with pytest.raises(ApiError, match="snapshots creation"):
        daemon.api.call("POST", f"/1.0/instances/c1/snapshots?project={here}", {"name": "s"})


def test_disks_that_stay_where_they_may_be(
    daemon: Daemon, tiny: str, project: Make, tmp_path: Path
) -> None:
    """Neither by "..", nor by links, nor by ids that are mapped is there more than allowed."""
    ours, others = tmp_path / "ours", tmp_path / "others"
    for each in (ours, others):
        each.mkdir()
        (each / "file").write_text(each.name)
    (ours / "out").symlink_to(others)
    (ours / "in").symlink_to("file")
    here = project(features__images="false", features__profiles="false", restricted="true",
                   restricted__devices__disk="allow",
                   restricted__devices__disk__paths=f"/nowhere,{ours}")  # fmt: skip
    create(daemon, here, tiny)
    url = f"/1.0/instances/c1?project={here}"
    state = f"/1.0/instances/c1/state?project={here}"

    def shows(source: str, **more: str) -> None:
        disk = {"type": "disk", "source": source, "path": "/mnt/d", **more}
        daemon.api.call("PATCH", url, {"devices": {"d": disk}})

    for source in (str(others), f"{ours}/../others", f"{ours}x"):
        with pytest.raises(ApiError, match="not allowed"):
            shows(source)
    for source, more, words in (
        (f"{ours}/out", {}, "resolves outside of restricted parent"),
        (str(ours), {"shift": "true"}, "cannot be used with a restricted source path"),
    ):
        shows(source, **more)
        with pytest.raises(ApiError, match=words):
            daemon.api.call("PUT", state, {"action": "start"})
    shows(f"{ours}/in")
    daemon.api.call("PUT", state, {"action": "start"})
    assert run(daemon, here, "cat", "/mnt/d") == "ours"
    with pytest.raises(ApiError, match="resolves outside of restricted parent"):
        shows(f"{ours}/out")
    assert run(daemon, here, "cat", "/mnt/d") == "ours"
    shows(str(ours), path="/mnt/whole")
    assert run(daemon, here, "cat", "/mnt/whole/in") == "ours"


def test_settings_of_its_own(daemon: Daemon, tiny: str, project: Make) -> None:
    here = project(
        features__images="false", features__profiles="false",
        backups__compression_algorithm="none", images__compression_algorithm="gzip",
    )  # fmt: skip
    create(daemon, here, tiny)
    _, _, data = daemon.api.raw("GET", f"/1.0/instances/c1/export?project={here}")
    assert data[257:262] == b"ustar"
    source = {"type": "instance", "name": "c1"}
    done = daemon.api.call("POST", f"/1.0/images?project={here}", {"source": source})
    url = f"/1.0/images/{done['metadata']['fingerprint']}"
    try:
        assert daemon.api.raw("GET", f"{url}/export")[2][:2] == b"\x1f\x8b"
    finally:
        daemon.api.delete(url)


def test_networks_that_are_not_for_all(daemon: Daemon, project: Make) -> None:
    here, api = project(restricted="true"), daemon.api
    bridge = f"n-{daemon.name()}"
    none = {"ipv4.address": "none", "ipv6.address": "none"}
    api.call("POST", "/1.0/networks", {"name": bridge, "config": none})
    for config, seen in (
        ({}, {bridge}),
        ({"restricted.devices.nic": "allow"}, {bridge, "lo"}),
        ({"restricted.networks.access": "other"}, set()),
        ({"restricted.networks.access": f"other,{bridge}"}, {bridge}),
        ({"restricted.devices.nic": "block"}, set()),
        ({"restricted": "false"}, {bridge, "lo"}),
    ):
        api.call("PATCH", f"/1.0/projects/{here}", {"config": config})
        found = api.get(f"/1.0/networks?recursion=1&project={here}")
        listed = {each["name"] for each in found}
        assert listed & {bridge, "lo"} == seen
        for name in (bridge, "lo"):
            status, _, reply = api.raw("GET", f"/1.0/networks/{name}/state?project={here}")
            assert status == (200 if name in seen else 404), reply
    api.call("DELETE", f"/1.0/networks/{bridge}")


def test_life(daemon: Daemon) -> None:
    api = daemon.api
    api.call("POST", "/1.0/projects", {"name": "life", "description": "d"})
    with pytest.raises(ApiError, match="already exists"):
        api.call("POST", "/1.0/projects", {"name": "life"})
    found = api.get("/1.0/projects/life")
    assert found["config"] == {
        "features.images": "true", "features.profiles": "true", "features.storage.volumes": "true"
    }  # fmt: skip
    api.call("POST", "/1.0/projects/life", {"name": "other"})
    assert api.get("/1.0/projects/other")["description"] == "d"
    api.call("POST", "/1.0/profiles?project=other", {"name": "p"})
    with pytest.raises(ApiError, match="Only empty projects can be removed"):
        api.call("DELETE", "/1.0/projects/other")
    api.call("DELETE", "/1.0/profiles/p?project=other")
    api.call("DELETE", "/1.0/projects/other")
    for name, words in (("a/b", "Invalid project name"), ("default", "already exists")):
        with pytest.raises(ApiError, match=words):
            api.call("POST", "/1.0/projects", {"name": name})
    with pytest.raises(ApiError, match="cannot be deleted"):
        api.call("DELETE", "/1.0/projects/default")
    with pytest.raises(ApiError, match='Invalid project configuration key "bogus.key"'):
        api.call("POST", "/1.0/projects", {"name": "b", "config": {"bogus.key": "1"}})


def test_the_command_line(daemon: Daemon) -> None:
    daemon.lxpy("project", "create", "cli", "-c", "features.images=false")
    try:
        assert "cli" in daemon.lxpy("project", "list", "-f", "csv").stdout
        assert daemon.lxpy("project", "get", "cli", "features.images").stdout == "false\n"
        daemon.lxpy("project", "switch", "cli")
        assert "cli (current),NO,YES" in daemon.lxpy("project", "list", "-f", "csv").stdout
        assert daemon.lxpy("list", "-f", "csv").stdout == ""
        assert "INSTANCES,UNLIMITED,0" in daemon.lxpy("project", "info", "cli", "-f", "csv").stdout
    finally:
        daemon.lxpy("project", "switch", "default")
        daemon.lxpy("project", "delete", "cli")
