"""`/1.0/instances/NAME/sftp`: the connection becomes one of SFTP."""

from __future__ import annotations

import os

from aiohttp import web

from lxpy.daemon import http
from lxpy.errors import BadRequest
from lxpy.services.files.sftp import Sftp

_PROTOCOL = "sftp"


class Handlers:
    """Hands connections over."""

    def __init__(self, sftp: Sftp) -> None:
        self._sftp = sftp

    async def connect(self, request: web.Request) -> web.StreamResponse:
        """Switch protocols, and serve the client until it goes away."""
        if request.headers.get("Upgrade", "").lower() != _PROTOCOL:
            raise BadRequest('Missing or invalid upgrade header: send "Upgrade: sftp"')
        name = http.segment(request, "name")
        response = web.StreamResponse(status=101, headers={"Upgrade": _PROTOCOL})
        response.headers["Connection"] = "Upgrade"
        async with self._sftp.session(http.project(request), name) as session:
            await response.prepare(request)
            transport = request.transport
            if transport is None:
                return response  # it has gone already
            transport.pause_reading()
            connection = os.dup(transport.get_extra_info("socket").fileno())
            try:
                await session.serve(connection)
            finally:
                os.close(connection)
                transport.abort()
        return response


def routes(sftp: Sftp) -> list[web.RouteDef]:
    """Return the routes of SFTP."""
    handlers = Handlers(sftp)
    return [
        web.get(f"/1.0/{each}/{{name}}/sftp", handlers.connect, allow_head=False)
        for each in ("instances", "containers")
    ]
