"""`lxpy file`."""

from __future__ import annotations

import os
import posixpath
import sys
import tempfile
from dataclasses import replace

import click

from lxpy.cli import file_transfer
from lxpy.cli.declare import argument, command, flag, group, option
from lxpy.cli.editor import open_in_editor
from lxpy.cli.file_place import Owner, Place
from lxpy.cli.session import Session
from lxpy.errors import BadRequest, Refused

file = group(
    None, "file", "Manage files in instances.", lazy={"mount": "lxpy.cli.file_mount:mount"}
)
_PLACE = "[<remote>:]<instance>/<path>"
_NEW_FILE, _NEW_DIRECTORY = 0o644, 0o755

_create_dirs = flag("-p", "--create-dirs", "mkdir", help="Create any directories necessary")


@command(file, "push", short_help="Push files into instances")
@argument("words", f"<source path>... {_PLACE}", nargs=-1)
@_create_dirs
@flag("-r", "--recursive", help="Recursively transfer files")
@option("--uid", type=int, default=-1, help="Set the file's uid on push (default -1)")
@option("--gid", type=int, default=-1, help="Set the file's gid on push (default -1)")
@option("--mode", default="", metavar="MODE", help="Set the file's perms on push")
def push(
    session: Session,
    words: tuple[str, ...],
    mkdir: bool,
    recursive: bool,
    uid: int,
    gid: int,
    mode: str,
) -> None:
    """Push files into instances.

    "-" is the standard input. Example: lxpy file push /etc/hosts foo/etc/hosts
    """
    *sources, target = _at_least_two(words)
    place = Place.parse(session, target, "target")
    into = place.path.endswith("/") or posixpath.normpath(place.path) == "/"
    place = place.at(place.path)
    owner = Owner(uid if uid >= 0 else None, gid if gid >= 0 else None, _mode(mode))
    if recursive:
        if owner != Owner():
            raise BadRequest("Can't supply uid/gid/mode in recursive mode")
        if mkdir:
            place.make_directories(file_transfer.owner_of(os.stat(sources[0])))
        file_transfer.push_trees(tuple(sources), place)
        return
    if len(sources) > 1 and not into:
        raise BadRequest(f"More than one file to push: end the target with a slash: {target}/")
    for source in sources:
        file_transfer.check(source)
    for source in sources:
        name = os.path.basename(source)
        goal = place.at(posixpath.join(place.path, name)) if into and source != "-" else place
        full = _completed(owner, source)
        if mkdir:
            above = goal.at(posixpath.dirname(goal.path))
            above.make_directories(replace(full, mode=None))
        file_transfer.push(source, goal, full)


@command(file, "pull", short_help="Pull files from instances")
@argument("words", f"{_PLACE} [{_PLACE}...] <target path>", nargs=-1)
@_create_dirs
@flag("-r", "--recursive", help="Recursively transfer files")
def pull(session: Session, words: tuple[str, ...], mkdir: bool, recursive: bool) -> None:
    """Pull files from instances, or from their snapshots: <instance>@<snapshot>/<path>.

    "-" is the standard output. Example: lxpy file pull foo/etc/hosts .
    """
    *sources, target = _at_least_two(words)
    places = [Place.parse(session, each, "source") for each in sources]
    file_transfer.pull(places, target, recursive=recursive, mkdir=mkdir)


@command(file, "delete", short_help="Delete files in instances")
@argument("words", f"{_PLACE} [{_PLACE}...]", nargs=-1, required=True)
@flag("-f", "--force", help="Say nothing of files that do not exist")
def delete(session: Session, words: tuple[str, ...], force: bool) -> None:
    """Delete files in instances; directories have to be empty."""
    for place in [Place.parse(session, each, "path") for each in words]:
        try:
            place.delete()
        except Refused as error:
            if not force or error.code != 404:
                raise


@command(file, "edit", short_help="Edit files in instances")
@argument("target", _PLACE)
def edit(session: Session, target: str) -> None:
    """Edit files in instances; without a terminal, the standard input is the new content."""
    place = Place.parse(session, target, "path")
    if not sys.stdin.isatty():
        file_transfer.push("-", place, Owner())
        return
    ending = posixpath.splitext(place.name)[1]
    with tempfile.TemporaryDirectory(prefix="lxpy-") as directory:
        path = os.path.join(directory, f"file{ending}")
        found = place.followed()
        if found.type == "directory":
            raise BadRequest(f"{place.path} is a directory")
        file_transfer.save(found.pieces(f"Pulling {place.path}"), path, 0o600)
        before = os.stat(path)
        open_in_editor(path)
        after = os.stat(path)
        if (before.st_mtime_ns, before.st_size) != (after.st_mtime_ns, after.st_size):
            file_transfer.push(path, place, Owner())


@command(file, "create", short_help="Create files and directories in instances")
@argument("target", _PLACE)
@argument("link", "[<symlink target path>]")
@_create_dirs
@flag("-f", "--force", help="Replace a file that exists")
@option("--uid", type=int, default=-1, help="Set the file's uid on create (default -1)")
@option("--gid", type=int, default=-1, help="Set the file's gid on create (default -1)")
@option("--mode", default="", metavar="MODE", help="Set the file's perms on create")
@option(
    "--type", "kind", type=click.Choice(("file", "directory", "symlink")), default="file",
    help="The type to create: file, directory or symlink (default file)",
)  # fmt: skip
def create(
    session: Session,
    target: str,
    link: str | None,
    mkdir: bool,
    force: bool,
    uid: int,
    gid: int,
    mode: str,
    kind: str,
) -> None:
    """Create files and directories in instances.

    Example: lxpy file create --type=symlink foo/bar baz
    """
    place = Place.parse(session, target, "path")
    if place.path.endswith("/") and kind == "file":
        kind = "directory"
    if (kind == "symlink") != (link is not None):
        raise BadRequest('A symlink target path goes with type "symlink", and only with it')
    place = place.at(place.path)
    usual = {"file": _NEW_FILE, "directory": _NEW_DIRECTORY}.get(kind)
    bits = _mode(mode)
    owner = Owner(max(uid, 0), max(gid, 0), usual if bits is None else bits)
    if mkdir:
        above = place.at(posixpath.dirname(place.path))
        above.make_directories(replace(owner, mode=_NEW_DIRECTORY))
    _make_room(place, kind, force=force)
    place.put(kind, owner, os.fsencode(link or ""))


def _make_room(place: Place, kind: str, *, force: bool) -> None:
    """Delete what is in the place of a new file or link, if that is wanted."""
    if force and kind != "directory":
        try:
            place.delete()
        except Refused as error:
            if error.code != 404:
                raise
    elif kind == "file":
        try:
            found = place.get()
        except Refused as error:
            if error.code != 404:
                raise
        else:
            found.response.close()
            raise BadRequest(f"{place.path} exists: use --force to replace it")


def _at_least_two(words: tuple[str, ...]) -> tuple[str, ...]:
    if len(words) < 2:
        raise click.UsageError("Invalid number of arguments", click.get_current_context())
    return words


def _mode(text: str) -> int | None:
    """Return permissions given as octal digits. Raises BadRequest."""
    if not text:
        return None
    try:
        number = int(text, 8)
    except ValueError:
        number = -1
    if not 0 <= number <= 0o7777:
        raise BadRequest(f"Invalid mode {text}: write octal digits, such as 0644")
    return number


def _completed(owner: Owner, source: str) -> Owner:
    """Return the owner with what is not given as the local file has it; root's for stdin."""
    own = Owner(0, 0, None) if source == "-" else file_transfer.owner_of(os.stat(source))
    return Owner(
        own.uid if owner.uid is None else owner.uid,
        own.gid if owner.gid is None else owner.gid,
        own.mode if owner.mode is None else owner.mode,
    )
