"""Logs of instances, and what they were started with."""

from __future__ import annotations

import pytest

from tests.support.api import ApiError
from tests.support.daemon import Daemon
from tests.support.fixtures import Launch


def test_logs_are_listed_read_and_removed(daemon: Daemon, launch: Launch) -> None:
    name = launch(config={"limits.kernel.core": "0:5", "environment.FOO": "bar"})
    base = f"/1.0/instances/{name}/logs"
    daemon.lxpy("query", "--wait", "-X", "POST", f"/1.0/instances/{name}/exec", "-d",
                '{"command": ["echo", "recorded"], "record-output": true}')  # fmt: skip
    listed = {url.removeprefix(f"{base}/") for url in daemon.api.get(base)}
    assert {"lxc.log", "lxc.conf", "console.log"} <= listed
    recorded = next(each for each in listed if each.endswith(".stdout"))
    assert daemon.api.raw("GET", f"{base}/{recorded}")[2] == b"recorded\n"
    status, headers, data = daemon.api.raw("GET", f"{base}/lxc.conf")
    assert status == 200 and headers["content-disposition"] == "inline;filename=lxc.conf"
    text = data.decode()
    assert "lxc.prlimit.core = 0:5\n" in text and "lxc.environment = FOO=bar\n" in text
    ids = daemon.api.get(f"/1.0/instances/{name}")["config"]["volatile.idmap.base"]
    assert f"lxc.idmap = u 0 {ids} 65536\n" in text
    daemon.api.delete(f"{base}/{recorded}")
    for method, file, status, words in (
        ("GET", recorded, 404, "not found"),
        ("DELETE", recorded, 404, "not found"),
        ("DELETE", "lxc.log", 400, "lxc.log and lxc.conf may not be deleted"),
        ("DELETE", "lxc.conf", 400, "lxc.log and lxc.conf may not be deleted"),
        ("GET", "passwd", 400, "log file name passwd not valid"),
        ("GET", "..%2fc1", 400, "not valid"),
        ("GET", "exec_..%2f..%2fx", 400, "not valid"),
    ):
        with pytest.raises(ApiError, match=words) as refused:
            daemon.api.call(method, f"{base}/{file}")
        assert refused.value.status == status
    shown = daemon.lxpy("info", name, "--show-log").stdout
    assert f"start of {name}" in shown.partition("\nLog:\n")[2]
