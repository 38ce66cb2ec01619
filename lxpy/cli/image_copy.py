"""`lxpy image copy`: images from one remote to another, in LXD's three modes."""

from __future__ import annotations

import click

from lxpy.cli import image_source
from lxpy.cli.declare import argument, command, flag, option
from lxpy.cli.image_alias import set_aliases
from lxpy.cli.image_transfer import send
from lxpy.cli.progress import Meter
from lxpy.cli.session import Session
from lxpy.client.client import Client, Json
from lxpy.client.remotes import Remote
from lxpy.client.transport import Upload, query
from lxpy.errors import BadRequest, LxpyError


@command(None, "copy", short_help="Copy images between servers")
@argument("name", "[<remote>:]<image>")
@argument("destination", "<remote>:", required=True)
@option("--alias", "aliases", multiple=True, metavar="NAME", help="New aliases to add to the image")
@flag("--auto-update", help="Keep the image up to date after initial copy")
@flag("--copy-aliases", help="Copy aliases from source")
@click.option(
    "--mode",
    type=click.Choice(("pull", "push", "relay")),
    default=None,
    help="Transfer mode: the target fetches it (pull, the default), the source sends it (push), "
    "or this program does both (relay, the default where the source is not on the network)",
)
@flag("--public", help="Make image public")
@option("--target-project", default="", metavar="NAME", help="Copy to another project")
@flag("--vm", hidden=True, help="Copy virtual machine images")
def copy(
    session: Session,
    name: str,
    destination: str,
    aliases: tuple[str, ...],
    auto_update: bool,
    copy_aliases: bool,
    mode: str | None,
    public: bool,
    target_project: str,
    vm: bool,
) -> None:
    """Copy images between servers.

    The auto-update flag instructs the server to keep this image up to date. It requires the source
    to be an alias and for it to be public.

    \b
    lxpy image copy images:debian/13 local:
    lxpy image copy lab:web other: --copy-aliases --mode push
    """
    source, image = session.parse(name)
    target, rest = session.parse(destination)
    if rest:
        raise BadRequest("Can't provide a name for the target image")
    if not image:
        raise BadRequest("Image identifier missing")
    client = session.client(target)
    if target_project:
        client.project = target_project
    job = Copy(session, source, image, target, client, public=public, auto_update=auto_update)
    mark = job.run(mode)
    if copy_aliases:
        aliases = (*aliases, *job.aliases())
    set_aliases(client, mark, aliases)
    session.say("Image copied successfully!")


class Copy:
    """One copy of an image from a remote to the server of `client`, which is `target`."""

    def __init__(
        self,
        session: Session,
        source: Remote,
        image: str,
        target: Remote,
        client: Client,
        *,
        public: bool,
        auto_update: bool,
    ) -> None:
        self._session = session
        self._source = source
        self._image = image
        self._target = target
        self._client = client
        self._wish: Json = {"public": public, "auto_update": auto_update, "aliases": []}

    def run(self, mode: str | None) -> str:
        """Copy; return the fingerprint. Raises Refused, NotFound, BadRequest."""
        if self._source.protocol != "lxd":
            if mode in ("push", "relay"):
                raise BadRequest(f"{self._source.name}: can only be copied from in mode pull")
            return self._pull()
        origin = self._session.client(self._source)
        if (origin.path, origin.project) == (self._client.path, self._client.project):
            raise BadRequest("The source and target servers must be different")
        if mode == "push":
            return self._push(origin)
        if mode == "relay":
            return self._relay(origin)
        try:
            return self._pull()
        except image_source.NotListening:
            if mode == "pull":
                raise
        return self._relay(origin)

    def aliases(self) -> list[str]:
        """Return the aliases of the source image."""
        if self._source.protocol == "images":
            return [self._image]
        found = image_source.find(self._session, self._source, self._image)
        return [str(each["name"]) for each in found["aliases"] or []]

    def _pull(self) -> str:
        """Let the target fetch it."""
        with image_source.sources(self._session, self._source, self._image) as candidates:
            done = image_source.attempt(
                candidates,
                lambda each: self._client.change(
                    "POST", "/1.0/images", {**self._wish, "source": each}
                ),
            )
        return fingerprint_of(done)

    def _push(self, origin: Client) -> str:
        """Let the source send it to the target, which expects it by a secret."""
        address, certificate = image_source.target(self._session, self._target)
        found = self._found()
        body = {
            **self._wish,
            "properties": found["properties"],
            "expires_at": found["expires_at"],
            "source": {"mode": "push", "fingerprint": found["fingerprint"]},
        }
        token = self._client.begin("POST", "/1.0/images", body)
        try:
            origin.change(
                "POST",
                f"/1.0/images/{found['fingerprint']}/export",
                {
                    "target": address,
                    "certificate": certificate,
                    "secret": token["metadata"]["secret"],
                    "project": self._client.project,
                },
            )
        finally:
            image_source.revoke(self._client, token)
        return str(found["fingerprint"])

    def _relay(self, origin: Client) -> str:
        """Read it from the source and write it to the target, piece by piece."""
        found = self._found()
        mark = str(found["fingerprint"])
        response = origin.download(f"/1.0/images/{mark}/export")
        headers = {
            "Content-Type": response.headers.get("content-type", "application/octet-stream"),
            "X-LXD-fingerprint": mark,
            "X-LXD-filename": found["filename"],
            "X-LXD-properties": query(found["properties"] or {}).removeprefix("?"),
        }
        if self._wish["public"]:
            headers["X-LXD-public"] = "true"
        meter = Meter(self._client, "Copying the image")
        body = Upload(response.length, meter.watch(response.pieces(), response.length))
        return fingerprint_of(send(self._client, body, headers, meter))

    def _found(self) -> Json:
        return image_source.find(self._session, self._source, self._image)


def fingerprint_of(operation: Json) -> str:
    """Return the fingerprint of the image that an operation made. Raises LxpyError."""
    mark = str((operation.get("metadata") or {}).get("fingerprint", ""))
    if not mark:
        raise LxpyError("The server did not say which image it made; see `lxpy image list`")
    return mark
