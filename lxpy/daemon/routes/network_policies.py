"""`/1.0/networks/N/forwards`, `/1.0/networks/N/peers` and `/1.0/network-acls`."""

from __future__ import annotations

from urllib.parse import quote

from aiohttp import web

from lxpy.api import network_policies as api
from lxpy.daemon import http
from lxpy.services.networks.acls import Acls
from lxpy.services.networks.forwards import Forwards
from lxpy.services.networks.networks import Networks

_NETWORKS = "/1.0/networks"
_ACLS = "/1.0/network-acls"


class ForwardHandlers:
    """The handlers of forwards."""

    def __init__(self, service: Forwards) -> None:
        self._service = service

    async def list(self, request: web.Request) -> web.Response:
        """Reply with URLs or objects."""
        network = http.segment(request, "name")
        path = f"{_NETWORKS}/{quote(network, safe='')}/forwards"
        return http.listing(request, path, self._service.list(network), name="listen_address")

    async def create(self, request: web.Request) -> web.Response:
        """Make a forward."""
        network = http.segment(request, "name")
        address = await self._service.create(network, await http.body(request, api.ForwardsPost))
        path = f"{_NETWORKS}/{quote(network, safe='')}/forwards"
        return http.created(f"{path}/{quote(address, safe='')}")

    async def get(self, request: web.Request) -> web.Response:
        """Reply with one."""
        found = self._service.get(*self._place(request))
        return http.sync(found, etag_of=self._service.writable(found))

    async def put(self, request: web.Request) -> web.Response:
        """Replace one's writable part."""
        place = self._matching(request)
        await self._service.put(*place, await http.body(request, api.ForwardPut))
        return http.empty()

    async def patch(self, request: web.Request) -> web.Response:
        """Change what is given."""
        place = self._matching(request)
        await self._service.patch(*place, await http.body(request, api.ForwardPatch))
        return http.empty()

    async def delete(self, request: web.Request) -> web.Response:
        """Delete one."""
        await self._service.delete(*self._place(request))
        return http.empty()

    def _place(self, request: web.Request) -> tuple[str, str]:
        return http.segment(request, "name"), http.segment(request, "address")

    def _matching(self, request: web.Request) -> tuple[str, str]:
        place = self._place(request)
        http.check_match(request, self._service.writable(self._service.get(*place)))
        return place


class AclHandlers:
    """The handlers of ACLs."""

    def __init__(self, service: Acls) -> None:
        self._service = service

    async def list(self, request: web.Request) -> web.Response:
        """Reply with URLs or objects."""
        return http.listing(request, _ACLS, self._service.list())

    async def create(self, request: web.Request) -> web.Response:
        """Make an ACL."""
        wish = await http.body(request, api.AclsPost)
        await self._service.create(wish)
        return http.created(f"{_ACLS}/{quote(wish.name, safe='')}")

    async def get(self, request: web.Request) -> web.Response:
        """Reply with one."""
        found = self._service.get(http.segment(request, "name"))
        return http.sync(found, etag_of=self._service.writable(found))

    async def put(self, request: web.Request) -> web.Response:
        """Replace one's writable part."""
        name = self._matching(request)
        await self._service.put(name, await http.body(request, api.AclPut))
        return http.empty()

    async def patch(self, request: web.Request) -> web.Response:
        """Change what is given."""
        name = self._matching(request)
        await self._service.patch(name, await http.body(request, api.AclPatch))
        return http.empty()

    async def rename(self, request: web.Request) -> web.Response:
        """Rename one."""
        wish = await http.body(request, api.AclPost)
        await self._service.rename(http.segment(request, "name"), wish.name)
        return http.created(f"{_ACLS}/{quote(wish.name, safe='')}")

    async def delete(self, request: web.Request) -> web.Response:
        """Delete one."""
        await self._service.delete(http.segment(request, "name"))
        return http.empty()

    async def log(self, request: web.Request) -> web.Response:
        """Reply with what logged rules have seen."""
        text = await self._service.log(http.segment(request, "name"))
        return web.Response(body=text.encode(), content_type="application/octet-stream")

    def _matching(self, request: web.Request) -> str:
        name = http.segment(request, "name")
        http.check_match(request, self._service.writable(self._service.get(name)))
        return name


class PeerHandlers:
    """Peers are OVN's: every request is refused."""

    def __init__(self, service: Networks) -> None:
        self._service = service

    async def refuse(self, request: web.Request) -> web.Response:
        """Say why."""
        self._service.refuse_peers(http.segment(request, "name"))
        return http.empty()


def routes(service: Networks) -> list[web.RouteDef]:
    """Return the routes of what passes networks."""
    forwards, acls = ForwardHandlers(service.forwards), AclHandlers(service.acls)
    peers = PeerHandlers(service)
    several = _NETWORKS + "/{name}/forwards"
    one, acl = several + "/{address}", _ACLS + "/{name}"
    return [
        web.get(several, forwards.list),
        web.post(several, forwards.create),
        web.get(one, forwards.get),
        web.put(one, forwards.put),
        web.patch(one, forwards.patch),
        web.delete(one, forwards.delete),
        web.route("*", _NETWORKS + "/{name}/peers", peers.refuse),
        web.route("*", _NETWORKS + "/{name}/peers/{peer}", peers.refuse),
        web.get(_ACLS, acls.list),
        web.post(_ACLS, acls.create),
        web.get(acl, acls.get),
        web.put(acl, acls.put),
        web.patch(acl, acls.patch),
        web.post(acl, acls.rename),
        web.delete(acl, acls.delete),
        web.get(acl + "/log", acls.log),
    ]
