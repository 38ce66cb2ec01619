"""Backups in a bucket: sent and fetched as streams, by a real server of the S3 protocol."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.api import ApiError
from tests.support.daemon import Daemon
from tests.support.fixtures import Launch
from tests.support.processes import wait_until

boto3 = pytest.importorskip("boto3", reason="needs boto3")
pytest.importorskip("moto.server", reason="needs moto[server]")

KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """moto's server on a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, **KEYS},
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        try:
            urllib.request.urlopen(url, timeout=1).close()
        except OSError:
            return False
        return True

    try:
        wait_until(answers, 30, "moto answers")
        yield url
    finally:
        server.terminate()
        server.wait(10)


@pytest.fixture
def bucket(endpoint: str) -> Any:
    client = boto3.client(
        "s3", endpoint_url=endpoint, aws_access_key_id="key", aws_secret_access_key="secret",
        region_name="us-east-1",
    )  # fmt: skip
    client.create_bucket(Bucket="backups")
    return client


def keys(bucket: Any) -> list[str]:
    return [each["Key"] for each in bucket.list_objects_v2(Bucket="backups").get("Contents", [])]


def uploads(bucket: Any) -> list[Any]:
    return list(bucket.list_multipart_uploads(Bucket="backups").get("Uploads", []))


def test_there_and_back(daemon: Daemon, launch: Launch, bucket: Any, endpoint: str) -> None:
    name = launch()
    daemon.exec(name, "sh", "-c", "dd if=/dev/urandom of=/root/big bs=1M count=40")
    expected = daemon.out(name, "md5sum", "/root/big")
    place = ("s3://backups/folder/c.tar.zst", "--endpoint", endpoint)
    daemon.lxpy("export", name, *place, env=KEYS)
    assert keys(bucket) == ["folder/c.tar.zst"]
    assert not daemon.api.get(f"/1.0/instances/{name}/backups")
    daemon.lxpy("import", *place, env=KEYS, check=False)
    daemon.delete(name)
    daemon.lxpy("import", *place, env=KEYS)
    daemon.lxpy("start", name)
    assert daemon.out(name, "md5sum", "/root/big") == expected
    bucket.delete_object(Bucket="backups", Key="folder/c.tar.zst")


def test_what_cannot_be_sent(daemon: Daemon, launch: Launch, bucket: Any, endpoint: str) -> None:
    name = launch(start=False)
    target = {"protocol": "s3", "url": endpoint, "bucket_name": "backups", "path": "x",
              "access_key": "key", "secret_key": "secret"}  # fmt: skip
    url = f"/1.0/instances/{name}/backups"
    for changes, text in (
        ({"bucket_name": "none"}, "s3://none/x: .*does not exist"),
        ({"protocol": "ftp"}, "Invalid target protocol"),
        ({"secret_key": ""}, "lacks secret_key"),
        ({"url": "nowhere"}, "Invalid target url"),
        ({"url": "http://127.0.0.1:1"}, "s3://backups/x: .*[Cc]onnect"),
    ):
        with pytest.raises(ApiError, match=text):
            daemon.api.post(url, {"target": target | changes})
    done = daemon.lxpy("export", name, "s3://backups/x", check=False)
    assert "AWS_ACCESS_KEY_ID" in done.stderr
    done = daemon.lxpy("import", "s3://backups/x", "--endpoint", endpoint, env=KEYS, check=False)
    assert "s3://backups/x: " in done.stderr


def test_a_cancelled_upload_leaves_no_parts(
    daemon: Daemon, launch: Launch, bucket: Any, endpoint: str
) -> None:
    name = launch()
    daemon.exec(name, "sh", "-c", "dd if=/dev/urandom of=/root/big bs=1M count=100")
    target = {"protocol": "s3", "url": endpoint, "bucket_name": "backups", "path": "y",
              "access_key": "key", "secret_key": "secret"}  # fmt: skip
    operation = daemon.api.post(f"/1.0/instances/{name}/backups", {"target": target}, wait=False)
    wait_until(lambda: uploads(bucket), 30, "it has begun")
    daemon.api.delete(f"/1.0/operations/{operation['id']}")
    with pytest.raises(ApiError, match="cancelled"):
        daemon.api.wait(operation)
    assert not uploads(bucket)
    assert not keys(bucket)
