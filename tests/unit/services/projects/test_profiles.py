"""Profiles: what clients may make of them, and what that means for instances."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from lxpy import profiles as built_in
from lxpy.api import profiles as api
from lxpy.db import instances as instance_queries
from lxpy.db.base import now
from lxpy.db.engine import Database
from lxpy.db.rows import InstanceRow
from lxpy.db.upgrade import upgrade
from lxpy.errors import (
    BadRequest,
    Conflict,
    Failed,
    Forbidden,
    InvalidConfig,
    NotFound,
    PreconditionFailed,
)
from lxpy.events.bus import Bus
from lxpy.events.lifecycle import Lifecycle
from lxpy.services.projects.profiles import Profiles
from lxpy.services.projects.scopes import Scopes

BUILT_IN = built_in.names()
ROOT = {"root": {"type": "disk", "path": "/", "pool": "default"}}


def anything(_: object) -> None:
    """Accept every version."""


@pytest.fixture
def opened(tmp_path: Path) -> Database:
    upgrade(tmp_path / "lxpy.db")
    return Database(f"sqlite+aiosqlite:///{tmp_path / 'lxpy.db'}")


@pytest.fixture
async def db(opened: Database) -> AsyncIterator[Database]:
    yield opened
    await opened.close()


@pytest.fixture
async def profiles(db: Database) -> Profiles:
    made = Profiles(db, Scopes(db), Lifecycle(Bus()))
    await made.ensure_default("default", "lxpybr0")
    return made


async def an_instance(db: Database, *profiles: str, **columns: Any) -> None:
    values = {"name": "c1", "config": {}, "devices": {}, **columns}
    async with db.write() as session:
        row = InstanceRow(project="default", architecture="x86_64", created_at=now(), **values)
        session.add(row)
        await session.flush()
        await instance_queries.assign(session, row, "default", profiles)


async def test_the_first_start_makes_the_built_in_ones(profiles: Profiles) -> None:
    found = {each.name: each for each in await profiles.list("default")}
    assert list(found) == BUILT_IN
    assert found["default"].devices["root"]["pool"] == "default"
    assert found["default"].devices["eth0"]["network"] == "lxpybr0"


async def test_later_starts_leave_them_alone(profiles: Profiles) -> None:
    await profiles.delete("default", "docker")
    await profiles.put("default", "default", api.ProfilePut(description="mine"), anything)
    await profiles.ensure_default("other", "other0")
    found = {each.name: each for each in await profiles.list("default")}
    assert "docker" not in found and found["default"].description == "mine"


async def test_profiles_come_in_the_order_asked_for(profiles: Profiles) -> None:
    found = await profiles.profiles("default", ["vps-small", "default"])
    assert [each.name for each in found] == ["vps-small", "default"]
    assert await profiles.profiles("default", []) == []
    with pytest.raises(NotFound, match='Requested profile "nope" doesn\'t exist'):
        await profiles.profiles("default", ["default", "nope"])
    with pytest.raises(BadRequest, match='"default" is given twice'):
        await profiles.profiles("default", ["default", "default"])


async def test_create(profiles: Profiles) -> None:
    config = {"limits.memory": "1GiB", "user.empty": ""}
    await profiles.create("default", api.ProfilesPost(name="p", config=config, devices=ROOT))
    found, writable = await profiles.get("default", "p")
    assert found.config == {"limits.memory": "1GiB"} and found.devices == ROOT
    assert writable == [found.config, "", ROOT]
    with pytest.raises(Failed, match='Error inserting "p".*The profile already exists'):
        await profiles.create("default", api.ProfilesPost(name="p"))


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"name": ""}, "Name is required"),
        ({"name": "a/b"}, 'Cannot contain "/"'),
        ({"name": ".."}, 'Cannot be ".."'),
        ({"name": "p", "config": {"bogus": "1"}}, "Unknown configuration key: bogus"),
        ({"name": "p", "config": {"limits.cpu": "x"}}, "Invalid CPU limit syntax"),
        ({"name": "p", "config": {"volatile.x.hwaddr": "00:16:3e:00:00:01"}}, "only be set on"),
        ({"name": "p", "devices": {"d": {"type": "bogus"}}}, "Unsupported device type"),
    ],
)
async def test_what_is_refused(profiles: Profiles, wish: dict[str, Any], words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        await profiles.create("default", api.ProfilesPost(**wish))
    assert "p" not in {each.name for each in await profiles.list("default")}


async def test_another_project_is_not_there(profiles: Profiles) -> None:
    assert await profiles.list("other") == []
    with pytest.raises(NotFound, match="Project not found"):
        await profiles.create("other", api.ProfilesPost(name="p"))
    with pytest.raises(NotFound, match="Profile not found"):
        await profiles.get("other", "default")


async def test_patch_merges(profiles: Profiles) -> None:
    await profiles.create(
        "default",
        api.ProfilesPost(name="p", description="x", config={"user.a": "1", "user.b": "2"}),
    )
    wish = api.ProfilePatch(config={"user.a": "", "user.c": "3"}, devices=ROOT)
    await profiles.patch("default", "p", wish, anything)
    found, _ = await profiles.get("default", "p")
    assert found.config == {"user.b": "2", "user.c": "3"}
    assert (found.description, found.devices) == ("x", ROOT)


async def test_a_stale_version_changes_nothing(profiles: Profiles) -> None:
    def stale(_: object) -> None:
        raise PreconditionFailed("ETag doesn't match")

    with pytest.raises(PreconditionFailed):
        await profiles.put("default", "default", api.ProfilePut(description="x"), stale)
    assert (await profiles.get("default", "default"))[0].description != "x"


async def test_changes_at_the_same_time_are_both_kept(profiles: Profiles) -> None:
    wishes = [api.ProfilePatch(config={f"user.{number}": "x"}) for number in range(20)]
    await asyncio.gather(*(profiles.patch("default", "docker", each, anything) for each in wishes))
    assert len((await profiles.get("default", "docker"))[0].config) == 21


async def test_users_hear_of_changes(db: Database, profiles: Profiles) -> None:
    heard: list[tuple[str, str]] = []

    async def hear(project: str, name: str) -> None:
        heard.append((project, name))

    profiles.on_change = hear
    await an_instance(db, "default")
    await profiles.patch("default", "default", api.ProfilePatch(description="x"), anything)
    assert heard == [("default", "default")]
    assert (await profiles.get("default", "default"))[0].used_by == ["/1.0/instances/c1"]


async def test_a_change_that_a_user_cannot_live_with_is_refused(
    db: Database, profiles: Profiles
) -> None:
    await an_instance(db, "default")
    moved = {"root": {"type": "disk", "path": "/", "pool": "elsewhere"}}
    for devices, words in (({}, "No root device"), (moved, "another storage pool")):
        with pytest.raises(BadRequest, match=f'Instance "c1" uses this profile.*{words}'):
            await profiles.put("default", "default", api.ProfilePut(devices=devices), anything)
    assert "root" in (await profiles.get("default", "default"))[0].devices


async def test_a_user_with_its_own_root_disk_does_not_mind(
    db: Database, profiles: Profiles
) -> None:
    await an_instance(db, "default", devices=ROOT)
    await profiles.put("default", "default", api.ProfilePut(), anything)


async def test_rename(db: Database, profiles: Profiles) -> None:
    heard: list[str] = []

    async def hear(_: str, name: str) -> None:
        heard.append(name)

    profiles.on_change = hear
    await an_instance(db, "default", "docker")
    await profiles.rename("default", "docker", "podman")
    found, _ = await profiles.get("default", "podman")
    assert found.used_by == ["/1.0/instances/c1"] and heard == ["docker"]
    with pytest.raises(Conflict, match='Name "vps-small" already in use'):
        await profiles.rename("default", "podman", "vps-small")
    with pytest.raises(Forbidden, match="cannot be renamed"):
        await profiles.rename("default", "default", "x")
    with pytest.raises(NotFound, match="Profile not found"):
        await profiles.rename("default", "docker", "x")


async def test_delete(db: Database, profiles: Profiles) -> None:
    await an_instance(db, "default", "docker")
    with pytest.raises(Failed, match='Profile is currently in use: remove "docker" from "c1"'):
        await profiles.delete("default", "docker")
    with pytest.raises(Forbidden, match="cannot be deleted"):
        await profiles.delete("default", "default")
    await profiles.delete("default", "vps-small")
    with pytest.raises(NotFound):
        await profiles.get("default", "vps-small")


def test_errors_have_the_right_status() -> None:
    assert InvalidConfig("").status == 400 and Failed("").status == 500
