"""The verbs of every day without click, which takes 20 ms to import: as long as all else they do.

Only the plainest spellings of the flags are understood here; whatever else there is (help, an
unknown flag, an error) goes to click. tests/unit/cli/test_fast.py holds both against each other.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from lxpy.cli.session import Session

    #: The arguments of a command by the names of its function's parameters.
    Parsed = dict[str, object]

#: Flags by spelling: the parameter, and what it takes: "" nothing, "1" a value, "*" many.
_GLOBAL = {"--project": ("project", "1"), "-q": ("quiet", ""), "--quiet": ("quiet", "")}
_ALL = ("every", "")
_FORCE = {"-f": ("force", ""), "--force": ("force", "")}
_NEW = {
    "-c": ("config", "*"),
    "--config": ("config", "*"),
    "-d": ("devices", "*"),
    "--device": ("devices", "*"),
    "-e": ("ephemeral", ""),
    "--ephemeral": ("ephemeral", ""),
    "-n": ("network", "1"),
    "--network": ("network", "1"),
    "--no-profiles": ("no_profiles", ""),
    "-p": ("profiles", "*"),
    "--profile": ("profiles", "*"),
    "-s": ("storage", "1"),
    "--storage": ("storage", "1"),
}
FLAGS: dict[str, dict[str, tuple[str, str]]] = {
    "exec": {
        "--cwd": ("cwd", "1"),
        "-n": ("disable_stdin", ""),
        "--disable-stdin": ("disable_stdin", ""),
        "--env": ("env", "*"),
        "-t": ("force_interactive", ""),
        "--force-interactive": ("force_interactive", ""),
        "-T": ("force_noninteractive", ""),
        "--force-noninteractive": ("force_noninteractive", ""),
        "--mode": ("mode", "1"),
    },
    "list": {
        "--all-projects": ("all_projects", ""),
        "-c": ("columns", "1"),
        "--columns": ("columns", "1"),
        "--fast": ("fast", ""),
        "-f": ("form", "1"),
        "--format": ("form", "1"),
    },
    "start": {"--all": _ALL},
    "stop": {"--all": _ALL, **_FORCE},
    "restart": {"--all": _ALL, **_FORCE},
    "pause": {"--all": _ALL},
    "resume": {"--all": _ALL},
    "delete": _FORCE,
    "snapshot": {
        "--no-expiry": ("no_expiry", ""),
        "--reuse": ("reuse", ""),
        "--stateful": ("stateful", ""),
    },
    "restore": {"--stateful": ("stateful", "")},
    "launch": _NEW,
    "init": _NEW,
}
_MODES = ("auto", "interactive", "non-interactive")
_FORMATS = ("csv", "json", "table", "yaml", "compact")


def parse(words: list[str]) -> Parsed | None:
    """Return the arguments of a command that needs no click, or None."""
    flags = FLAGS.get("list" if words[0] == "ls" else words[0])
    if flags is None or (words[0] == "snapshot" and _is_noun(words)):
        return None
    flags = {**_GLOBAL, **flags}
    found: Parsed = {}
    plain: list[str] = []
    rest = iter(words[1:])
    for word in rest:
        if word == "--":
            plain.extend(rest)
        elif not word.startswith("-") or word == "-":
            plain.append(word)
        elif not _flag(word, flags, rest, found):
            return None
    return _positional(words[0], plain, found)


def _is_noun(words: list[str]) -> bool:
    """Whether `snapshot` is followed by a verb of its own."""
    from lxpy.cli.snapshots import VERBS

    return len(words) > 1 and words[1] in VERBS


def _flag(word: str, flags: dict[str, tuple[str, str]], rest: Iterator[str], found: Parsed) -> bool:
    """Take a flag, and its value if it has one, into `found`; whether it is understood."""
    name, equals, value = word.partition("=") if word.startswith("--") else (word, "", "")
    if name not in flags:
        return False
    parameter, takes = flags[name]
    if not takes:
        found[parameter] = True
        return not equals
    if not equals:
        following = next(rest, None)
        if following is None or following.startswith("-"):
            return False
        value = following
    if takes == "*":
        earlier = found.get(parameter, ())
        found[parameter] = (*earlier, value) if isinstance(earlier, tuple) else (value,)
    else:
        found[parameter] = value
    return True


def _positional(verb: str, plain: list[str], found: Parsed) -> Parsed | None:
    if verb == "exec":
        if len(plain) < 2 or found.get("mode", "auto") not in _MODES:
            return None
        found["instance"], found["command"] = plain[0], tuple(plain[1:])
    elif verb in ("list", "ls"):
        if found.get("form", "table") not in _FORMATS:
            return None
        found["words"] = tuple(plain)
    elif verb in ("snapshot", "restore"):
        if len(plain) not in ((1, 2) if verb == "snapshot" else (2,)):
            return None
        found["instance"], found["name"] = plain[0], plain[1] if len(plain) == 2 else None
    elif verb in ("launch", "init"):
        if len(plain) not in (1, 2):
            return None
        found["image"], found["name"] = plain[0], plain[1] if len(plain) == 2 else None
    else:
        if not plain and "every" not in found:
            return None
        found["instances"] = tuple(plain)
    return found


def run(verb: str, session: Session, parsed: Parsed) -> int:
    """Run a command whose arguments `parse` returned; its exit status."""
    project = parsed.pop("project", None)
    if isinstance(project, str):
        session.project = project
    session.quiet = bool(parsed.pop("quiet", False))
    if verb == "exec":
        from lxpy.cli.execute import execute

        return execute(session, **parsed)  # type: ignore[arg-type]  # the names are the function's
    if verb in ("list", "ls"):
        from lxpy.cli.listing import list_instances

        list_instances(session, **parsed)  # type: ignore[arg-type]  # likewise
        return 0
    if verb == "delete":
        from lxpy.cli.removing import delete

        return delete(session, **parsed)  # type: ignore[arg-type]  # likewise
    if verb in ("launch", "init"):
        from lxpy.cli import making

        image, name = parsed.pop("image"), parsed.pop("name")
        return getattr(making, verb)(session, image, name, making.DEFAULTS | parsed)  # type: ignore[no-any-return]
    if verb in ("snapshot", "restore"):
        from lxpy.cli import snapshots

        return getattr(snapshots, verb)(session, **parsed)  # type: ignore[no-any-return]
    from lxpy.cli import changing

    return getattr(changing, verb)(session, **parsed)  # type: ignore[no-any-return]
