"""`lxpy config metadata` and `lxpy config template`: what an instance keeps of its image's."""

from __future__ import annotations

import os
import sys
import tempfile

from lxpy.cli.declare import argument, command, format_option, group, names
from lxpy.cli.editor import edit, open_in_editor
from lxpy.cli.removing import path_of
from lxpy.cli.render import show
from lxpy.cli.session import Session
from lxpy.cli.target import split_snapshot
from lxpy.cli.yamltext import dump
from lxpy.client.client import Client
from lxpy.client.transport import quote
from lxpy.errors import BadRequest

metadata = group(None, "metadata", "Manage instance metadata files.")
template = group(None, "template", "Manage instance file templates.")
_instance = argument("name", "[<remote>:]<instance>", shell_complete=names("instances"))
_template = argument("file", "<template>")
_OCTETS = {"Content-Type": "application/octet-stream"}


def _place(session: Session, text: str) -> tuple[Client, str]:
    """Return client and path of an instance's metadata. Raises BadRequest."""
    client, name = session.server(text)
    if not name:
        raise BadRequest("Missing instance name")
    if split_snapshot(name)[1]:
        raise BadRequest(f'"{name}" is a snapshot: metadata are those of the instance')
    return client, f"{path_of(name)}/metadata"


@command(metadata, "show", help="Show instance metadata files.")
@_instance
def show_metadata(session: Session, name: str) -> None:
    client, path = _place(session, name)
    sys.stdout.write(dump(client.get(path)))


@command(metadata, "edit", help="Edit instance metadata files, or read them on stdin.")
@_instance
def edit_metadata(session: Session, name: str) -> None:
    client, path = _place(session, name)
    found, etag = client.fetch(path)
    edit(
        found,
        "This is a YAML representation of the instance metadata.\n"
        "Any line starting with a '# will be ignored.",
        lambda wanted: client.change("PUT", path, wanted, etag=etag),
    )


@command(template, "list", help="List instance file templates.")
@_instance
@format_option()
def list_templates(session: Session, name: str, form: str) -> None:
    client, path = _place(session, name)
    found = client.get(f"{path}/templates")
    show(form, ("FILENAME",), [[each] for each in sorted(found)], sorted(found))


@command(template, "show", help="Show content of instance file templates.")
@_instance
@_template
def show_template(session: Session, name: str, file: str) -> None:
    client, path = _place(session, name)
    text = client.download(f"{path}/templates?path={quote(file)}").read()
    sys.stdout.buffer.write(text)
    sys.stdout.buffer.flush()


@command(template, "create", help="Create new instance file templates, empty ones.")
@_instance
@_template
def create_template(session: Session, name: str, file: str) -> None:
    client, path = _place(session, name)
    client.change("POST", f"{path}/templates?path={quote(file)}", b"", headers=_OCTETS)


@command(template, "edit", help="Edit instance file templates, or read them on stdin.")
@_instance
@_template
def edit_template(session: Session, name: str, file: str) -> None:
    client, path = _place(session, name)
    place = f"{path}/templates?path={quote(file)}"

    def edited() -> bytes:
        return _edited(client.download(place).read())

    text = edited() if sys.stdin.isatty() else sys.stdin.buffer.read()
    client.change("POST", place, text, headers=_OCTETS)


def _edited(text: bytes) -> bytes:
    """Return what the user's editor made of a text. Raises BadRequest when there is none."""
    with tempfile.NamedTemporaryFile(prefix="lxpy-", suffix=".tpl", delete=False) as made:
        made.write(text)
    try:
        open_in_editor(made.name)
        with open(made.name, "rb") as edited:
            return edited.read()
    finally:
        os.unlink(made.name)


@command(template, "delete", help="Delete instance file templates.")
@_instance
@_template
def delete_template(session: Session, name: str, file: str) -> None:
    client, path = _place(session, name)
    client.change("DELETE", f"{path}/templates?path={quote(file)}")
