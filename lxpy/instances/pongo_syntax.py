"""pongo2's template syntax rewritten to Jinja's where they differ; one pass, linear in its length.

Source: pongo2's documentation, Django's template language.
"""

from __future__ import annotations

import re

from jinja2 import TemplateSyntaxError

_OPEN = re.compile(r"\{[{%#]")
_STOP = {"{{": re.compile(r"[\"']|-?\}\}"), "{%": re.compile(r"[\"']|-?%\}")}
_TEXT = {
    '"': re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL),
    "'": re.compile(r"'[^'\\]*(?:\\.[^'\\]*)*'", re.DOTALL),
}
_END_COMMENT = re.compile(r"\{%-?\s{0,9}endcomment\s{0,9}-?%\}")
_END_VERBATIM = re.compile(r"\{%-?\s{0,9}end(?:verbatim|raw)\s{0,9}-?%\}")
_FILTER = re.compile(r"\|\s?([a-z_]+)\s?:\s?([A-Za-z_][\w.]*|-?[0-9.]+|\x00[0-9]+\x00)")
_ORDER = re.compile(r"\s(sorted|reversed)\s*$")
_OPERATORS = (("&&", " and "), ("||", " or "), ("!=", "\x01"), ("!", " not "), ("\x01", "!="))
_WORDS = {
    "endifequal": " endif ", "endifnotequal": " endif ", "empty": " else ",
    "autoescape": " if true ", "endautoescape": " endif ",
}  # fmt: skip
_IF_EQUAL = {"ifequal": "==", "ifnotequal": "!="}


def to_jinja(source: str) -> str:
    """Return the template in Jinja's syntax. Raises TemplateSyntaxError for what does not end."""
    parts: list[str] = []
    position = 0
    while opened := _OPEN.search(source, position):
        parts.append(source[position : opened.start()])
        if opened[0] == "{#":
            position = source.find("#}", opened.end()) + 2
            if position < 2:
                raise _endless(source, opened.start(), "a comment")
            continue
        body, texts, closing, position = _tag(source, opened)
        word = body.split(None, 1)[0] if body.strip() else ""
        if opened[0] == "{%" and word == "comment":
            position = _skip(_END_COMMENT, source, position).end()
        elif opened[0] == "{%" and word in ("verbatim", "raw"):
            end = _skip(_END_VERBATIM, source, position)
            parts += ["{% raw %}", source[position : end.start()], "{% endraw %}"]
            position = end.end()
        else:
            parts += [opened[0], _rewrite(opened[0], body, texts), closing]
    parts.append(source[position:])
    return "".join(parts)


def _tag(source: str, opened: re.Match[str]) -> tuple[str, list[str], str, int]:
    """Return a tag's body, the quoted texts taken out of it, its closing, and what follows it."""
    stop, position = _STOP[opened[0]], opened.end()
    body: list[str] = []
    texts: list[str] = []
    while found := stop.search(source, position):
        body.append(source[position : found.start()])
        if found[0] not in _TEXT:
            return "".join(body).replace("\x00\x00", ""), texts, found[0], found.end()
        text = _TEXT[found[0]].match(source, found.start())
        if text is None:
            raise _endless(source, found.start(), "a quoted text")
        body.append(f"\x00{len(texts)}\x00")
        texts.append(text[0])
        position = text.end()
    raise _endless(source, opened.start(), "a tag")


def _skip(end: re.Pattern[str], source: str, position: int) -> re.Match[str]:
    found = end.search(source, position)
    if found is None:
        raise _endless(source, position, "a block")
    return found


def _rewrite(opened: str, body: str, texts: list[str]) -> str:
    strip = "-" if body.startswith("-") else ""
    body = body[len(strip) :]
    if opened == "{%":
        body = _statement(body)
    for theirs, ours in _OPERATORS:
        body = body.replace(theirs, ours)
    body = _FILTER.sub(r"|\1(\2)", body)
    pieces = body.split("\x00")
    for index in range(1, len(pieces), 2):
        if not pieces[index].isdigit() or int(pieces[index]) >= len(texts):
            raise TemplateSyntaxError("it contains a NUL character", 1)
        pieces[index] = texts[int(pieces[index])]
    return strip + "".join(pieces)


def _statement(body: str) -> str:
    words = body.split()
    word = words[0] if words else ""
    if word in _WORDS:
        return _WORDS[word]
    if word in _IF_EQUAL and len(words) == 3:
        return f" if {words[1]} {_IF_EQUAL[word]} {words[2]} "
    if word == "for" and (order := _ORDER.search(body)):
        head, within, what = body[: order.start()].partition(" in ")
        return f"{head}{within}({what})|{order[1]} "
    return body


def _endless(source: str, position: int, what: str) -> TemplateSyntaxError:
    return TemplateSyntaxError(f"{what} does not end", source.count("\n", 0, position) + 1)
