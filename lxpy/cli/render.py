"""Rows as a table, compact or CSV, and values as JSON or YAML, each as `lxc` prints it."""

from __future__ import annotations

import sys

from lxpy.errors import BadRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

FORMATS = ("csv", "json", "table", "yaml", "compact")


def show(form: str, header: Sequence[str], rows: Sequence[Sequence[str]], data: object) -> None:
    """Print rows as table, compact or csv, or the data they were made of as json or yaml.

    Raises BadRequest for another format.
    """
    if form == "table":
        text = table(header, rows)
    elif form == "compact":
        text = compact(header, rows)
    elif form == "csv":
        text = csv(rows)
    elif form == "json":
        text = as_json(data)
    elif form == "yaml":
        from lxpy.cli.yamltext import dump  # yaml takes 12 ms

        text = dump(data)
    else:
        raise BadRequest(f'Invalid format "{form}"')
    sys.stdout.write(text)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Draw a table with a line between any two rows; cells may have several lines."""
    widths = _widths(header, rows)
    line = "+" + "+".join("-" * (width + 2) for width in widths) + "+\n"
    titles = (f" {_centred(title, width)} " for title, width in zip(header, widths, strict=True))
    parts = [line, "|" + "|".join(titles) + "|\n", line]
    for row in rows:
        for cells in _lines(row):
            filled = (
                f" {_padded(cell, width)} " for cell, width in zip(cells, widths, strict=True)
            )
            parts.append("|" + "|".join(filled) + "|\n")
        parts.append(line)
    return "".join(parts)


def compact(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Draw a table without lines."""
    widths = _widths(header, rows)

    def joined(cells: Sequence[str], fill: Callable[[str, int], str]) -> str:
        filled = (fill(cell, width) for cell, width in zip(cells, widths, strict=True))
        return "  " + "  ".join(filled) + "  \n"

    parts = [joined(header, _centred)]
    for row in rows:
        parts += [joined(cells, _padded) for cells in _lines(row)]
    return "".join(parts)


def csv(rows: Sequence[Sequence[str]]) -> str:
    """Write rows as comma-separated values, without a header."""
    return "".join(",".join(map(_quoted, row)) + "\n" for row in rows)


def as_json(data: object) -> str:
    """Write data as one line of JSON."""
    import json

    return json.dumps(data, separators=(",", ":"), ensure_ascii=False) + "\n"


def _quoted(cell: str) -> str:
    if cell[:1] in (" ", "\t") or any(mark in cell for mark in ',"\n\r'):
        return '"' + cell.replace('"', '""') + '"'
    return cell


def _lines(row: Sequence[str]) -> list[list[str]]:
    """Split the cells of a row into lines, as many for each."""
    columns = [cell.split("\n") for cell in row]
    height = max((len(column) for column in columns), default=1)
    return [[column[n] if n < len(column) else "" for column in columns] for n in range(height)]


def _widths(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    widths = [cell_width(title) for title in header]
    for row in rows:
        for column, cell in enumerate(row):
            for line in cell.split("\n"):
                widths[column] = max(widths[column], cell_width(line))
    return widths


def cell_width(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    if text.isascii():
        return len(text)
    import unicodedata

    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    marks = sum(unicodedata.combining(letter) > 0 for letter in text)
    return len(text) + wide - marks


def _padded(text: str, width: int) -> str:
    return text + " " * (width - cell_width(text))


def _centred(text: str, width: int) -> str:
    gap = width - cell_width(text)
    return " " * (gap // 2) + text + " " * (gap - gap // 2)


def natural(row: Sequence[str]) -> list[list[tuple[int, int, str]]]:
    """Return a sort key by which c2 comes before c10, and 5d before 05a."""
    return [_chunks(cell) for cell in row]


def ordered(rows: Iterable[Sequence[str]]) -> list[Sequence[str]]:
    """Return the rows of a table as `lxc` sorts them: naturally, empty cells last."""
    return sorted(rows, key=natural)


def _chunks(text: str) -> list[tuple[int, int, str]]:
    if not text:
        return [(2, 0, "")]
    found: list[tuple[int, int, str]] = []
    start = 0
    while start < len(text):
        end, digit = start + 1, _digit(text[start])
        while end < len(text) and _digit(text[end]) == digit:
            end += 1
        part = text[start:end]
        zeros = part[: len(part) - len(part.lstrip("0"))]
        found.append((0, int(part), zeros) if digit else (1, 0, part))
        start = end
    return found


def _digit(letter: str) -> bool:
    return "0" <= letter <= "9"
