"""Objects in a bucket of an S3-compatible server: written and read as streams.

boto3 does the talking. It is an optional part of lxpy ("lxpy[s3]") and imported when it is used.
Everything here blocks. Source: Amazon S3 API, "Multipart upload overview".
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any  # boto3 makes its classes as it runs: they have no types

from lxpy.errors import BadRequest, Failed, MissingTool

_PARTS = 10_000
_FIRST_BYTES = 16 << 20
_READ_BYTES = 256 << 10
_CONNECT_S = 10
_ANSWER_S = 60


@dataclass(frozen=True, slots=True)
class Place:
    """An object in a bucket, and the keys to it; without an endpoint it is Amazon's."""

    bucket: str
    key: str
    endpoint: str = ""
    access_key: str = ""
    secret_key: str = field(default="", repr=False)

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


def parse(url: str, endpoint: str) -> Place:
    """Return what "s3://BUCKET/KEY" names, with the keys of the environment. Raises BadRequest."""
    bucket, _, key = url.removeprefix("s3://").partition("/")
    if not bucket or not key:
        raise BadRequest(f"{url} names no object: write s3://BUCKET/KEY")
    access = os.environ.get("AWS_ACCESS_KEY_ID", "")
    secret = os.environ.get("AWS_SECRET_ACCESS_KEY", "")
    if not access or not secret:
        raise BadRequest("Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to the bucket's keys")
    return Place(bucket, key, endpoint, access, secret)


class MultipartUpload:
    """An object that appears when `finish` is called; `abort` leaves no parts behind."""

    def __init__(self, place: Place) -> None:
        """Begin. Raises Failed, MissingTool."""
        self._place = place
        self._client = _client(place)
        self._names = {"Bucket": place.bucket, "Key": place.key}
        self._tags: list[str] = []
        answer = self._call("create_multipart_upload")
        self._names["UploadId"] = str(answer["UploadId"])

    @property
    def part_bytes(self) -> int:
        """How large the next part is to be: they grow, as there may be 10,000 only."""
        return _FIRST_BYTES << (len(self._tags) // 1000)

    def put(self, data: bytes) -> None:
        """Send the next part. Raises Failed."""
        if len(self._tags) == _PARTS:
            raise Failed(f"{self._place} is full: an object has {_PARTS} parts at most")
        number = len(self._tags) + 1
        answer = self._call("upload_part", PartNumber=number, Body=data)
        self._tags.append(str(answer["ETag"]))

    def finish(self) -> None:
        """Make the object of its parts. Raises Failed."""
        parts = [{"PartNumber": n, "ETag": tag} for n, tag in enumerate(self._tags, 1)]
        self._call("complete_multipart_upload", MultipartUpload={"Parts": parts})

    def abort(self) -> None:
        """Have the server forget the parts. Raises Failed."""
        self._call("abort_multipart_upload")

    def _call(self, method: str, **arguments: Any) -> Any:
        return _called(self._place, getattr(self._client, method), **self._names, **arguments)


def fetch(url: str, endpoint: str) -> tuple[int, Iterator[bytes]]:
    """Return an object's length in bytes and its content. Raises Failed, BadRequest."""
    place = parse(url, endpoint)
    get = _client(place).get_object
    answer = _called(place, get, Bucket=place.bucket, Key=place.key)
    return int(answer["ContentLength"]), _pieces(place, answer["Body"])


def _pieces(place: Place, body: Any) -> Iterator[bytes]:
    while piece := _called(place, body.read, _READ_BYTES):
        yield piece


def _client(place: Place) -> Any:
    try:
        boto3 = importlib.import_module("boto3")
        config = importlib.import_module("botocore.config")
    except ImportError as error:
        raise NoBoto from error
    return _called(
        place,
        boto3.session.Session().client,
        "s3",
        endpoint_url=place.endpoint or None,
        aws_access_key_id=place.access_key,
        aws_secret_access_key=place.secret_key,
        region_name=os.environ.get("AWS_DEFAULT_REGION") or "us-east-1",
        config=config.Config(
            connect_timeout=_CONNECT_S,
            read_timeout=_ANSWER_S,
            retries={"max_attempts": 3, "mode": "standard"},
            s3={"addressing_style": "path" if place.endpoint else "auto"},
        ),
    )


class NoBoto(MissingTool):
    """The library is not installed."""

    def __init__(self) -> None:
        Failed.__init__(
            self,
            "Buckets need the library boto3, which is not installed: pip install 'lxpy[s3]', or "
            "install package python3-boto3",
        )


def _called(place: Place, call: Any, *arguments: Any, **named: Any) -> Any:
    """Call boto3. Raises Failed naming the object and what its server says."""
    errors = importlib.import_module("botocore.exceptions")
    urllib3 = importlib.import_module("urllib3.exceptions")
    try:
        return call(*arguments, **named)
    except (errors.BotoCoreError, errors.ClientError, urllib3.HTTPError, ValueError) as error:
        raise Failed(f"{place}: {error}") from error
