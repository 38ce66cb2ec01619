"""LXD's client: server, profiles, networks, storage pools, operations."""

from __future__ import annotations

import json
import subprocess

from tests.conformance.conftest import Lxc


def test_version_and_info(lxc: Lxc) -> None:
    assert "Server version: " in lxc("version")
    text = lxc("info")
    assert 'api_version: "1.0"' in text and "auth: trusted" in text


def test_query(lxc: Lxc) -> None:
    assert lxc.query("/") == ["/1.0"]
    assert lxc.query("/1.0")["auth"] == "trusted"
    raw = json.loads(lxc("query", "--raw", "/1.0"))
    assert (raw["type"], raw["status"], raw["status_code"]) == ("sync", "Success", 200)
    lxc.refused("query", "-X", "POST", "-d", "{not json", "/1.0/profiles")


def test_profiles(lxc: Lxc) -> None:
    lxc("profile", "create", "some")
    try:
        lxc("profile", "set", "some", "limits.memory=128MiB")
        assert lxc("profile", "get", "some", "limits.memory").strip() == "128MiB"
        lxc("profile", "device", "add", "some", "eth9", "none")
        assert lxc("profile", "device", "list", "some").split() == ["eth9"]
        text = lxc("profile", "show", "some")
        lxc("profile", "edit", "some", input=text.replace("128MiB", "256MiB"))
        assert "256MiB" in lxc("profile", "show", "some")
        lxc("profile", "copy", "some", "same")
        lxc("profile", "rename", "same", "other")
        assert {"default", "some", "other"} <= {
            line.split(",")[0] for line in lxc("profile", "list", "-f", "csv").splitlines()
        }
        lxc("profile", "delete", "other")
        assert "already exists" in lxc.refused("profile", "create", "some")
    finally:
        lxc("profile", "delete", "some")
    assert "default" in lxc.refused("profile", "delete", "default")


def test_profile_of_an_instance(lxc: Lxc, image: str) -> None:
    lxc("profile", "create", "extra")
    lxc("profile", "set", "extra", "user.from=profile")
    try:
        lxc("init", image, "dressed", "-p", "default", "-p", "extra")
        assert "user.from: profile" in lxc("config", "show", "--expanded", "dressed")
        lxc.refused("profile", "delete", "extra")
        lxc("profile", "remove", "dressed", "extra")
        assert "user.from" not in lxc("config", "show", "--expanded", "dressed")
        lxc("profile", "add", "dressed", "extra")
    finally:
        lxc.run("delete", "--force", "dressed")
        lxc("profile", "delete", "extra")


def test_networks(lxc: Lxc) -> None:
    name = "lxconf0"
    lxc("network", "create", name, "ipv4.address=10.213.7.1/24", "ipv6.address=none")
    try:
        assert lxc("network", "get", name, "ipv4.address").strip() == "10.213.7.1/24"
        assert f"{name},bridge,YES" in lxc("network", "list", "-f", "csv")
        assert "10.213.7.1" in lxc("network", "info", name)
        lxc("network", "set", name, "ipv4.nat=false")
        assert "already exists" in lxc.refused("network", "create", name)
        lxc.refused("network", "set", name, "no.such.key=1")
    finally:
        lxc("network", "delete", name)
    assert subprocess.run(["ip", "link", "show", name], capture_output=True).returncode != 0


def test_network_in_use(lxc: Lxc, image: str) -> None:
    name = "lxconf1"
    lxc("network", "create", name, "ipv4.address=10.213.8.1/24", "ipv6.address=none")
    try:
        lxc("launch", image, "wired", "-n", name)
        assert "in use" in lxc.refused("network", "delete", name)
        assert "wired" in lxc("network", "show", name)
    finally:
        lxc.run("delete", "--force", "wired")
        lxc("network", "delete", name)


def test_storage(lxc: Lxc, image: str) -> None:
    lxc("storage", "create", "aside", "dir")
    try:
        assert "aside,dir" in lxc("storage", "list", "-f", "csv")
        assert "space used" in lxc("storage", "info", "aside")
        lxc("init", image, "stored", "-s", "aside")
        assert "in use" in lxc.refused("storage", "delete", "aside")
        lxc("start", "stored")
        lxc("delete", "--force", "stored")
    finally:
        lxc.run("delete", "--force", "stored")
        lxc.run("query", "-X", "DELETE", "/1.0/storage-pools/aside")
    assert "aside" not in lxc("storage", "list", "-f", "csv")


def test_operations(lxc: Lxc) -> None:
    assert lxc("operation", "list", "-f", "json").strip().startswith("[")
    assert "not found" in lxc.refused("operation", "show", "no-such").lower()
