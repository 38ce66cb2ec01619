"""lxpy's own: snapshots mounted on the host, `/1.0/lxpy/snapshot-mounts`."""

from __future__ import annotations

from aiohttp import web

from lxpy.api.snapshotmounts import SnapshotMountPost
from lxpy.daemon import auth, http
from lxpy.errors import BadRequest, Forbidden
from lxpy.services.snapshots.mounts import SnapshotMounts


class Handlers:
    """What the host's root may do with snapshots."""

    def __init__(self, mounts: SnapshotMounts) -> None:
        self._mounts = mounts

    async def list(self, request: web.Request) -> web.Response:
        """Reply with what is mounted where."""
        return http.sync(self._mounts.listed())

    async def mount(self, request: web.Request) -> web.Response:
        """Mount a snapshot."""
        _check_root(request)
        wish = await http.body(request, SnapshotMountPost)
        name, snapshot = http.segment(request, "name"), http.segment(request, "snapshot")
        project = http.project(request)
        return http.sync(await self._mounts.mount(project, name, snapshot, wish.directory))

    async def unmount(self, request: web.Request) -> web.Response:
        """Take a mount away."""
        _check_root(request)
        directory = request.query.get("directory") or ""
        if not directory:
            raise BadRequest("Missing directory argument")
        await self._mounts.unmount(directory)
        return http.empty()


def _check_root(request: web.Request) -> None:
    """Raise Forbidden for whoever could not mount anything himself."""
    if auth.identify(request).username != "root":
        raise Forbidden("Only the host's root may mount snapshots: use sudo")


def routes(mounts: SnapshotMounts) -> list[web.RouteDef]:
    """Return the routes of mounted snapshots."""
    handlers = Handlers(mounts)
    return [
        web.get("/1.0/lxpy/snapshot-mounts", handlers.list),
        web.delete("/1.0/lxpy/snapshot-mounts", handlers.unmount),
        web.post("/1.0/instances/{name}/snapshots/{snapshot}/mount", handlers.mount),
    ]
