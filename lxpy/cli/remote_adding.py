"""`lxpy remote add`: from what the user wrote to a server that knows the user."""

from __future__ import annotations

import base64
import getpass
import hashlib
import json
import os
import sys
from dataclasses import dataclass
from urllib.parse import urlsplit

from lxpy.cli.session import Session
from lxpy.client import remotes
from lxpy.client.client import Client, Json
from lxpy.client.remotes import Remote
from lxpy.client.secure import PORT, NoAnswer, NotTrusted, shown
from lxpy.errors import BadRequest, Failed

_CERTIFICATES = "/1.0/certificates"


@dataclass(frozen=True)
class Wish:
    """What the user wrote; `place` is an address, a URL, a socket's path or a token."""

    name: str
    place: str
    accept_certificate: bool = False
    auth_type: str = ""
    password: str = ""
    protocol: str = "lxd"
    public: bool = False


def add(session: Session, wish: Wish) -> None:
    """Add a remote. Raises BadRequest, Conflict, Refused, Unreachable; then nothing is kept."""
    session.remotes.require_new(wish.name)
    if wish.auth_type not in ("", "tls"):
        raise BadRequest(f'Invalid authentication type "{wish.auth_type}": use tls')
    given = token(wish.place)
    try:
        if given is not None:
            made = _by_token(session, wish, given)
        elif wish.protocol == "simplestreams":
            made = _image_server(wish)
        elif wish.protocol != "lxd":
            raise BadRequest(f"Invalid protocol: {wish.protocol}")
        else:
            made = _by_address(session, wish)
    except BaseException:
        remotes.forget(wish.name)
        raise
    session.remotes.put(made)
    session.remotes.save()


def _image_server(wish: Wish) -> Remote:
    if urlsplit(wish.place).scheme != "https":
        raise BadRequest("Only https URLs are supported for simplestreams")
    return Remote(wish.name, wish.place, "simplestreams", public=True)


def address(place: str) -> str:
    """Return the URL of what a user calls a server. Raises BadRequest."""
    if place.startswith(("/", "unix:")):
        return "unix://" + place.removeprefix("unix:").removeprefix("//")
    scheme, mark, rest = place.partition("://")
    if not mark:
        scheme, rest = "https", place
    if scheme != "https":
        raise BadRequest(f'Invalid URL scheme "{scheme}" in "{place}"')
    host = rest.rstrip("/")
    if host.count(":") > 1 and not host.startswith("["):
        host = f"[{host}]"
    try:
        port = urlsplit(f"https://{host}").port
    except ValueError as error:
        raise BadRequest(f'Invalid address "{place}": {error}') from error
    return f"https://{host}" if port else f"https://{host}:{PORT}"


def _by_address(session: Session, wish: Wish) -> Remote:
    url = address(wish.place)
    remote = Remote(wish.name, url, public=wish.public, auth_type=wish.auth_type)
    if remote.is_local:
        remote.client().get("/1.0")
        return remote
    if not wish.public:
        remote.auth_type = "tls"
        _make_certificate()
    try:
        found = remote.client().get("/1.0")
    except NotTrusted:
        certificate = shown(url)
        if not wish.accept_certificate:
            _confirm(hashlib.sha256(certificate).hexdigest())
        remotes.accept(wish.name, certificate)
        found = remote.client().get("/1.0")
    if wish.public:
        return remote
    client = remote.client()
    if found["auth"] != "trusted":
        _introduce(client, wish.password or _ask_password(wish.name))
    remote.project = _project(client, session.project)
    return remote


def _by_token(session: Session, wish: Wish, token: Json) -> Remote:
    """Try each of the token's addresses until a server with its fingerprint answers."""
    _make_certificate()
    reasons: list[str] = []
    for place in token["addresses"]:
        remote = Remote(wish.name, address(place), auth_type="tls")
        try:
            certificate = shown(remote.address)
        except NoAnswer as error:
            reasons.append(str(error))
            continue
        if hashlib.sha256(certificate).hexdigest() != token["fingerprint"]:
            raise BadRequest(
                f'Certificate fingerprint mismatch between certificate token and server "{place}"'
            )
        remotes.accept(wish.name, certificate)
        client = remote.client()
        _introduce(client, wish.place)
        print(f"Client certificate now trusted by server: {wish.name}", file=sys.stderr)
        remote.project = _project(client, session.project)
        return remote
    raise Failed(f"All server addresses are unavailable: {'; '.join(reasons)}")


def token(text: str) -> Json | None:
    """Return what a token holds, None for what is none."""
    try:
        found = json.loads(base64.b64decode(text, validate=True))
    except ValueError:
        return None
    is_token = isinstance(found, dict) and {"addresses", "fingerprint", "secret"} <= found.keys()
    return found if is_token else None


def _make_certificate() -> None:
    from lxpy.client import keypair  # cryptography takes 50 ms

    if keypair.ensure():
        print("Generating a client certificate. This may take a minute...", file=sys.stderr)


def _introduce(client: Client, secret: str) -> None:
    """Have the server trust the user's certificate. Raises Refused, Failed."""
    client.change("POST", _CERTIFICATES, {"type": "client", "password": secret})
    if client.get("/1.0")["auth"] != "trusted":
        raise Failed("Server doesn't trust us after authentication")


def _confirm(fingerprint: str) -> None:
    """Ask whether it is the right server. Raises BadRequest when not."""
    print(f"Certificate fingerprint: {fingerprint}")
    while True:
        print("ok (y/n/[fingerprint])? ", end="", flush=True)
        line = sys.stdin.readline()
        answer = line.strip().lower()
        if not line or answer.startswith("n") or not answer:
            raise BadRequest("Server certificate NACKed by user")
        if answer in ("y", "yes") or answer == fingerprint:
            return
        print("Please type 'y', 'n' or the fingerprint: ", end="")


def _ask_password(name: str) -> str:
    prompt = f"Admin password (or token) for {name}: "
    if sys.stdin.isatty():
        return getpass.getpass(prompt)
    print(prompt, end="", flush=True)
    said = sys.stdin.readline().strip()
    print()
    return said


def _project(client: Client, wanted: str) -> str:
    """Return the project to use there: one that was asked for, or the only one that is seen."""
    known = [os.path.basename(str(each)) for each in client.get("/1.0/projects") or []]
    if wanted and wanted not in known:
        raise BadRequest(f'Project not found: there is no "{wanted}" on that server')
    if wanted or "default" in known or not known:
        return "" if wanted == "default" else wanted
    return known[0]
