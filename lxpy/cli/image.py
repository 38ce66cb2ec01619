"""`lxpy image`: the store of this server, and what `images:` can provide."""

from __future__ import annotations

import sys

from lxpy.cli import image_source, texts
from lxpy.cli.declare import argument, command, flag, group, names, option
from lxpy.cli.editor import edit as edit_yaml
from lxpy.cli.image_alias import alias, set_aliases
from lxpy.cli.image_copy import copy, fingerprint_of
from lxpy.cli.image_export import export
from lxpy.cli.image_list import list_images, megabytes
from lxpy.cli.image_transfer import import_image
from lxpy.cli.session import Session
from lxpy.cli.yamltext import dump
from lxpy.client.client import Client, Json
from lxpy.client.transport import quote
from lxpy.errors import BadRequest, NotFound

image = group(
    None,
    "image",
    """Manage images.

    Instances are created from images: built from a distribution's packages, downloaded from an
    image server, or imported from a file. Images are referenced by their fingerprint, by the
    beginning of it, or by an alias.
    """,
    short_help="Manage images",
)
image.add_command(alias)
image.add_command(list_images)
image.add_command(import_image)
image.add_command(export)
image.add_command(copy)
_WRITABLE = ("auto_update", "properties", "public", "expires_at", "profiles")
_image = argument("name", "[<remote>:]<image>", shell_complete=names("images/aliases"))
_vm = flag("--vm", hidden=True, help="Query virtual machine images")


def locate(session: Session, text: str) -> tuple[Client, str]:
    """Return client and fingerprint of an image. Raises NotFound."""
    client, name = session.server(text)
    if not name:
        raise BadRequest("Image identifier missing")
    return client, image_source.fingerprint(client, name)


def look(session: Session, text: str) -> Json:
    """Return an image of any remote. Raises NotFound, BadRequest."""
    remote, name = session.parse(text)
    if not name:
        raise BadRequest("Image identifier missing")
    return image_source.find(session, remote, name)


def _path(mark: str) -> str:
    return f"/1.0/images/{quote(mark)}"


@command(image, "info", help="Show useful information about images.")
@_image
@_vm
def info(session: Session, name: str, vm: bool) -> None:
    found = look(session, name)
    print(f"Fingerprint: {found['fingerprint']}")
    print(f"Size: {megabytes(found['size'])}")
    print(f"Architecture: {found['architecture']}")
    print(f"Type: {found['type']}")
    print(f"Public: {texts.yes(found['public']).lower()}")
    print("Timestamps:")
    print(f"    Created: {texts.date(found['created_at']) or 'unknown'}")
    print(f"    Uploaded: {texts.date(found['uploaded_at'])}")
    print(f"    Expires: {texts.date(found['expires_at']) or 'never'}")
    print(f"    Last used: {texts.date(found['last_used_at']) or 'never'}")
    print("Properties:")
    for key, value in sorted((found["properties"] or {}).items()):
        print(f"    {key}: {value}")
    print("Aliases:")
    for each in found["aliases"] or []:
        described = f" ({each['description']})" if each.get("description") else ""
        print(f"    - {each['name']}{described}")
    print(f"Cached: {texts.yes(found['cached']).lower()}")
    print(f"Auto update: {'enabled' if found['auto_update'] else 'disabled'}")
    if source := found.get("update_source"):
        print("Source:")
        for key in ("server", "protocol", "alias"):
            print(f"    {key.capitalize()}: {source.get(key, '')}")
    print("Profiles:")
    for each in found.get("profiles") or []:
        print(f"    - {each}")


@command(image, "show", help="Show image properties.")
@_image
@_vm
def show(session: Session, name: str, vm: bool) -> None:
    found = look(session, name)
    sys.stdout.write(dump({key: found[key] for key in _WRITABLE if key in found}))


def _save(client: Client, mark: str, found: Json, etag: str) -> None:
    body = {key: found[key] for key in _WRITABLE if key in found}
    client.change("PUT", _path(mark), body, etag=etag)


@command(image, "edit", help="Edit image properties as YAML, or read them on stdin.")
@_image
def edit(session: Session, name: str) -> None:
    client, mark = locate(session, name)
    found, etag = client.fetch(_path(mark))
    edit_yaml(
        {key: found[key] for key in _WRITABLE if key in found},
        "This is a YAML representation of the image properties.\n"
        "Any line starting with a '# will be ignored.",
        lambda wanted: _save(client, mark, wanted, etag),
    )


@command(image, "get-property", help="Get image properties.")
@_image
@argument("key", "<key>")
def get_property(session: Session, name: str, key: str) -> None:
    properties = look(session, name)["properties"] or {}
    if key not in properties:
        raise NotFound("Property not found")
    print(properties[key])


@command(image, "set-property", help="Set image properties.")
@_image
@argument("key", "<key>")
@argument("value", "<value>")
def set_property(session: Session, name: str, key: str, value: str) -> None:
    client, mark = locate(session, name)
    found, etag = client.fetch(_path(mark))
    found["properties"] = {**(found["properties"] or {}), key: value}
    _save(client, mark, found, etag)


@command(image, "unset-property", help="Unset image properties.")
@_image
@argument("key", "<key>")
def unset_property(session: Session, name: str, key: str) -> None:
    client, mark = locate(session, name)
    found, etag = client.fetch(_path(mark))
    found["properties"] = {k: v for k, v in (found["properties"] or {}).items() if k != key}
    _save(client, mark, found, etag)


@command(image, "delete", help="Delete images. Nothing is deleted if one of them does not exist.")
@argument(
    "images",
    "[<remote>:]<image> [[<remote>:]<image>...]",
    nargs=-1,
    required=True,
    shell_complete=names("images/aliases"),
)
def delete(session: Session, images: tuple[str, ...]) -> None:
    for client, mark in [locate(session, name) for name in images]:
        client.change("DELETE", _path(mark))


@command(image, "refresh", help="Refresh images from where they came.")
@argument(
    "images",
    "[<remote>:]<image> [[<remote>:]<image>...]",
    nargs=-1,
    required=True,
    shell_complete=names("images/aliases"),
)
def refresh(session: Session, images: tuple[str, ...]) -> None:
    for client, mark in [locate(session, name) for name in images]:
        done = client.change("POST", f"{_path(mark)}/refresh")
        if (done.get("metadata") or {}).get("refreshed"):
            session.say("Image refreshed successfully!")
        else:
            session.say("Image already up to date.")


@command(image, "build", short_help="Build images from a distribution's packages")
@argument("name", "[<remote>:]<recipe>")
@option("--alias", "aliases", multiple=True, metavar="NAME", help="New aliases for the image")
@flag("--public", help="Make image public")
def build(session: Session, name: str, aliases: tuple[str, ...], public: bool) -> None:
    """Build an image from a distribution's packages by the recipe of that name, "debian/13".

    `lxpy image list images:` shows what there is.
    """
    remote, recipe = session.parse(name)
    client, _ = session.server("") if remote.protocol == "images" else session.server(name)
    source = {"type": "image", "mode": "pull", "protocol": "build", "alias": recipe}
    body = {"source": source, "public": public, "aliases": []}
    mark = fingerprint_of(client.change("POST", "/1.0/images", body))
    set_aliases(client, mark, aliases)
    session.say(f"Fingerprint: {mark}")
    session.say("Image built successfully!")
