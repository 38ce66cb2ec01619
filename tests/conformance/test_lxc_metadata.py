"""LXD's client: metadata and templates, what cloud-init goes by, logs."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import yaml

from tests.conformance.conftest import Lxc


@pytest.fixture
def made(lxc: Lxc, image: str) -> Iterator[str]:
    lxc("init", image, "meta")
    yield "meta"
    lxc.run("delete", "--force", "meta")
    lxc.run("delete", "--force", "meta2")


def test_metadata(lxc: Lxc, made: str) -> None:
    found = yaml.safe_load(lxc("config", "metadata", "show", made))
    assert set(found) == {
        "architecture", "creation_date", "expiry_date", "properties", "templates",
    }  # fmt: skip
    found["properties"]["k"] = "v"
    found["templates"]["/etc/made"] = {
        "when": ["start"], "create_only": False, "template": "made.tpl", "properties": {"p": "q"},
    }  # fmt: skip
    lxc("config", "metadata", "edit", made, input=yaml.safe_dump(found))
    assert yaml.safe_load(lxc("config", "metadata", "show", made)) == found
    lxc("config", "template", "create", made, "made.tpl")
    text = "{{ container.name }} {{ properties.p }} {{ config_get('user.x', 'none') }}\n"
    lxc("config", "template", "edit", made, "made.tpl", input=text)
    assert lxc("config", "template", "show", made, "made.tpl") == text
    assert "made.tpl" in lxc("config", "template", "list", made, "-f", "csv").split()
    lxc("start", made)
    # pongo2 leaves out a newline at the end of a file; both are the file that was wanted.
    assert lxc("exec", made, "--", "cat", "/etc/made").strip() == f"{made} q none"
    lxc("config", "template", "delete", made, "made.tpl")
    gone = lxc.run("config", "template", "show", made, "made.tpl")
    assert gone.returncode == 1 and 'Template "made.tpl" not found' in gone.stderr


def test_the_id_that_cloud_init_goes_by(lxc: Lxc, made: str) -> None:
    seen: list[str] = []

    def is_new(name: str = made) -> bool:
        found = lxc("config", "get", name, "volatile.cloud-init.instance-id").strip()
        assert len(found) == 36
        seen.append(found)
        return found not in seen[:-1]

    assert is_new()
    for key, value, anew in (
        ("user.foo", "x", False),
        ("user.user-data", "x", True),
        ("user.meta-data", "x", False),
        ("cloud-init.user-data", "#cloud-config\n{}", True),
        ("cloud-init.vendor-data", "#cloud-config\n{}", True),
        ("limits.processes", "99", False),
    ):
        lxc("config", "set", made, key, value)
        assert is_new() is anew, key
    lxc("config", "unset", made, "user.user-data")
    assert is_new()
    lxc("config", "device", "add", made, "extra", "nic", "nictype=p2p", "name=eth7")
    assert is_new()
    lxc("config", "device", "set", made, "extra", "name=eth8")
    assert is_new()
    lxc("config", "device", "remove", made, "extra")
    assert is_new()
    lxc("move", made, "meta2")
    assert is_new("meta2")
    lxc("copy", "meta2", made)
    assert is_new(made)
    lxc("snapshot", "meta2", "s")
    lxc("restore", "meta2", "s")
    assert not is_new("meta2")


def test_logs(lxc: Lxc, made: str) -> None:
    lxc("start", made)
    logs = json.loads(lxc("query", f"/1.0/instances/{made}/logs"))
    for file in ("lxc.log", "lxc.conf"):
        assert f"/1.0/instances/{made}/logs/{file}" in logs
    assert "\nLog:\n" in lxc("info", made, "--show-log")
    for method, file, words in (
        ("DELETE", "lxc.conf", "lxc.log and lxc.conf may not be deleted"),
        ("GET", "passwd", "log file name passwd not valid"),
    ):
        refused = lxc.run("query", "-X", method, f"/1.0/instances/{made}/logs/{file}")
        assert refused.returncode == 1 and words in refused.stderr
