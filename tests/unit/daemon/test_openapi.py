"""The API's description is derived from routes, structs and annotations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from aiohttp import web
from msgspec import Struct

from lxpy.daemon import http, openapi
from lxpy.operations.registry import Operation


class Thing(Struct, kw_only=True):
    """Something with a size."""

    name: str
    size: int = 0


class Things:
    """What handlers call."""

    async def one(self, name: str) -> tuple[Thing, object]:
        return Thing(name=name), ()

    async def every(self) -> Sequence[Thing]:
        return []

    def grow(self, wish: Thing) -> Operation:
        raise NotImplementedError


class Handlers:
    def __init__(self) -> None:
        self._things = Things()

    async def list(self, request: web.Request) -> web.Response:
        """Reply with URLs or objects."""
        return http.listing(request, "/1.0/things", await self._things.every())

    async def get(self, request: web.Request) -> web.Response:
        """Reply with one thing."""
        found, writable = await self._things.one(self._name(request))
        return http.sync(found, etag_of=writable)

    async def grow(self, request: web.Request) -> web.Response:
        """Make a thing larger."""
        http.integer(request, "factor", 2)
        return http.accepted(self._things.grow(await http.body(request, Thing)))

    def _name(self, request: web.Request) -> str:
        return http.segment(request, "name") + http.project(request)


@pytest.fixture
def described() -> Any:
    application, handlers = web.Application(), Handlers()
    application.add_routes(
        [
            web.get("/1.0/things", handlers.list),
            web.get("/1.0/things/{name:.+}", handlers.get),
            web.put("/1.0/things/{name:.+}", handlers.grow),
            web.get("/internal/things", handlers.list),
        ]
    )
    return openapi.describe(application.router.routes())


def parameters(operation: Any, where: str) -> dict[str, Any]:
    return {each["name"]: each["schema"] for each in operation["parameters"] if each["in"] == where}


def metadata(operation: Any, status: str) -> Any:
    reply = operation["responses"][status]["content"]["application/json"]["schema"]
    return reply["properties"]["metadata"]


def test_what_is_described(described: Any) -> None:
    assert list(described["paths"]) == ["/1.0/things", "/1.0/things/{name}"]
    assert described["paths"]["/1.0/things"].keys() == {"get"}
    assert described["components"]["schemas"]["Thing"]["required"] == ["name"]


def test_a_list_is_of_urls_or_objects(described: Any) -> None:
    listed = described["paths"]["/1.0/things"]["get"]
    assert parameters(listed, "query").keys() == {"filter", "recursion"}
    urls, objects = metadata(listed, "200")["anyOf"]
    assert urls["items"] == {"type": "string"}
    assert objects["items"] == {"$ref": "#/components/schemas/Thing"}


def test_an_object_and_what_helpers_read(described: Any) -> None:
    got = described["paths"]["/1.0/things/{name}"]["get"]
    assert got["summary"] == "Reply with one thing"
    assert parameters(got, "path").keys() == {"name"}
    assert parameters(got, "query").keys() == {"project"}
    assert metadata(got, "200") == {"$ref": "#/components/schemas/Thing"}


def test_an_operation_and_its_body(described: Any) -> None:
    put = described["paths"]["/1.0/things/{name}"]["put"]
    assert parameters(put, "query") == {"factor": {"type": "integer"}}
    body = put["requestBody"]["content"]["application/json"]["schema"]
    assert body == {"$ref": "#/components/schemas/Thing"}
    assert metadata(put, "202") == {"$ref": "#/components/schemas/Operation"}
