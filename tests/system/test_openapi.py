"""The API describes itself, and is what its description says."""

from __future__ import annotations

import json

import pytest

from tests import reference
from tests.support.daemon import Daemon


def test_the_description_is_served_and_sound(daemon: Daemon) -> None:
    validator = pytest.importorskip("openapi_spec_validator")
    status, headers, data = daemon.api.raw("GET", "/1.0/openapi.json")
    assert status == 200 and headers["content-type"].startswith("application/json")
    description = json.loads(data)
    validator.validate(description)
    assert len(description["paths"]) > 80
    one = description["paths"]["/1.0/instances/{name}"]
    assert one.keys() >= {"get", "put", "patch", "post", "delete"}
    body = one["put"]["requestBody"]["content"]["application/json"]["schema"]
    assert body == {"$ref": "#/components/schemas/InstancePut"}
    assert "lxpy_openapi" in daemon.api.get("/1.0")["api_extensions"]
    assert (reference.DOCS / "openapi.json").read_text() == reference.openapi(daemon), (
        "make reference"
    )
