"""What profiles, networks and storage pools have in common: named objects with config keys."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from lxpy.cli.declare import Group, argument, command, names, target_option
from lxpy.cli.editor import edit
from lxpy.cli.session import Session
from lxpy.cli.target import settings
from lxpy.cli.yamltext import dump
from lxpy.client.client import Client, Json
from lxpy.client.transport import quote
from lxpy.errors import BadRequest


@dataclass(frozen=True)
class Kind:
    """A kind of object.

    noun: as in the texts, "storage pool"; word: as in usage lines, "pool"
    collection: its path below /1.0; writable: the fields that PUT takes
    """

    noun: str
    word: str
    collection: str
    writable: tuple[str, ...]

    def path(self, name: str) -> str:
        """Return the path of an object."""
        return f"/1.0/{self.collection}/{quote(name)}"

    def locate(self, session: Session, text: str) -> tuple[Client, str]:
        """Return client and name of "remote:name". Raises BadRequest when the name is empty."""
        client, name = session.server(text)
        if not name:
            raise BadRequest(f"Missing {self.noun} name")
        return client, name

    def put(self, client: Client, name: str, found: Json, etag: str) -> None:
        """Write back an object that was read with `etag`. Raises Refused."""
        body = {key: found[key] for key in self.writable if key in found}
        client.change("PUT", self.path(name), body, etag=etag)

    @property
    def title(self) -> str:
        """How a sentence begins with its noun."""
        return self.noun[0].upper() + self.noun[1:]

    @property
    def metavar(self) -> str:
        """How usage lines write its name."""
        return f"[<remote>:]<{self.word}>"


def declare_common(group: Group, kind: Kind, *, renames: bool = True) -> None:
    """Declare get, set, unset, show, edit, delete and rename of a kind."""
    _declare_keys(group, kind)
    _declare_whole(group, kind)
    if renames:

        @command(group, "rename", short_help=f"Rename {kind.noun}s")
        @argument("name", kind.metavar, shell_complete=names(kind.collection))
        @argument("new", "<new-name>")
        def rename(session: Session, name: str, new: str) -> None:
            client, old = kind.locate(session, name)
            client.change("POST", kind.path(old), {"name": new})
            session.say(f"{kind.title} {old} renamed to {new}")

        rename.help = f"Rename {kind.noun}s."


def _declare_keys(group: Group, kind: Kind) -> None:
    @command(group, "get", help=f"Get values for {kind.noun} configuration keys.")
    @argument("name", kind.metavar, shell_complete=names(kind.collection))
    @argument("key", "<key>")
    @target_option()
    def get(session: Session, name: str, key: str) -> None:
        client, name = kind.locate(session, name)
        print((client.get(kind.path(name))["config"] or {}).get(key, ""))

    @command(group, "set", help=f"Set {kind.noun} configuration keys.")
    @argument("name", kind.metavar, shell_complete=names(kind.collection))
    @argument("words", "<key>=<value>...", nargs=-1, required=True)
    @target_option()
    def set_keys(session: Session, name: str, words: tuple[str, ...]) -> None:
        client, name = kind.locate(session, name)
        found, etag = client.fetch(kind.path(name))
        found["config"] = {**(found["config"] or {}), **settings(words)}
        kind.put(client, name, found, etag)

    @command(group, "unset", help=f"Unset {kind.noun} configuration keys.")
    @argument("name", kind.metavar, shell_complete=names(kind.collection))
    @argument("key", "<key>")
    @target_option()
    def unset(session: Session, name: str, key: str) -> None:
        client, name = kind.locate(session, name)
        found, etag = client.fetch(kind.path(name))
        found["config"] = {k: value for k, value in (found["config"] or {}).items() if k != key}
        kind.put(client, name, found, etag)


def _declare_whole(group: Group, kind: Kind) -> None:
    @command(group, "show", help=f"Show {kind.noun} configurations.")
    @argument("name", kind.metavar, shell_complete=names(kind.collection))
    @target_option()
    def show(session: Session, name: str) -> None:
        client, name = kind.locate(session, name)
        sys.stdout.write(dump(client.get(kind.path(name))))

    @command(group, "edit", help=f"Edit {kind.noun} configurations as YAML, or read them on stdin.")
    @argument("name", kind.metavar, shell_complete=names(kind.collection))
    def edit_whole(session: Session, name: str) -> None:
        client, name = kind.locate(session, name)
        found, etag = client.fetch(kind.path(name))
        edit(
            found,
            f"This is a YAML representation of the {kind.noun}.\nAny line starting with a '# will "
            f"be ignored; only {', '.join(kind.writable)} can be changed.",
            lambda wanted: kind.put(client, name, wanted, etag),
        )

    @command(group, "delete", help=f"Delete {kind.noun}s.")
    @argument("name", kind.metavar, shell_complete=names(kind.collection))
    def delete(session: Session, name: str) -> None:
        client, name = kind.locate(session, name)
        client.change("DELETE", kind.path(name))
        session.say(f"{kind.title} {name} deleted")
