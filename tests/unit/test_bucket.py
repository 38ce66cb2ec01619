"""Names of objects in buckets."""

from __future__ import annotations

import pytest

from lxpy.bucket import Place, parse
from lxpy.errors import BadRequest


def test_a_name_and_the_keys_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "one")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "two")
    place = parse("s3://bucket/a/b.tar", "http://here")
    assert place == Place("bucket", "a/b.tar", "http://here", "one", "two")
    assert str(place) == "s3://bucket/a/b.tar"
    assert "two" not in repr(place)


@pytest.mark.parametrize("url", ["s3://", "s3://bucket", "s3://bucket/", "s3:///key"])
def test_what_names_no_object(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "one")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "two")
    with pytest.raises(BadRequest, match="names no object"):
        parse(url, "")


def test_keys_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    with pytest.raises(BadRequest, match="AWS_ACCESS_KEY_ID"):
        parse("s3://bucket/key", "")
