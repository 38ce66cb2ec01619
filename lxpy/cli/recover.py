"""`lxpy recover`: instances and volumes that lie on storage pools and are not known any more."""

from __future__ import annotations

import time

import click

from lxpy.cli import texts
from lxpy.cli.declare import command, flag
from lxpy.cli.session import Session
from lxpy.client.client import Client, Json
from lxpy.errors import BadRequest, LxpyError

_READY_S = 60.0


@command(None, "recover", short_help="Find instances and volumes of a lost database again")
@flag("-y", "--yes", help="Don't ask")
@click.option(
    "--pool",
    "pools",
    multiple=True,
    metavar="NAME:DRIVER:SOURCE[:key=value]",
    help="Look on this storage pool, too (may be repeated)",
)
@flag("--bare", help="Take in volumes without a record, too, with the default profile")
@flag("--database", help="Put what is sound in the place of a damaged database first")
@flag("--start-over", "start_over", help="Begin without what was lost; it stays on the pools")
def recover(
    session: Session,
    yes: bool,
    pools: tuple[str, ...],
    bare: bool,
    database: bool,
    start_over: bool,
) -> int:
    """Find instances, snapshots and volumes that the database does not know.

    They are looked for on all storage pools that are known or recorded, and on those given with
    --pool. What the database knows is not changed; what runs goes on running.
    """
    client, _ = session.server("")
    if start_over:
        if yes or click.confirm(
            "Begin with nothing, stop what runs, and leave what is on the pools unknown?"
        ):
            client.change("POST", "/internal/recover/start-over", {})
            _wait(client)
        return 0
    if database:
        _replace(session, client, yes=yes)
    body = {"pools": [_pool(each) for each in pools], "bare": bare}
    found = client.change("POST", "/internal/recover/validate", body)
    if not _show(session, found) and not found["condition"]:
        session.say("Nothing was found that is not known")
        return _status(found)
    if not yes and not click.confirm("Would you like to recover this?", default=True):
        return 0
    done = client.change("POST", "/internal/recover/import", body)
    _wait(client)
    ready = [each for each in done["UnknownVolumes"] if not each["problem"]]
    session.say(f"Recovered: {len(ready)} volumes")
    return _status(done)


def _replace(session: Session, client: Client, *, yes: bool) -> None:
    question = "Put the newest sound copy in the place of the database?"
    if not yes and not click.confirm(question, default=True):
        raise BadRequest("The database stays as it is")
    done = client.change("POST", "/internal/recover/database", {})
    _wait(client)
    if not done["path"]:
        session.say("There was no sound copy: the database begins empty")
    elif done["made_at"]:
        session.say(f"The database is its copy of {texts.date(done['made_at'])}: {done['path']}")
    else:
        session.say("The database was written anew, nothing of it is lost")


def _wait(client: Client) -> None:
    """Wait until the daemon has begun anew."""
    end = time.monotonic() + _READY_S
    time.sleep(0.2)
    while True:
        try:
            client.get("/1.0")
            return
        except (LxpyError, OSError):
            if time.monotonic() > end:
                raise
            time.sleep(0.2)


def _pool(text: str) -> Json:
    """Parse NAME:DRIVER:SOURCE[:key=value]. Raises BadRequest."""
    name, _, rest = text.partition(":")
    driver, _, rest = rest.partition(":")
    source, *words = rest.split(":")
    config = {"source": source} if source else {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise BadRequest(f'Invalid pool "{text}": write "{word}" as key=value')
        config[key] = value
    if not name or not driver:
        raise BadRequest(f'Invalid pool "{text}": write NAME:DRIVER:SOURCE[:key=value]')
    return {"name": name, "driver": driver, "config": config}


def _show(session: Session, found: Json) -> bool:
    """Print what was found; tell whether there is anything to recover."""
    if found["condition"]:
        session.say(found["condition"])
    lines = [
        *(f'Storage pool "{each["name"]}" ({each["driver"]})' for each in found["pools"]),
        *(f'Network "{each}"' for each in found["networks"]),
        *(f'Profile "{each}"' for each in found["profiles"]),
        *(f"Image {each[:12]}" for each in found["images"]),
        *(_volume(each) for each in found["UnknownVolumes"] if not each["problem"]),
    ]
    for title, what in (
        ("The following was found:", lines),
        ("This cannot be recovered as it is:", _problems(found)),
    ):
        if what:
            session.say("\n".join([title, *(f" - {each}" for each in what)]))
    return bool(lines)


def _problems(found: Json) -> list[str]:
    bare = [each for each in found["UnknownVolumes"] if each["problem"] and not each["record"]]
    return [*found["DependencyErrors"], *(f"{_volume(each)}: {each['problem']}" for each in bare)]


def _volume(each: Json) -> str:
    kind = "Instance" if each["type"] == "container" else "Volume"
    count = each["snapshotCount"]
    snapshots = f", {count} snapshot{'' if count == 1 else 's'}" if count else ""
    project = "" if each["project"] == "default" else f' of project "{each["project"]}"'
    return f'{kind} "{each["name"]}"{project} on pool "{each["pool"]}"{snapshots}'


def _status(found: Json) -> int:
    return 1 if found["DependencyErrors"] else 0
