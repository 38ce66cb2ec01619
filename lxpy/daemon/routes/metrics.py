"""`/1.0/metrics`: what instances use, for Prometheus and its like."""

from __future__ import annotations

from aiohttp import web

from lxpy.api.metrics import CONTENT_TYPE
from lxpy.services.server import access
from lxpy.services.server.metrics import Metrics


def routes(metrics: Metrics) -> list[web.RouteDef]:
    """Return the route."""

    async def get(request: web.Request) -> web.Response:
        """Reply with the metrics of a project's instances, or of all."""
        project = request.query.get("project", "")
        text = await metrics.text(project, access.projects.get())
        return web.Response(text=text, content_type=CONTENT_TYPE)

    return [web.get("/1.0/metrics", get)]
