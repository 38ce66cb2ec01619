"""The `filter` parameter of lists: `status eq running and config.user.x ne "a b"`.

Source: LXD docs, "REST API", "Filtering".
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from lxpy.errors import Failed

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Clause:
    """One comparison; `joined` is how it goes with what stands before it."""

    field: str
    negated: bool
    value: str
    joined: str = "and"

    def __call__(self, given: Object) -> bool:
        return _equal(_look_up(given, self.field), self.value) != self.negated


@dataclass(frozen=True, slots=True)
class Filter:
    """Clauses, evaluated from left to right without precedence."""

    clauses: tuple[Clause, ...]

    @classmethod
    def parse(cls, text: str) -> Filter:
        """Read `[not] FIELD eq|ne VALUE [and|or ...]`. Raises Failed."""
        try:
            words = shlex.split(text)
        except ValueError as error:
            raise Failed(f"Invalid filter: {error}") from error
        return cls(tuple(_clauses(words)))

    def __call__(self, given: Object) -> bool:
        """Tell whether an object, as its JSON has it, gets through."""
        result = True
        for number, clause in enumerate(self.clauses):
            if number and clause.joined == "or":
                result = result or clause(given)
            else:
                result = result and clause(given)
        return result


def _clauses(words: list[str]) -> Iterator[Clause]:
    rest = list(words)
    joined = "and"
    while True:
        negated = bool(rest) and rest[0].lower() == "not"
        if negated:
            rest.pop(0)
        if len(rest) < 2:
            raise Failed("Invalid filter: clause has no operator")
        if len(rest) < 3:
            raise Failed("Invalid filter: clause has no value")
        field, operator, value = rest[:3]
        if operator.lower() not in ("eq", "ne"):
            raise Failed(f'Invalid filter: unknown operator "{operator}", use eq or ne')
        yield Clause(field, negated != (operator.lower() == "ne"), value, joined)
        rest = rest[3:]
        if not rest:
            return
        joined = rest.pop(0).lower()
        if joined not in ("and", "or"):
            raise Failed(f'Invalid filter: clauses are joined by "and" or "or", not "{joined}"')


def _look_up(given: Any, field: str) -> Any:
    """Follow a dotted path; config keys have dots of their own."""
    if not isinstance(given, dict):
        return None
    if field in given:
        return given[field]
    head, dot, rest = field.partition(".")
    while dot:
        if head in given:
            return _look_up(given[head], rest)
        more, dot, rest = rest.partition(".")
        head = f"{head}.{more}"
    return None


def _equal(have: Any, wanted: str) -> bool:
    if isinstance(have, bool):
        return wanted.lower() == str(have).lower()
    if have is None:
        return not wanted
    if not isinstance(have, str):
        return bool(str(have) == wanted)
    return bool(_matcher(wanted)(have))


def _matcher(wanted: str) -> Callable[[str], object]:
    pattern = wanted if "^" in wanted or "$" in wanted else f"^(?:{wanted})$"
    try:
        return re.compile(pattern, re.IGNORECASE).search
    except re.error:
        return lambda have: have.lower() == wanted.lower()
