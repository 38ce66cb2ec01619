"""Images of other remotes: found there, and named so that a server can fetch them by itself."""

from __future__ import annotations

from contextlib import contextmanager

from lxpy.client.transport import quote
from lxpy.errors import BadRequest, NotFound, NotSupported, Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lxpy.cli.session import Session
    from lxpy.client.client import Client, Json
    from lxpy.client.remotes import Remote

SIMPLESTREAMS = "simplestreams"


class NotListening(BadRequest):
    """A server that others cannot reach."""

    def __init__(self, remote: Remote) -> None:
        super().__init__(
            "The source server isn't listening on the network: set core.https_address "
            f'of "{remote.name}", or use --mode relay'
        )


def fingerprint(client: Client, name: str) -> str:
    """Return the fingerprint of an image by its alias or (partial) fingerprint.

    Raises NotFound when there is none.
    """
    if (alias := client.find(f"/1.0/images/aliases/{quote(name)}")) is not None:
        return str(alias["target"])
    if (image := client.find(f"/1.0/images/{quote(name)}")) is not None:
        return str(image["fingerprint"])
    raise NotFound(
        f'Image not found: "{name}" is neither alias nor fingerprint here; '
        f"`lxpy image list` shows what is, and images:{name} may be what you mean"
    )


def find(session: Session, remote: Remote, name: str) -> Json:
    """Return an image of a server or of an image server, as the API shows it. Raises NotFound."""
    if remote.protocol == SIMPLESTREAMS:
        for each in offers(session, remote):
            named = any(alias["name"] == name for alias in each["aliases"])
            if named or (len(name) >= 12 and each["fingerprint"].startswith(name)):
                return each
        raise NotFound(f'Image not found: "{name}" is no alias or fingerprint of {remote.name}:')
    client = session.client(remote)
    found: Json = client.get(f"/1.0/images/{fingerprint(client, name)}")
    return found


def offers(session: Session, remote: Remote) -> list[Json]:
    """Return the images of an image server, which the local server asks. Raises NotSupported."""
    client, _ = session.server("")
    try:
        found: list[Json] = client.get("/1.0/lxpy/offers", server=remote.address)
    except Refused as error:
        if error.code != 404:
            raise
        raise NotSupported(
            f"The default remote does not list what {remote.name}: has: it is not lxpyd, or older"
        ) from error
    return found


@contextmanager
def sources(session: Session, remote: Remote, name: str) -> Iterator[list[Json]]:
    """Yield what to tell a server that shall fetch an image: one for each address to try.

    An image that is not public is given a secret, which ends with the block. Raises NotFound,
    NotListening.
    """
    base = {"type": "image", "mode": "pull"}
    if remote.protocol == "images":
        yield [{**base, "protocol": "images", "server": "", "alias": name}]
        return
    if remote.protocol == SIMPLESTREAMS:
        yield [{**base, "protocol": SIMPLESTREAMS, "server": remote.address, "alias": name}]
        return
    client = session.client(remote)
    image = find(session, remote, name)
    addresses, certificate = reach(client, remote)
    base |= {"protocol": "lxd", "certificate": certificate, "project": client.project}
    if image["public"] and not image["fingerprint"].startswith(name):
        yield [{**base, "server": address, "alias": name} for address in addresses]
        return
    base["fingerprint"] = image["fingerprint"]
    if image["public"]:
        yield [{**base, "server": address} for address in addresses]
        return
    token = client.begin("POST", f"/1.0/images/{image['fingerprint']}/secret")
    base["secret"] = token["metadata"]["secret"]
    try:
        yield [{**base, "server": address} for address in addresses]
    finally:
        revoke(client, token)


def revoke(client: Client, token: Json) -> None:
    """End a token, unless it has been used."""
    path = f"/1.0/operations/{token['id']}"
    found = client.find(path)
    if found is not None and found["status"] == "Running":
        client.ask("DELETE", path)


def target(session: Session, remote: Remote) -> tuple[str, str]:
    """Return address and certificate by which others reach a server. Raises NotListening."""
    addresses, certificate = reach(session.client(remote), remote)
    return addresses[0], certificate


def attempt(candidates: list[Json], work: Callable[[Json], Json]) -> Json:
    """Do some work with the first source that serves it. Raises the last one's Refused."""
    for number, each in enumerate(candidates, start=1):
        try:
            return work(each)
        except Refused:
            if number == len(candidates):
                raise
    raise BadRequest("There is no source to fetch the image from")


def reach(client: Client, remote: Remote) -> tuple[list[str], str]:
    """Return the addresses by which others reach a server, its certificate. Raises NotListening."""
    environment = (client.get("/1.0") or {}).get("environment") or {}
    addresses = [f"https://{each}" for each in environment.get("addresses") or []]
    if remote.address.startswith("https://"):
        addresses = [remote.address, *(each for each in addresses if each != remote.address)]
    if not addresses:
        raise NotListening(remote)
    return addresses, str(environment.get("certificate") or "")
