"""Images of other remotes: found there, and named so that a server can fetch them by itself."""

from __future__ import annotations

from lxpy.client.transport import quote
from lxpy.errors import BadRequest, NotFound, NotSupported, Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from lxpy.cli.session import Session
    from lxpy.client.client import Client, Json
    from lxpy.client.remotes import Remote

SIMPLESTREAMS = "simplestreams"


class NotListening(BadRequest):
    """A server that others cannot reach."""

    def __init__(self, remote: Remote) -> None:
        super().__init__(
            "The source server isn't listening on the network: set core.https_address "
            f'of "{remote.name}", or copy the image with --mode relay'
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


def sources(session: Session, remote: Remote, name: str) -> list[Json]:
    """Return what to tell a server that shall fetch an image: one for each address to try.

    An image that is not public is given a secret for one fetching. Raises NotFound, NotListening.
    """
    base = {"type": "image", "mode": "pull"}
    if remote.protocol == "images":
        return [{**base, "protocol": "images", "server": "", "alias": name}]
    if remote.protocol == SIMPLESTREAMS:
        return [{**base, "protocol": SIMPLESTREAMS, "server": remote.address, "alias": name}]
    client = session.client(remote)
    image = find(session, remote, name)
    addresses, certificate = _reach(client, remote)
    base |= {"protocol": "lxd", "certificate": certificate, "project": client.project}
    if image["public"] and not image["fingerprint"].startswith(name):
        base["alias"] = name
    else:
        base["fingerprint"] = image["fingerprint"]
    if not image["public"]:
        path = f"/1.0/images/{image['fingerprint']}/secret"
        base["secret"] = client.begin("POST", path)["metadata"]["secret"]
    return [{**base, "server": address} for address in addresses]


def target(session: Session, remote: Remote) -> tuple[str, str]:
    """Return address and certificate by which others reach a server. Raises NotListening."""
    addresses, certificate = _reach(session.client(remote), remote)
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


def _reach(client: Client, remote: Remote) -> tuple[list[str], str]:
    environment = (client.get("/1.0") or {}).get("environment") or {}
    addresses = [f"https://{each}" for each in environment.get("addresses") or []]
    if remote.address.startswith("https://"):
        addresses = [remote.address, *(each for each in addresses if each != remote.address)]
    if not addresses:
        raise NotListening(remote)
    return addresses, str(environment.get("certificate") or "")
