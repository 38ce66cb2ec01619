"""Publishing: images from stopped instances and snapshots."""

from __future__ import annotations

import pytest

from tests.support.api import ApiError
from tests.support.daemon import Daemon
from tests.support.fixtures import Launch, change


def publish(daemon: Daemon, name: str, **fields: object) -> dict[str, str]:
    kind = "snapshot" if "/" in name else "instance"
    body = {"source": {"type": kind, "name": name}, **fields}
    done = daemon.api.post("/1.0/images", body)
    return dict(done["metadata"])


def test_an_instance_becomes_an_image(daemon: Daemon, launch: Launch) -> None:
    name = launch()
    daemon.exec(name, "sh", "-c", "echo mine >/root/file; ln /root/file /root/other; "
                "chown 1000:1000 /root/file; mkfifo /root/pipe")  # fmt: skip
    change(daemon, name, "stop")
    made = publish(daemon, name, properties={"os": "Own"}, aliases=[{"name": "own"}], public=True)
    found = daemon.api.get(f"/1.0/images/{made['fingerprint']}")
    assert (found["size"], found["public"]) == (int(made["size"]), True)
    assert found["properties"] == {"os": "Own"}
    assert found["filename"] == f"{name}.tar.zst"
    second = launch("own")
    assert daemon.out(second, "stat", "-c", "%u %h", "/root/file") == "1000 2"
    assert daemon.out(second, "cat", "/root/other", "/etc/hostname") == f"mine\n{second}"
    daemon.delete(second)
    daemon.api.delete(f"/1.0/images/{made['fingerprint']}")


def test_a_running_instance_is_refused(daemon: Daemon, launch: Launch) -> None:
    name = launch()
    with pytest.raises(ApiError, match="Cannot export a running instance as an image"):
        publish(daemon, name)
    refused = daemon.lxpy("publish", name, check=False)
    assert refused.returncode == 1
    assert "currently running. Use --force" in refused.stderr
    images = daemon.api.get("/1.0/images")
    done = daemon.lxpy("publish", name, "--force", "--alias", "forced", "--compression", "none")
    assert daemon.status(name) == "Running"
    mark = done.stdout.split()[-1]
    assert len(daemon.api.get("/1.0/images")) == len(images) + 1
    # The same name again: the image it had goes.
    change(daemon, name, "stop")
    daemon.lxpy("publish", name, "--alias", "forced", "--reuse", "os=Again")
    found = daemon.api.get("/1.0/images/aliases/forced")["target"]
    assert found != mark
    assert f"/1.0/images/{mark}" not in daemon.api.get("/1.0/images")
    daemon.api.delete(f"/1.0/images/{found}")


def test_what_cannot_be_published(daemon: Daemon, launch: Launch) -> None:
    name = launch(start=False)
    for fields, text in (
        ({"name": "nobody"}, "Instance not found"),
        ({"name": f"{name}/none"}, "InstanceSnapshot not found"),
        ({"name": name, "compression_algorithm": "zip"}, "Invalid compression algorithm"),
    ):
        source = {"type": "snapshot" if "/" in fields["name"] else "instance"}
        source["name"] = fields.pop("name")
        with pytest.raises(ApiError, match=text):
            daemon.api.post("/1.0/images", {"source": source, **fields})
