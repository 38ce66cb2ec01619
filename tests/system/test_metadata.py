"""What instances keep of their images' metadata, and their templates."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml

from tests.support.api import ApiError
from tests.support.daemon import Daemon
from tests.support.fixtures import Launch, change
from tests.support.websocket import WebSocket


def metadata(daemon: Daemon, name: str) -> dict[str, Any]:
    return daemon.api.get(f"/1.0/instances/{name}/metadata")  # type: ignore[no-any-return]


def template(name: str, file: str) -> str:
    return f"/1.0/instances/{name}/metadata/templates?path={quote(file, safe='')}"


def put(daemon: Daemon, name: str, file: str, text: str) -> None:
    headers = {"Content-Type": "application/octet-stream"}
    daemon.api.call("POST", template(name, file), text.encode(), headers)


def add(daemon: Daemon, name: str, path: str, text: str, **options: Any) -> None:
    """Give an instance one more template."""
    file = path.rsplit("/", 1)[-1] + ".tpl"
    put(daemon, name, file, text)
    entry = {"when": ["start"], "create_only": False, "template": file, "properties": {}}
    body = {"templates": {path: entry | options}}
    daemon.api.patch(f"/1.0/instances/{name}/metadata", body)


def test_metadata_are_read_replaced_and_merged(daemon: Daemon, launch: Launch) -> None:
    name = launch(start=False)
    path = f"/1.0/instances/{name}/metadata"
    before = metadata(daemon, name)
    assert before["properties"]["os"] == "Busybox" and before["creation_date"] > 0
    assert before["templates"]["/etc/hostname"]["template"] == "hostname.tpl"
    daemon.api.patch(path, {"properties": {"mine": "yes"}})
    assert metadata(daemon, name)["properties"] == {**before["properties"], "mine": "yes"}
    old = daemon.api.raw("GET", path)[1]["etag"]
    daemon.api.put(path, {"architecture": "x86_64", "creation_date": 1})
    found = metadata(daemon, name)
    assert found["creation_date"] == 1 and found["templates"] == {} == found["properties"]
    with pytest.raises(ApiError, match="ETag"):
        daemon.api.call("PUT", path, {}, {"If-Match": old})
    for wrong in ({"templates": {"etc/x": {"template": "a"}}},
                  {"templates": {"/etc/x": {"template": "../a"}}}):  # fmt: skip
        with pytest.raises(ApiError, match="Invalid") as refused:
            daemon.api.put(path, wrong)
        assert refused.value.status == 400
    assert metadata(daemon, name) == found
    daemon.api.put(path, {})
    change(daemon, name, "start")  # without an architecture or a date it still starts
    change(daemon, name, "stop")
    body = {"source": {"type": "instance", "name": name}}
    image = daemon.api.post("/1.0/images", body)["metadata"]["fingerprint"]
    assert daemon.api.get(f"/1.0/images/{image}")["architecture"] == os.uname().machine
    daemon.api.delete(f"/1.0/images/{image}")


def test_the_image_and_its_other_instances_keep_theirs(daemon: Daemon, launch: Launch) -> None:
    one, other = launch(start=False), launch(start=False)
    before = metadata(daemon, other)
    add(daemon, one, "/etc/added", "{{ instance.name }}\n")
    assert metadata(daemon, other) == before
    assert daemon.api.get(f"/1.0/instances/{other}/metadata/templates") == [
        "hostname.tpl", "hosts.tpl",
    ]  # fmt: skip
    third = launch()
    assert daemon.exec(third, "cat", "/etc/added", check=False).returncode
    # A copy and a snapshot have those of their source.
    daemon.api.post(f"/1.0/instances/{one}/snapshots", {"name": "s"})
    copy = daemon.name()
    daemon.api.post("/1.0/instances", {"name": copy, "source": {"type": "copy", "source": one}})
    assert metadata(daemon, copy) == metadata(daemon, one) != before
    daemon.api.put(f"/1.0/instances/{one}/metadata", {})
    daemon.api.put(f"/1.0/instances/{one}", {"restore": "s"})
    assert metadata(daemon, one) == metadata(daemon, copy)


def test_templates_are_rendered_at_their_triggers(daemon: Daemon, launch: Launch) -> None:
    name = launch(start=False)
    when = "{{ trigger }} {{ properties.p }} {{ config_get('user.k', 'none') }} {{ path }}"
    for trigger in ("create", "copy", "rename", "start"):
        add(daemon, name, f"/etc/at-{trigger}", when, when=[trigger], properties={"p": "x"})
    add(daemon, name, "/etc/once", when, create_only=True, properties={"p": "x"})

    def seen() -> dict[str, str]:
        files = ("at-create", "at-copy", "at-rename", "at-start", "once")
        return {
            each: daemon.exec(name, "cat", f"/etc/{each}", check=False).stdout for each in files
        }

    change(daemon, name, "start")
    assert seen() == {
        "at-create": "create x none /etc/at-create", "at-copy": "", "at-rename": "",
        "at-start": "start x none /etc/at-start", "once": "start x none /etc/once",
    }  # fmt: skip
    daemon.api.patch(f"/1.0/instances/{name}", {"config": {"user.k": "v"}})
    change(daemon, name, "restart", force=True)
    assert seen()["at-start"] == "start x v /etc/at-start"
    assert seen()["once"] == "start x none /etc/once"
    change(daemon, name, "stop")
    new = daemon.name()
    daemon.api.post(f"/1.0/instances/{name}", {"name": new})
    copy = daemon.name()
    daemon.api.post("/1.0/instances", {"name": copy, "source": {"type": "copy", "source": new}})
    name = new
    change(daemon, name, "start")
    assert seen()["at-rename"] == "rename x v /etc/at-rename" and not seen()["at-copy"]
    assert daemon.out(name, "cat", "/etc/at-create") == "create x none /etc/at-create"
    name = copy
    change(daemon, name, "start")
    assert seen()["at-copy"] == "copy x v /etc/at-copy"


def test_names_of_templates_are_checked(daemon: Daemon, launch: Launch) -> None:
    name = launch(start=False)
    put(daemon, name, "a.tpl", "{{ x }}")
    put(daemon, name, "a.tpl", "é")
    assert daemon.api.raw("GET", template(name, "a.tpl"))[2].decode() == "é"
    daemon.api.delete(template(name, "a.tpl"))
    for method, path, status, text in (
        ("GET", template(name, "a.tpl"), 404, 'Template "a.tpl" not found'),
        ("DELETE", template(name, "a.tpl"), 404, 'Template "a.tpl" not found'),
        ("GET", template(name, "../metadata.yaml"), 400, "Invalid template filename"),
        ("POST", template(name, "sub/a.tpl"), 400, "Invalid template filename"),
        ("POST", template(name, ".."), 400, "Invalid template filename"),
        ("POST", template(name, "a\nb"), 400, "Invalid template filename"),
        ("POST", f"/1.0/instances/{name}/metadata/templates", 400, "missing path argument"),
        ("DELETE", f"/1.0/instances/{name}/metadata/templates", 400, "missing path argument"),
        ("GET", "/1.0/instances/nope/metadata", 404, "Instance not found"),
        ("POST", template("nope", "a"), 404, "Instance not found"),
    ):
        with pytest.raises(ApiError) as refused:
            daemon.api.call(method, path, b"x" if method == "POST" else None)
        assert str(refused.value) == f"{status}: {text}", (method, path)


def test_links_of_an_image_lead_nowhere(daemon: Daemon, launch: Launch, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of the host")
    name = launch(start=False)
    put(daemon, name, "a.tpl", "mine")
    place = daemon.directory / "storage-pools/default/containers" / name / "templates"
    (place / "evil.tpl").symlink_to(secret)
    status, _, data = daemon.api.raw("GET", template(name, "evil.tpl"))
    assert status == 500 and b"no plain file" in data
    put(daemon, name, "evil.tpl", "replaced")
    assert secret.read_text() == "of the host"
    assert daemon.api.raw("GET", template(name, "evil.tpl"))[2] == b"replaced"


def test_a_template_that_cannot_be_rendered_keeps_it_from_starting(
    daemon: Daemon, launch: Launch
) -> None:
    name = launch(start=False)
    add(daemon, name, "/etc/x", "{% if %}")
    with pytest.raises(ApiError, match="Failed to render template"):
        change(daemon, name, "start")
    daemon.api.delete(template(name, "x.tpl"))
    with pytest.raises(ApiError, match="no such file in templates"):
        change(daemon, name, "start")
    put(daemon, name, "x.tpl", "{% if true %}yes{% endif %}")
    change(daemon, name, "start")
    assert daemon.out(name, "cat", "/etc/x") == "yes"


def test_the_command_line(daemon: Daemon, launch: Launch) -> None:
    name = launch(start=False)
    shown = yaml.safe_load(daemon.lxpy("config", "metadata", "show", name).stdout)
    assert shown == metadata(daemon, name)
    shown["properties"]["k"] = "v"
    daemon.lxpy("config", "metadata", "edit", name, input=yaml.safe_dump(shown))
    assert metadata(daemon, name)["properties"]["k"] == "v"
    daemon.lxpy("config", "template", "create", name, "t.tpl")
    daemon.lxpy("config", "template", "edit", name, "t.tpl", input="{{ container.name }}\n")
    assert daemon.lxpy("config", "template", "show", name, "t.tpl").stdout == (
        "{{ container.name }}\n"
    )
    listed = daemon.lxpy("config", "template", "list", name, "-f", "csv").stdout.split()
    assert listed == ["hostname.tpl", "hosts.tpl", "t.tpl"]
    assert "|   FILENAME   |" in daemon.lxpy("config", "template", "list", name).stdout
    daemon.lxpy("config", "template", "delete", name, "t.tpl")
    gone = daemon.lxpy("config", "template", "show", name, "t.tpl", check=False)
    assert gone.returncode == 1 and 'Template "t.tpl" not found' in gone.stderr


def test_events(daemon: Daemon, launch: Launch) -> None:
    name = launch(start=False)
    wanted = [
        "instance-metadata-template-created", "instance-metadata-template-retrieved",
        "instance-metadata-template-deleted", "instance-metadata-retrieved",
        "instance-metadata-updated",
    ]  # fmt: skip
    with WebSocket(Path(daemon.socket), "/1.0/events?type=lifecycle") as socket:
        put(daemon, name, "a.tpl", "x")
        daemon.api.raw("GET", template(name, "a.tpl"))
        daemon.api.delete(template(name, "a.tpl"))
        metadata(daemon, name)
        daemon.api.put(f"/1.0/instances/{name}/metadata", {})
        seen = [json.loads(socket.receive())["metadata"]["action"] for _ in wanted]
    assert seen == wanted
