"""What users call a server, and what they were given by its administrator."""

from __future__ import annotations

import base64
import json

import pytest

from lxpy.cli import remote_adding
from lxpy.errors import BadRequest


@pytest.mark.parametrize(
    ("place", "url"),
    [
        ("192.0.2.1", "https://192.0.2.1:8443"),
        ("192.0.2.1:9", "https://192.0.2.1:9"),
        ("far.example.com", "https://far.example.com:8443"),
        ("https://far.example.com/", "https://far.example.com:8443"),
        ("2001:db8::1", "https://[2001:db8::1]:8443"),
        ("[2001:db8::1]:9", "https://[2001:db8::1]:9"),
        ("/var/tmp/a.socket", "unix:///var/tmp/a.socket"),
        ("unix:///var/tmp/a.socket", "unix:///var/tmp/a.socket"),
    ],
)
def test_addresses(place: str, url: str) -> None:
    assert remote_adding.address(place) == url


@pytest.mark.parametrize("place", ["http://far", "far:port", "ftp://far"])
def test_no_addresses(place: str) -> None:
    with pytest.raises(BadRequest):
        remote_adding.address(place)


def test_tokens() -> None:
    token = {"client_name": "c", "fingerprint": "ab", "addresses": ["192.0.2.1"], "secret": "s"}
    text = base64.b64encode(json.dumps(token).encode()).decode()
    assert remote_adding.token(text) == token
    for other in ("far", "192.0.2.1", base64.b64encode(b'{"a": 1}').decode(), "MTIz"):
        assert remote_adding.token(other) is None
