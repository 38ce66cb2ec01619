"""Who is trusted over HTTPS: certificates, and the tokens and the password that bring them in.

All certificates are held in memory: every request asks. Source: LXD docs, "Remote API
authentication".
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from secrets import token_hex

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from msgspec import UNSET

from lxpy.api import certificates as api
from lxpy.api.envelope import Status
from lxpy.db import certificates as queries
from lxpy.db.engine import Database
from lxpy.db.rows import CertificateRow
from lxpy.errors import BadRequest, Conflict, Forbidden, NotFound
from lxpy.events.lifecycle import Lifecycle
from lxpy.operations.registry import Operation, Registry
from lxpy.services.server.certificate import ServerCertificate, fingerprint
from lxpy.services.server.keys import PASSWORD, is_password
from lxpy.services.server.settings import Settings
from lxpy.threads import in_thread
from lxpy.units import expiry_date, is_true

PATH = "/1.0/certificates"
_TOKEN = "Executing operation"  # LXD's description of it
#: raises PreconditionFailed when the writable part it is shown is not the one the caller knows
Check = Callable[[object], None]


class Trust:
    """The certificates that are trusted; `addresses` returns where the server listens."""

    def __init__(
        self,
        db: Database,
        settings: Settings,
        server: ServerCertificate,
        registry: Registry,
        lifecycle: Lifecycle,
    ) -> None:
        self._db = db
        self._settings = settings
        self._server = server
        self._registry = registry
        self._lifecycle = lifecycle
        self._known: dict[str, api.Certificate] = {}
        self._authority: x509.Certificate | None = None
        self._changing = asyncio.Lock()
        self._guessing = (
            asyncio.Lock()
        )  # whoever guesses passwords keeps one processor busy, not all
        self.addresses: Callable[[], Sequence[str]] = list

    async def load(self) -> None:
        """Read the certificates, and that of the site's authority."""
        self._authority = await in_thread(self._server.authority)
        async with self._db.read() as session:
            self._known = {
                row.fingerprint: _shown(row) for row in await queries.everything(session)
            }

    # Who asks

    def find(self, der: bytes) -> api.Certificate | None:
        """Return what is known of the client that has shown a certificate, None of a stranger."""
        try:
            certificate = x509.load_der_x509_certificate(der)
        except ValueError:
            return None
        known = self._known.get(fingerprint(certificate))
        if self._authority is None:
            return known
        if not self._server.is_issued(certificate, self._authority):
            return None
        if known is None and is_true(self._settings.get("core.trust_ca_certificates")):
            return _described(api.CertificatesPost(), certificate, "")
        return known

    # Certificates

    def all(self) -> list[api.Certificate]:
        """Return every certificate, by fingerprint."""
        return [self._known[each] for each in sorted(self._known)]

    def get(self, prefix: str) -> tuple[api.Certificate, object]:
        """Return the certificate whose fingerprint begins so, and its writable part.

        Raises NotFound; BadRequest when there are several.
        """
        found = [each for key, each in self._known.items() if key.startswith(prefix.lower())]
        if not prefix or not found:
            raise NotFound("Certificate not found")
        if len(found) > 1:
            raise BadRequest(f'More than one certificate begins with "{prefix}": write more of it')
        return found[0], msgspec.to_builtins(found[0])

    async def add(
        self, wish: api.CertificatesPost, certificate: x509.Certificate, name: str = ""
    ) -> str:
        """Trust a certificate; return its fingerprint. Raises BadRequest, Conflict."""
        new = _described(wish, certificate, name)
        async with self._changing:
            if new.fingerprint in self._known:
                raise Conflict("Certificate already in trust store")
            async with self._db.write() as session:
                session.add(CertificateRow(**msgspec.to_builtins(new)))
            self._known[new.fingerprint] = new
        self._emit("certificate-created", new.fingerprint)
        return new.fingerprint

    async def join(self, wish: api.CertificatesPost, der: bytes) -> str:
        """Trust a stranger who knows a token or the password; return the fingerprint.

        Raises Forbidden, Conflict.
        """
        granted = await self._granted(wish)
        return await self.add(granted, x509.load_der_x509_certificate(der))

    async def change(self, prefix: str, wish: api.CertificatePatch, check: Check) -> None:
        """Change a certificate. Raises NotFound, BadRequest, Conflict, PreconditionFailed."""
        async with self._changing:
            old, writable = self.get(prefix)
            check(writable)
            pem = old.certificate if not wish.certificate else wish.certificate
            merged = api.CertificatesPost(
                name=old.name if wish.name is UNSET else wish.name,
                type=old.type if wish.type is UNSET else wish.type,
                restricted=old.restricted if wish.restricted is UNSET else wish.restricted,
                projects=old.projects if wish.projects is UNSET else wish.projects,
            )
            new = _described(merged, decoded(pem), "")
            if new.fingerprint != old.fingerprint and new.fingerprint in self._known:
                raise Conflict("Certificate already in trust store")
            async with self._db.write() as session:
                await queries.remove(session, old.fingerprint)
                session.add(CertificateRow(**msgspec.to_builtins(new)))
            del self._known[old.fingerprint]
            self._known[new.fingerprint] = new
        self._emit("certificate-updated", new.fingerprint)

    async def remove(self, prefix: str) -> None:
        """Trust a certificate no more. Raises NotFound, BadRequest."""
        async with self._changing:
            found, _ = self.get(prefix)
            async with self._db.write() as session:
                await queries.remove(session, found.fingerprint)
            del self._known[found.fingerprint]
        self._emit("certificate-deleted", found.fingerprint)

    # Tokens

    def token(self, wish: api.CertificatesPost) -> Operation:
        """Return a token that makes a stranger trusted. Raises BadRequest without a listener."""
        addresses = list(self.addresses())
        if not addresses:
            raise BadRequest(
                "Can't issue token when server isn't listening on network: set core.https_address"
            )
        _check_type(wish)
        expires = expiry_date(self._settings.get("core.remote_token_expiry"), datetime.now(UTC))
        request = {
            "name": wish.name, "type": wish.type, "restricted": wish.restricted,
            "projects": wish.projects or [], "certificate": "", "password": "", "token": True,
        }  # fmt: skip
        metadata: dict[str, object] = {
            "secret": token_hex(32), "fingerprint": self._server.fingerprint,
            "addresses": addresses, "request": request,
        }  # fmt: skip
        if expires is not None:
            metadata["expiresAt"] = expires
        return self._registry.token(_TOKEN, metadata=metadata)

    async def _granted(self, wish: api.CertificatesPost) -> api.CertificatesPost:
        """Return what a stranger is granted. Raises Forbidden."""
        said = wish.trust_token or wish.password
        given = _decoded_token(said)
        if given is not None:
            return self._redeemed(given)
        known = self._settings.get(PASSWORD)
        if not said or not known:
            raise Forbidden("not authorized")
        async with self._guessing:
            if not await in_thread(is_password, said, known):
                raise Forbidden("not authorized")
        return api.CertificatesPost(name=wish.name, type=wish.type)

    def _redeemed(self, given: api.Token) -> api.CertificatesPost:
        for each in self._registry.tokens(_TOKEN):
            known = str(each.metadata.get("secret", ""))
            if each.status is not Status.RUNNING or not known:
                continue
            if hmac.compare_digest(known.encode(), given.secret.encode()):
                each.cancel()
                expires = each.metadata.get("expiresAt")
                if expires is not None and expires < datetime.now(UTC):
                    raise Forbidden("Token has expired")
                request = each.metadata["request"]
                return api.CertificatesPost(
                    name=request["name"] or given.client_name, type=request["type"],
                    restricted=request["restricted"], projects=request["projects"],
                )  # fmt: skip
        raise Forbidden("not authorized")

    def _emit(self, action: str, mark: str) -> None:
        self._lifecycle.emit(action, f"{PATH}/{mark}")


def decoded(text: str) -> x509.Certificate:
    """Return a certificate from PEM, or from DER in base64. Raises BadRequest."""
    try:
        if "-----BEGIN" in text:
            return x509.load_pem_x509_certificate(text.encode())
        return x509.load_der_x509_certificate(base64.b64decode(text, validate=False))
    except (ValueError, binascii.Error) as error:
        raise BadRequest(f"Invalid certificate: {error}: send DER in base64, or PEM") from error


def _described(
    wish: api.CertificatesPost, certificate: x509.Certificate, name: str
) -> api.Certificate:
    _check_type(wish)
    mark = fingerprint(certificate)
    owners = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    name = wish.name or name or (str(owners[0].value) if owners else "")
    return api.Certificate(
        name=name or mark[:12], type=wish.type, restricted=wish.restricted,
        projects=list(wish.projects or []), fingerprint=mark,
        certificate=certificate.public_bytes(Encoding.PEM).decode(),
    )  # fmt: skip


def _check_type(wish: api.CertificatesPost) -> None:
    if wish.type not in api.TYPES:
        raise BadRequest(f'Unknown request type "{wish.type}": use one of {", ".join(api.TYPES)}')


def _decoded_token(text: str) -> api.Token | None:
    try:
        return msgspec.json.decode(base64.b64decode(text, validate=True), type=api.Token)
    except (ValueError, binascii.Error, msgspec.MsgspecError):
        return None


def _shown(row: CertificateRow) -> api.Certificate:
    return api.Certificate(
        name=row.name, type=row.type, restricted=row.restricted, projects=list(row.projects),
        certificate=row.certificate, fingerprint=row.fingerprint,
    )  # fmt: skip
