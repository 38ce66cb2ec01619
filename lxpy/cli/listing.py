"""`lxpy list`: instances and what is known of them."""

from __future__ import annotations

from lxpy.cli import columns as cells
from lxpy.cli import filters, render
from lxpy.errors import BadRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxpy.cli.session import Session
    from lxpy.client.client import Json


def list_instances(
    session: Session,
    words: tuple[str, ...] = (),
    *,
    columns: str = "",
    form: str = "table",
    fast: bool = False,
    all_projects: bool = False,
) -> None:
    """Print the instances that all filters among `words` select; one may name a remote.

    Raises BadRequest for a wrong column or format.
    """
    if columns and fast:
        raise BadRequest("Can't specify --fast with --columns")
    if form not in render.FORMATS:
        raise BadRequest(f'Invalid format "{form}"')
    chosen = columns or (cells.FAST if fast else cells.DEFAULT)
    if all_projects and not columns:
        chosen = f"e{chosen}"
    parsed = list(cells.parse(chosen))
    remote, wanted = _split(session, words)
    client, _ = session.server(remote)
    parameters = {"recursion": "1"}
    if _needs_state({letter for _, _, letter in parsed}, form, wanted):
        parameters["recursion"] = "2"
    if all_projects:
        parameters["all-projects"] = "true"
    found: list[Json] = client.get("/1.0/instances", **parameters)
    selected = [instance for instance in found if filters.selects(wanted, instance)]
    selected.sort(key=lambda each: render.natural((str(each.get("project")), str(each["name"]))))
    rows = [[cell(instance) for _, cell, _ in parsed] for instance in selected]
    render.show(form, [title for title, _, _ in parsed], rows, selected)


def _split(session: Session, words: tuple[str, ...]) -> tuple[str, list[str]]:
    """Return the remote, as "name:", and the filters; "remote:web" is both at once."""
    remote, wanted = "", []
    for word in words:
        name, colon, rest = word.partition(":")
        if colon and "=" not in name and name in session.remotes.names():
            remote = f"{name}:"
            word = rest
        if word:
            wanted.append(word)
    return remote, wanted


def _needs_state(letters: set[str], form: str, wanted: list[str]) -> bool:
    """Whether the full objects are needed, which cost the server more."""
    if form in ("json", "yaml") or letters & (cells.STATEFUL | cells.WITH_SNAPSHOTS):
        return True
    return any(word.partition("=")[0] in filters.STATEFUL for word in wanted)
