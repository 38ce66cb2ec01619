"""What the user's aliases stand for, put into the words of a call."""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_ALL = "@ARGS@"
_ONE = re.compile(r"@ARG(\d+)@")


def expand(words: list[str], aliases: Mapping[str, str]) -> list[str]:
    """Return the words with the alias that they begin with put in, the longest that fits.

    `@ARGS@` stands for the words after the alias, `@ARG1@` for the first of them; words that are
    named by neither come at the end. What an alias stands for is not expanded again, so that
    "list" may stand for "list -c ns". Raises BadRequest when a numbered word is missing.
    """
    for count in range(len(words), 0, -1):
        target = aliases.get(" ".join(words[:count]))
        if target is not None:
            return _fill(target, words[count:])
    return words


def _fill(target: str, rest: list[str]) -> list[str]:
    import shlex

    try:
        parts = shlex.split(target)
    except ValueError:
        parts = target.split()
    used = {int(found) for part in parts for found in _ONE.findall(part)}
    if used and max(used) > len(rest):
        from lxpy.errors import BadRequest

        raise BadRequest(f"Found alias with argument @ARG{max(used)}@, which is missing here")
    filled: list[str] = []
    for part in parts:
        if part == _ALL:
            filled += rest
        else:
            filled.append(_ONE.sub(lambda found: rest[int(found[1]) - 1], part))
    if _ALL not in parts:
        filled += [word for number, word in enumerate(rest, 1) if number not in used]
    return filled
