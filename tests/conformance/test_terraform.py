"""The calls of Terraform's provider for LXD, in its order: create, plan again, change, destroy.

The provider is not run: what it sends is written down here, as its documentation and Go's client
of LXD have it. Two things matter most to it: a GET returns the very strings that were sent, or
every plan shows changes; and what is gone is a 404, or nothing can be destroyed twice.

Source: documentation of the provider terraform-lxd/lxd; LXD docs, "REST API".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.api import Api, ApiError
from tests.support.tls import free_port

TOKEN = "tf-token"


@dataclass
class Resource:
    """An object that a plan has: where it is, how it is made and what changes."""

    url: str
    collection: str
    body: dict[str, Any]
    change: dict[str, Any]
    #: fields that the next plan compares
    compared: tuple[str, ...] = ("config", "description")
    #: whether LXD 5.0.2 compares If-Match
    guarded: bool = True


RESOURCES = {
    "project": Resource(
        "/1.0/projects/tf-project", "/1.0/projects",
        {"name": "tf-project", "description": "by terraform",
         "config": {"features.images": "false", "features.profiles": "false",
                    "features.storage.volumes": "true"}},
        {"config": {"limits.instances": "5"}},
    ),
    "network": Resource(
        "/1.0/networks/tfnet0", "/1.0/networks",
        {"name": "tfnet0", "type": "bridge", "description": "by terraform",
         "config": {"ipv4.address": "10.214.91.1/24", "ipv4.nat": "true", "ipv6.address": "none"}},
        {"config": {"dns.domain": "tf.test"}},
    ),
    "acl": Resource(
        "/1.0/network-acls/tf-acl", "/1.0/network-acls",
        {"name": "tf-acl", "description": "by terraform", "config": {"user.a": "b"},
         "egress": [], "ingress": [{"action": "allow", "protocol": "tcp",
                                    "destination_port": "443", "state": "enabled"}]},
        {"config": {"user.a": "c"}}, ("config", "description", "egress"), guarded=False,
    ),
    "forward": Resource(
        "/1.0/networks/tfnet0/forwards/198.51.100.7", "/1.0/networks/tfnet0/forwards",
        {"listen_address": "198.51.100.7", "description": "by terraform",
         "config": {"target_address": "10.214.91.20"}, "ports": []},
        {"description": "changed"}, ("config", "description", "ports"), guarded=False,
    ),
    "pool": Resource(
        "/1.0/storage-pools/tf-pool", "/1.0/storage-pools",
        {"name": "tf-pool", "driver": "dir", "description": "by terraform",
         "config": {"user.a": "b"}},
        {"config": {"rsync.bwlimit": "10MiB"}}, ("description",),
    ),
    "volume": Resource(
        "/1.0/storage-pools/tf-pool/volumes/custom/tf-volume",
        "/1.0/storage-pools/tf-pool/volumes/custom",
        {"name": "tf-volume", "type": "custom", "content_type": "filesystem",
         "description": "by terraform", "config": {"user.a": "b"}},
        {"config": {"user.a": "c"}}, ("config", "description", "content_type"),
    ),
    "profile": Resource(
        "/1.0/profiles/tf-profile", "/1.0/profiles",
        {"name": "tf-profile", "description": "by terraform",
         "config": {"limits.memory": "128MiB", "user.a": "true"},
         "devices": {"tfdata": {"type": "disk", "pool": "tf-pool", "source": "tf-volume",
                                "path": "/srv/data"},
                     "eth0": {"type": "nic", "network": "tfnet0", "name": "eth0"}}},
        {"config": {"user.a": "false"}}, ("config", "description", "devices"),
    ),
}  # fmt: skip
INSTANCE = "/1.0/instances/tf-web"


@pytest.fixture
def api(lxd_directory: Path, image: str) -> Api:
    return Api(lxd_directory / "unix.socket")


def gone(api: Api, url: str) -> None:
    status, _, _ = api.raw("GET", url)
    assert status == 404, f"{url}: {status}"


def create(api: Api, wanted: Resource) -> None:
    """Make one object, as the provider does: look, make, read."""
    gone(api, wanted.url)
    api.call("POST", wanted.collection, wanted.body)
    read(api, wanted, wanted.body)


def read(api: Api, wanted: Resource, body: dict[str, Any]) -> str:
    """Compare what there is with the plan; the ETag."""
    status, headers, _ = api.raw("GET", wanted.url)
    assert status == 200
    found = api.get(wanted.url)
    for name in wanted.compared:
        if name == "config":  # others may be added by the server
            assert body[name].items() <= found[name].items(), wanted.url
        else:
            assert found[name] == body[name], wanted.url
    return headers.get("etag", "")  # LXD gives some objects none


def update(api: Api, wanted: Resource) -> None:
    """Change one: GET, PUT with its ETag, read; a second plan finds nothing to do."""
    etag = read(api, wanted, wanted.body)
    found = api.get(wanted.url)
    change = dict(wanted.change)
    if "config" in change:
        change["config"] = found["config"] | change["config"]
    body = found | change
    if etag and wanted.guarded:
        with pytest.raises(ApiError, match="ETag doesn't match"):
            api.call("PUT", wanted.url, body, {"If-Match": "no-such-etag"})
    api.call("PUT", wanted.url, body, {"If-Match": etag} if etag else {})
    planned = wanted.body | change
    assert read(api, wanted, planned) == read(api, wanted, planned)


def destroy(api: Api, url: str) -> None:
    api.call("DELETE", url)
    gone(api, url)
    assert api.raw("DELETE", url)[0] == 404


def sweep(api: Api) -> None:
    """Remove what a failed test left."""
    if api.raw("GET", INSTANCE)[0] == 200:
        if api.get(INSTANCE)["status"] != "Stopped":
            api.call("PUT", f"{INSTANCE}/state", {"action": "stop", "force": True, "timeout": 10})
        api.call("DELETE", INSTANCE)
    for each in reversed(RESOURCES.values()):
        if api.raw("GET", each.url)[0] == 200:
            api.call("DELETE", each.url)


def test_the_provider_is_configured(api: Api) -> None:
    server = api.get("/1.0")
    assert (server["auth"], server["api_version"]) == ("trusted", "1.0")
    version = server["environment"]["server_version"].split(".")
    assert int(version[0]) >= 5
    assert server["environment"]["server_clustered"] is False
    needed = {"instances", "projects", "storage", "network", "network_acl", "network_forward"}
    assert needed <= set(server["api_extensions"])


def test_apply_change_destroy(api: Api, image: str) -> None:
    try:
        for each in RESOURCES.values():
            create(api, each)
        instance(api, image)
        for each in RESOURCES.values():
            update(api, each)
        in_use(api)
        destroy_instance(api)
        for each in reversed(RESOURCES.values()):
            destroy(api, each.url)
    finally:
        sweep(api)


def instance(api: Api, image: str) -> None:
    """Make an instance, wait for its address, put a file in, snapshot it, run a command."""
    gone(api, INSTANCE)
    fingerprint = api.get(f"/1.0/images/aliases/{image}")["target"]
    source = {"type": "image", "fingerprint": fingerprint, "alias": ""}
    plan = {
        "name": "tf-web", "type": "container", "source": source, "ephemeral": False,
        "profiles": ["default", "tf-profile"], "config": {"user.tf": "1", "limits.cpu": "1"},
        "devices": {}, "description": "by terraform",
    }  # fmt: skip
    api.call("POST", "/1.0/instances", plan)
    api.call("PUT", f"{INSTANCE}/state", {"action": "start", "timeout": 180, "force": False})
    found = api.get(INSTANCE)
    assert (found["status"], found["profiles"]) == ("Running", plan["profiles"])
    assert plan["config"].items() <= found["config"].items()  # type: ignore[attr-defined]
    assert found["devices"] == {} and found["expanded_devices"]["tfdata"]["pool"] == "tf-pool"
    assert set(api.get(f"{INSTANCE}/state")["network"]) >= {"eth0", "lo"}
    file = f"{INSTANCE}/files?path=/srv/data/hello"
    mode = {"X-LXD-uid": "0", "X-LXD-gid": "0", "X-LXD-mode": "0644", "X-LXD-type": "file"}
    api.call("POST", file, b"hello\n", mode)
    assert api.raw("GET", file)[2] == b"hello\n"
    command = {"command": ["cat", "/srv/data/hello"], "record-output": True}
    done = api.post(f"{INSTANCE}/exec", command)["metadata"]
    assert (done["return"], api.raw("GET", done["output"]["1"])[2]) == (0, b"hello\n")
    api.post(f"{INSTANCE}/snapshots", {"name": "tf-snap", "stateful": False})
    assert api.get(f"{INSTANCE}/snapshots/tf-snap")["name"] == "tf-snap"
    _, headers, _ = api.raw("GET", INSTANCE)
    found["config"]["limits.cpu"] = "2"
    api.call("PUT", INSTANCE, found, {"If-Match": headers["etag"]})
    assert api.get(INSTANCE)["config"]["limits.cpu"] == "2"
    assert api.get(INSTANCE)["status"] == "Running"


def in_use(api: Api) -> None:
    """What an instance needs is not removed before it: the error makes the provider stop."""
    for name in ("profile", "network", "pool", "volume"):
        status, _, _ = api.raw("DELETE", RESOURCES[name].url)
        assert status in (400, 500), name
        assert api.raw("GET", RESOURCES[name].url)[0] == 200


def destroy_instance(api: Api) -> None:
    destroy(api, f"{INSTANCE}/snapshots/tf-snap")
    destroy(api, f"{INSTANCE}/files?path=/srv/data/hello")
    api.call("PUT", f"{INSTANCE}/state", {"action": "stop", "force": True, "timeout": 180})
    destroy(api, INSTANCE)


def test_images(api: Api, image: str) -> None:
    fingerprint = api.get(f"/1.0/images/aliases/{image}")["target"]
    gone(api, "/1.0/images/aliases/tf-alias")
    alias = {"name": "tf-alias", "target": fingerprint, "description": "by terraform"}
    api.post("/1.0/images/aliases", alias)
    found = api.get("/1.0/images/aliases/tf-alias")
    assert {each: found[each] for each in alias} == alias
    destroy(api, "/1.0/images/aliases/tf-alias")


@pytest.fixture
def listening(api: Api) -> Iterator[None]:
    """A server that others can reach."""
    if api.get("/1.0")["config"].get("core.https_address"):
        yield
        return
    address = f"127.0.0.1:{free_port()}"
    api.patch("/1.0", {"config": {"core.https_address": address}})
    yield
    api.patch("/1.0", {"config": {"core.https_address": ""}})


def test_tokens(api: Api, listening: None) -> None:
    body = {"name": TOKEN, "type": "client", "token": True, "restricted": False, "projects": []}
    made = api.call("POST", "/1.0/certificates", body, wait=False)
    assert made["class"] == "token" and made["metadata"]["request"]["name"] == TOKEN
    listed = api.get("/1.0/operations?recursion=1")["running"]
    assert made["id"] in {each["id"] for each in listed}
    api.call("DELETE", f"/1.0/operations/{made['id']}")
