"""From a backup's description to an instance: what is kept, what is made anew."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from lxpy.backups.index import Index
from lxpy.errors import Failed
from lxpy.instances.model import Profile
from lxpy.services.backups import arrivals

ROOT = {"type": "disk", "path": "/", "pool": "default"}
CONFIG = {
    "user.x": "1",
    "volatile.uuid": "u-1",
    "volatile.eth0.hwaddr": "00:16:3e:00:00:01",
    "volatile.eth0.host_name": "veth1",
    "volatile.idmap.base": "0",
    "volatile.last_state.idmap": "[]",
    "volatile.last_state.power": "RUNNING",
    "volatile.cloud-init.instance-id": "i-1",
}


def index(**fields: Any) -> Index:
    container = {"config": CONFIG, "profiles": ["default"], "devices": None, **fields}
    snapshot = {"name": "s0", "created_at": "2026-01-02T03:04:05.678901Z", "config": {"a": True},
                "expanded_config": {"a": "true", "b": 2}, "expanded_devices": {"root": ROOT},
                "expires_at": "0001-01-01T00:00:00Z", "profiles": None}  # fmt: skip
    return Index("c1", "default", "dir", snapshots=["s0"],
                 config={"container": container, "snapshots": [snapshot]})  # fmt: skip


def test_what_belongs_to_another_host_stays_there() -> None:
    found = arrivals.described(index(created_at="2026-01-01T00:00:00Z"), "default", "c2")
    assert found.instance.config == {
        key: CONFIG[key]
        for key in ("user.x", "volatile.uuid", "volatile.eth0.hwaddr",
                    "volatile.cloud-init.instance-id")
    }  # fmt: skip
    assert (found.instance.name, found.profiles) == ("c2", ("default",))
    assert found.instance.created_at == datetime(2026, 1, 1, tzinfo=UTC)
    (snapshot,) = found.snapshots
    assert snapshot.created_at == datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    assert snapshot.expires_at is None
    assert (snapshot.config, snapshot.inherited_config) == ({"a": "true"}, {"b": "2"})
    moved = arrivals.snapshot_on_pool(snapshot, "other")
    assert moved.devices == {"root": {**ROOT, "pool": "other"}}
    assert arrivals.snapshot_on_pool(snapshot, "default") is snapshot


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"config": []}, "the instance's config is no mapping"),
        ({"devices": {"root": "x"}}, 'devices "root" is no mapping'),
        ({"profiles": "default"}, "list of profiles"),
        ({"architecture": "s390x"}, "isn't supported by this host"),
    ],
)
def test_a_wrong_description_is_refused(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(Failed, match=text):
        arrivals.described(index(**fields), "default", "c1")


def test_without_a_description_there_is_no_instance() -> None:
    with pytest.raises(Failed, match="does not describe its instance"):
        arrivals.described(replace(index(), config={}), "default", "c1")
    with pytest.raises(Failed, match='does not describe its snapshot "s1"'):
        arrivals.described(replace(index(), snapshots=["s1"]), "default", "c1")


def test_beside_its_original_it_gets_ids_of_its_own() -> None:
    instance = arrivals.described(index(), "default", "c1").instance
    assert arrivals.completed(instance, [], renamed=False).config == instance.config
    other = replace(instance, config={"volatile.net.hwaddr": CONFIG["volatile.eth0.hwaddr"],
                                      "volatile.uuid": "u-1"})  # fmt: skip
    left = arrivals.completed(instance, [other], renamed=True).config
    assert left == {"user.x": "1"}


def test_templates_are_due_as_they_were_or_for_a_new_name() -> None:
    made = {"volatile.apply_template": "copy", "volatile.uuid": "new"}
    assert arrivals.kept({}, made, renamed=False) == {"volatile.uuid": "new"}
    assert arrivals.kept({"volatile.uuid": "old"}, made, renamed=True) == {
        "volatile.uuid": "old",
        "volatile.apply_template": "copy",
    }
    pending = {"volatile.apply_template": "create"}
    assert arrivals.kept(pending, made, renamed=True)["volatile.apply_template"] == "create"


def test_the_root_disk_is_put_on_the_pool() -> None:
    instance = arrivals.described(index(), "default", "c1").instance
    profile = Profile("default", devices={"root": ROOT})
    assert arrivals.on_pool(instance, [profile], "default").devices == {}
    moved = arrivals.on_pool(instance, [profile], "fast")
    assert moved.root_device == ("root", {**ROOT, "pool": "fast"})
    assert arrivals.on_pool(instance, [], "fast").root_device[1]["pool"] == "fast"
