"""`/1.0/certificates`: who is trusted."""

from __future__ import annotations

from functools import partial

from aiohttp import web
from cryptography import x509
from msgspec import UNSET

from lxpy.api import certificates as api
from lxpy.daemon import auth, http
from lxpy.errors import BadRequest, Forbidden
from lxpy.services.server import access
from lxpy.services.server.trust import PATH, Trust, decoded


class Handlers:
    """The handlers."""

    def __init__(self, trust: Trust) -> None:
        self._trust = trust

    async def list(self, request: web.Request) -> web.Response:
        """Reply with URLs or objects; restricted clients see their own."""
        found = self._trust.all()
        if access.is_restricted():
            own = auth.identify(request).username
            found = [each for each in found if each.fingerprint == own]
        found = http.chosen(request, found)
        if http.recursion(request):
            return http.sync(found)
        return http.sync([f"{PATH}/{each.fingerprint}" for each in found])

    async def create(self, request: web.Request) -> web.Response:
        """Trust a certificate, the sender's where it sends none; or hand out a token."""
        who = auth.identify(request)
        wish = await http.body(request, api.CertificatesPost)
        if not who.trusted:
            if not who.certificate:
                raise Forbidden("not authorized")
            return http.created(f"{PATH}/{await self._trust.join(wish, who.certificate)}")
        if access.is_restricted():
            raise Forbidden("not authorized")
        if wish.token:
            return http.accepted(self._trust.token(wish))
        certificate = _certificate(wish, who)
        return http.created(f"{PATH}/{await self._trust.add(wish, certificate)}")

    async def get(self, request: web.Request) -> web.Response:
        """Reply with one certificate."""
        found, writable = self._trust.get(http.segment(request, "fingerprint"))
        if access.is_restricted() and found.fingerprint != auth.identify(request).username:
            raise Forbidden("not authorized")
        return http.sync(found, etag_of=writable)

    async def put(self, request: web.Request) -> web.Response:
        """Replace what can be changed of a certificate."""
        wish = await http.body(request, api.CertificatePut)
        patch = api.CertificatePatch(
            name=wish.name, type=wish.type, restricted=wish.restricted, projects=wish.projects,
            certificate=wish.certificate,
        )  # fmt: skip
        return await self._change(request, patch)

    async def patch(self, request: web.Request) -> web.Response:
        """Change some of a certificate."""
        return await self._change(request, await http.body(request, api.CertificatePatch))

    async def _change(self, request: web.Request, wish: api.CertificatePatch) -> web.Response:
        prefix = http.segment(request, "fingerprint")
        if access.is_restricted():  # it may show another certificate from now on, no more
            found, _ = self._trust.get(prefix)
            if found.fingerprint != auth.identify(request).username:
                raise Forbidden("not authorized")
            for field in ("name", "restricted", "projects"):
                if getattr(wish, field) not in (UNSET, getattr(found, field)):
                    raise Forbidden("Only the certificate can be changed")
            wish = api.CertificatePatch(certificate=wish.certificate)
        await self._trust.change(prefix, wish, partial(http.check_match, request))
        return http.empty()

    async def delete(self, request: web.Request) -> web.Response:
        """Trust a certificate no more."""
        await self._trust.remove(http.segment(request, "fingerprint"))
        return http.empty()


def _certificate(wish: api.CertificatesPost, who: auth.Identity) -> x509.Certificate:
    if wish.certificate:
        return decoded(wish.certificate)
    if who.protocol == "unix":
        raise BadRequest("Can't use TLS data on non-TLS link: send the certificate")
    raise BadRequest("Client is already trusted")


def routes(trust: Trust) -> list[web.RouteDef]:
    """Return the routes of certificates."""
    handlers = Handlers(trust)
    one = f"{PATH}/{{fingerprint}}"
    return [
        web.get(PATH, handlers.list),
        web.post(PATH, handlers.create),
        web.get(one, handlers.get),
        web.put(one, handlers.put),
        web.patch(one, handlers.patch),
        web.delete(one, handlers.delete),
    ]
