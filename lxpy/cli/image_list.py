"""`lxpy image list`: what is in the store, and with `images:` what can be had."""

from __future__ import annotations

from collections.abc import Callable

from lxpy.cli import texts
from lxpy.cli.declare import argument, command, format_option, option
from lxpy.cli.image_source import SIMPLESTREAMS, offers
from lxpy.cli.render import ordered, show
from lxpy.cli.session import Session
from lxpy.client.client import Client, Json
from lxpy.errors import BadRequest, NotSupported, Refused

_DEFAULT = "lfpdatsu"


def megabytes(size: int) -> str:
    """Write bytes as `lxc image` does: in units of 2^20, always."""
    return f"{size / 1024**2:.2f}MB"


def _shortest(each: Json) -> str:
    """Return the shortest alias, and how many more there are."""
    found = sorted((alias["name"] for alias in each["aliases"] or []), key=lambda n: (len(n), n))
    if not found:
        return ""
    return f"{found[0]} ({len(found) - 1} more)" if len(found) > 1 else str(found[0])


_LETTERS: dict[str, tuple[str, Callable[[Json], str]]] = {
    "l": ("ALIAS", _shortest),
    "L": ("ALIASES", lambda each: "\n".join(alias["name"] for alias in each["aliases"] or [])),
    "f": ("FINGERPRINT", lambda each: str(each["fingerprint"])[:12]),
    "F": ("FINGERPRINT", lambda each: str(each["fingerprint"])),
    "p": ("PUBLIC", lambda each: texts.yes(each["public"]).lower()),
    "d": ("DESCRIPTION", lambda each: str((each["properties"] or {}).get("description", ""))),
    "a": ("ARCHITECTURE", lambda each: str(each["architecture"])),
    "s": ("SIZE", lambda each: megabytes(each["size"])),
    "u": ("UPLOAD DATE", lambda each: texts.long_date(each["uploaded_at"])),
    "t": ("TYPE", lambda each: str(each["type"]).upper()),
}


@command(None, "list", short_help="List images")
@argument("words", "[<remote>:] [<filter>...]", nargs=-1)
@option("-c", "--columns", default=_DEFAULT, help=f'Columns (default "{_DEFAULT}")')
@format_option()
def list_images(session: Session, words: tuple[str, ...], columns: str, form: str) -> None:
    """List images.

    Filters may be of the <key>=<value> form for property based filtering, or part of the image
    hash or part of the image alias name.

    \b
    Column shorthand chars:
        l - Shortest image alias (and optionally number of other aliases)
        L - Newline-separated list of all image aliases
        f - Fingerprint (short)
        F - Fingerprint (long)
        p - Whether image is public
        d - Description
        a - Architecture
        s - Size
        u - Upload date
        t - Type
    """
    first = words[0] if words and ":" in words[0].partition("=")[0] else ""
    remote, rest = session.parse(first)
    filters = [word for word in ((rest, *words[1:]) if first else words) if word]
    if remote.protocol == "images":
        client, _ = session.server("")
        _show_recipes(client, filters, form)
        return
    letters = columns.replace(",", "")
    if wrong := [letter for letter in letters if letter not in _LETTERS]:
        raise BadRequest(f"Unknown column shorthand char '{wrong[0]}' in '{columns}'")
    if remote.protocol == SIMPLESTREAMS:
        found = offers(session, remote)
    else:
        found = session.client(remote).get("/1.0/images", recursion="1")
    found = [each for each in found if all(_selects(word, each) for word in filters)]
    rows = [[_LETTERS[letter][1](each) for letter in letters] for each in found]
    show(form, [_LETTERS[letter][0] for letter in letters], ordered(rows), found)


def _selects(word: str, each: Json) -> bool:
    key, equals, value = word.partition("=")
    if equals:
        return value == str((each["properties"] or {}).get(key, each.get(key, "")))
    names = [alias["name"] for alias in each["aliases"] or []]
    return each["fingerprint"].startswith(word) or any(word in name for name in names)


def _show_recipes(client: Client, filters: list[str], form: str) -> None:
    """Print the recipes that the server can build images from. Raises NotSupported."""
    try:
        found = client.get("/1.0/lxpy/recipes")
    except Refused as error:
        if error.code != 404:
            raise
        raise NotSupported(
            f"The server at {client.path} has no list of image recipes: it is not lxpyd, or older"
        ) from error
    found = [each for each in found if all(_mentions(word, each) for word in filters)]
    rows = [
        [each["name"], "\n".join(each.get("aliases") or []), each.get("description") or ""]
        for each in found
    ]
    show(form, ("NAME", "ALIASES", "DESCRIPTION"), rows, found)


def _mentions(word: str, recipe: Json) -> bool:
    return any(word in name for name in (recipe["name"], *(recipe.get("aliases") or [])))
