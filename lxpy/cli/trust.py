"""`lxpy config trust`: the clients that a server trusts."""

from __future__ import annotations

import base64
import json
import os
import sys

import click

from lxpy.cli import texts
from lxpy.cli.declare import argument, command, flag, format_option, group, option
from lxpy.cli.editor import edit
from lxpy.cli.render import show as render
from lxpy.cli.session import Session
from lxpy.cli.yamltext import dump
from lxpy.client.client import Client, Json
from lxpy.client.transport import quote
from lxpy.errors import BadRequest, NotFound

trust = group(None, "trust", "Manage trusted clients.")
trust.other_names = {"rm": "remove"}

_PATH = "/1.0/certificates"
_WRITABLE = ("name", "type", "restricted", "projects", "certificate")
_ZERO = "0001-01-01T00:00:00Z"


@command(trust, "add", short_help="Add new trusted client")
@argument("words", "[<remote>:] [<cert>]", nargs=-1)
@option("--name", default="", metavar="NAME", help="Alternative certificate name")
@option(
    "--projects",
    default="",
    metavar="NAMES",
    help="List of projects to restrict the certificate to",
)
@flag("--restricted", help="Restrict the certificate to one or more projects")
@option("--type", "kind", default="client", metavar="TYPE", help='Type of certificate ("client")')
def add(
    session: Session,
    words: tuple[str, ...],
    name: str,
    projects: str,
    restricted: bool,
    kind: str,
) -> None:
    """Add new trusted client.

    \b
    The following certificate types are supported:
    - client (default)
    - metrics

    If the certificate is omitted, a token is made: whoever gives it to "lxpy remote add" is trusted
    from then on, and the token is used up.
    """
    remote, path = _place_and_word(words)
    client, _ = session.server(remote)
    names = [each.strip() for each in projects.split(",") if each.strip()]
    wish: Json = {"type": kind, "name": name, "restricted": restricted, "projects": names}
    if path:
        if kind not in ("client", "metrics"):
            raise BadRequest(f'Unknown certificate type "{kind}"')
        wish["name"] = name or os.path.basename(path)
        client.change("POST", _PATH, {**wish, "certificate": _encoded(path)})
        return
    wish["name"] = name or _ask_name()
    made = client.begin("POST", _PATH, {**wish, "token": True})
    session.say(f"Client {wish['name']} certificate add token:")
    print(_token(made))


def _place_and_word(words: tuple[str, ...]) -> tuple[str, str]:
    """Return "remote:" and the other word of two that may both be missing."""
    if len(words) > 2:
        raise click.UsageError("Invalid number of arguments")
    if len(words) == 2:
        return words[0], words[1]
    word = words[0] if words else ""
    return (word, "") if word.endswith(":") else ("", word)


def _ask_name() -> str:
    print("Please provide client name: ", end="", file=sys.stderr, flush=True)
    name = sys.stdin.readline().strip()
    if not name:
        raise BadRequest("A client that is to get a token needs a name: use --name")
    return name


def _encoded(path: str) -> str:
    """Return a certificate's file as the server takes it. Raises BadRequest."""
    import ssl  # 20 ms

    with open(path, encoding="ascii", errors="replace") as file:
        text = file.read()
    try:
        return base64.b64encode(ssl.PEM_cert_to_DER_cert(text.strip())).decode()
    except ValueError as error:
        raise BadRequest(f"{path} is no certificate (PEM): {error}") from error


def _token(operation: Json) -> str:
    """Return the text that a client redeems."""
    metadata = operation["metadata"]
    token = {
        "client_name": metadata["request"]["name"],
        "fingerprint": metadata["fingerprint"],
        "addresses": metadata["addresses"],
        "secret": metadata["secret"],
        "expires_at": metadata.get("expiresAt") or _ZERO,
    }
    return base64.b64encode(json.dumps(token, separators=(",", ":")).encode()).decode()


@command(trust, "list", help="List trusted clients.")
@argument("remote", "[<remote>:]")
@format_option()
def list_trusted(session: Session, remote: str | None, form: str) -> None:
    client, _ = session.server(remote or "")
    found = client.get(_PATH, recursion="1")
    rows = [
        [each["type"], each["name"], *_read(each["certificate"], each["fingerprint"])]
        for each in found
    ]
    header = ("TYPE", "NAME", "COMMON NAME", "FINGERPRINT", "ISSUE DATE", "EXPIRY DATE")
    render(form, header, rows, found)


def _read(pem: str, fingerprint: str) -> list[str]:
    """Return common name, short fingerprint, and the days on which a certificate is valid."""
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    certificate = x509.load_pem_x509_certificate(pem.encode())
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return [
        str(names[0].value) if names else "",
        fingerprint[:12],
        texts.long_date(certificate.not_valid_before_utc.isoformat()),
        texts.long_date(certificate.not_valid_after_utc.isoformat()),
    ]


@command(trust, "list-tokens", help="List all active certificate add tokens.")
@argument("remote", "[<remote>:]")
@format_option()
def list_tokens(session: Session, remote: str | None, form: str) -> None:
    client, _ = session.server(remote or "")
    found = _tokens(client)
    rows = [
        [
            each["metadata"]["request"]["name"],
            _token(each),
            texts.date(str(each["metadata"].get("expiresAt") or "")),
        ]
        for each in found
    ]
    keys = ["ClientName", "Token", "ExpiresAt"]
    if form == "yaml":
        keys = [each.lower() for each in keys]
    data = [dict(zip(keys, row, strict=True)) for row in rows]
    render(form, ("NAME", "TOKEN", "EXPIRES AT"), rows, data)


def _tokens(client: Client) -> list[Json]:
    by_status = client.get("/1.0/operations", recursion="1")
    return [
        each
        for each in by_status.get("running", [])
        if each["class"] == "token" and "request" in (each["metadata"] or {})
    ]


@command(trust, "revoke-token", help="Revoke certificate add token.")
@argument("words", "[<remote>:] <name>", nargs=-1, required=True)
def revoke_token(session: Session, words: tuple[str, ...]) -> None:
    remote, name = _place_and_word(words)
    client, _ = session.server(remote)
    for each in _tokens(client):
        if each["metadata"]["request"]["name"] == name:
            client.change("DELETE", f"/1.0/operations/{each['id']}")
            session.say(f"Certificate add token for {name} deleted")
            return
    raise NotFound(f"No certificate add token for member {name} on remote: {remote or 'local'}")


@command(trust, "remove", help="Remove trusted client.")
@argument("fingerprint", "[<remote>:]<fingerprint>")
def remove(session: Session, fingerprint: str) -> None:
    client, path = _locate(session, fingerprint)
    client.change("DELETE", path)


@command(trust, "show", help="Show trust configurations.")
@argument("fingerprint", "[<remote>:]<fingerprint>")
def show(session: Session, fingerprint: str) -> None:
    client, path = _locate(session, fingerprint)
    sys.stdout.write(dump(client.get(path)))


@command(trust, "edit", help="Edit trust configurations as YAML, or read them on stdin.")
@argument("fingerprint", "[<remote>:]<fingerprint>")
def edit_trust(session: Session, fingerprint: str) -> None:
    client, path = _locate(session, fingerprint)
    found, etag = client.fetch(path)

    def save(wanted: Json) -> None:
        body = {key: wanted[key] for key in _WRITABLE if key in wanted}
        client.change("PUT", path, body, etag=etag)

    edit(
        found,
        "This is a YAML representation of the certificate.\nAny line starting with a '# will be "
        f"ignored; only {', '.join(_WRITABLE)} can be changed.",
        save,
    )


def _locate(session: Session, text: str) -> tuple[Client, str]:
    client, fingerprint = session.server(text)
    if not fingerprint:
        raise BadRequest("Missing certificate fingerprint")
    return client, f"{_PATH}/{quote(fingerprint)}"
