"""`/1.0/instances/NAME/snapshots`, and the same below `/1.0/containers`."""

from __future__ import annotations

from functools import partial
from urllib.parse import quote

from aiohttp import web

from lxpy.api import snapshots as api
from lxpy.daemon import http
from lxpy.services.migration.source import MigrationSource
from lxpy.services.snapshots.differences import Differences
from lxpy.services.snapshots.snapshots import Snapshots


class Handlers:
    """The handlers below one of the two paths."""

    def __init__(
        self, snapshots: Snapshots, differences: Differences, source: MigrationSource, path: str
    ) -> None:
        self._snapshots = snapshots
        self._source = source
        self._differences = differences
        self._path = path

    async def list(self, request: web.Request) -> web.Response:
        """Reply with URLs or objects."""
        project, name = http.project(request), http.segment(request, "name")
        prefix = f"{self._path}/{quote(name)}/snapshots"
        sizes = http.recursion(request) > 0
        found = await self._snapshots.list(project, name, sizes=sizes)
        return http.listing(request, prefix, found)

    async def create(self, request: web.Request) -> web.Response:
        """Make a snapshot."""
        wish = await http.body(request, api.SnapshotsPost)
        project, name = http.project(request), http.segment(request, "name")
        return http.accepted(self._snapshots.create(project, name, wish))

    async def get(self, request: web.Request) -> web.Response:
        """Reply with one snapshot."""
        found, writable = await self._snapshots.get(*_place(request))
        return http.sync(found, etag_of=writable)

    async def put(self, request: web.Request) -> web.Response:
        """Give a snapshot another end."""
        wish = await http.body(request, api.SnapshotPut)
        check = partial(http.check_match, request)
        return http.accepted(self._snapshots.put(*_place(request), wish, check))

    async def patch(self, request: web.Request) -> web.Response:
        """Change what is given."""
        wish = await http.body(request, api.SnapshotPatch)
        check = partial(http.check_match, request)
        return http.accepted(self._snapshots.patch(*_place(request), wish, check))

    async def rename(self, request: web.Request) -> web.Response:
        """Rename a snapshot, or send it to another server."""
        wish = await http.body(request, api.SnapshotPost)
        if wish.migration:
            return http.accepted(self._source.send_snapshot(*_place(request), wish))
        return http.accepted(self._snapshots.rename(*_place(request), wish))

    async def delete(self, request: web.Request) -> web.Response:
        """Delete a snapshot."""
        return http.accepted(self._snapshots.delete(*_place(request)))

    async def diff(self, request: web.Request) -> web.Response:
        """Reply with what is different in another snapshot, or in the instance as it is."""
        to = request.query.get("to") or ""
        return http.sync(await self._differences.compare(*_place(request), to))


def _place(request: web.Request) -> tuple[str, str, str]:
    """Return project, instance and snapshot."""
    name, snapshot = http.segment(request, "name"), http.segment(request, "snapshot")
    return http.project(request), name, snapshot


def routes(
    snapshots: Snapshots, differences: Differences, source: MigrationSource
) -> list[web.RouteDef]:
    """Return the routes of snapshots."""
    found: list[web.RouteDef] = []
    for path in ("/1.0/instances", "/1.0/containers"):
        handlers = Handlers(snapshots, differences, source, path)
        every = path + "/{name}/snapshots"
        one = every + "/{snapshot}"
        found += [
            web.get(every, handlers.list),
            web.post(every, handlers.create),
            web.get(one, handlers.get),
            web.put(one, handlers.put),
            web.patch(one, handlers.patch),
            web.post(one, handlers.rename),
            web.delete(one, handlers.delete),
            web.get(f"{one}/diff", handlers.diff),
        ]
    return found
