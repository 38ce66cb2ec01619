"""What users write to name things: "remote:instance/snapshot", "key=value"."""

from __future__ import annotations

from lxpy.errors import BadRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def split_snapshot(name: str) -> tuple[str, str]:
    """Return instance and snapshot of "c1/s1"; the snapshot is empty for "c1"."""
    instance, _, snapshot = name.partition("/")
    return instance, snapshot


def pairs(words: Iterable[str]) -> dict[str, str]:
    """Return the values of "key=value" words. Raises BadRequest for another word."""
    found = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise BadRequest(f"Bad key=value pair: {word}")
        found[key] = value
    return found


def settings(words: tuple[str, ...]) -> dict[str, str]:
    """Return the values of "key=value..." or of the older "key value". Raises BadRequest."""
    if len(words) == 2 and "=" not in words[0]:
        return {words[0]: words[1]}
    return pairs(words)


def overrides(words: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return devices with their options of "device,key=value[,key=value...]". Raises BadRequest."""
    found: dict[str, dict[str, str]] = {}
    for word in words:
        device, comma, options = word.partition(",")
        if not comma or not device:
            raise BadRequest(
                f"Bad device override syntax, expecting <device>,<key>=<value>: {word}"
            )
        found.setdefault(device, {}).update(pairs(options.split(",")))
    return found
