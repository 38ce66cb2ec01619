"""Templates of images: LXD renders them with pongo2; here Jinja does, within narrow limits.

An image may come from anywhere, so a template sees values only: no methods, no attributes but the
keys of mappings, a fixed list of filters and tags, and a bound on steps and on length.
Source: pongo2's documentation (Django's template language); LXD docs, "Image format".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from jinja2 import ChainableUndefined, TemplateError, TemplateSyntaxError, nodes
from jinja2.sandbox import SandboxedEnvironment

from lxpy.errors import Failed
from lxpy.instances.gotime import written
from lxpy.instances.pongo_syntax import to_jinja

MAX_SOURCE = 256 * 1024
MAX_OUTPUT = 1024 * 1024
_MAX_STEPS = 500_000
_MAX_NODES = 10_000

_NODES = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.If, nodes.For, nodes.Assign,
    nodes.Name, nodes.Const, nodes.Getattr, nodes.Getitem, nodes.Filter, nodes.Call,
    nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not, nodes.Add, nodes.Sub, nodes.Mul,
    nodes.Div, nodes.FloorDiv, nodes.Mod, nodes.Neg, nodes.Pos, nodes.CondExpr,
)  # fmt: skip


class TooMuch(TemplateError):
    """A template works, or writes, more than it may."""


class _Missing(ChainableUndefined):
    """A name that is not there: empty, whatever is asked of it."""


def _short(value: Any) -> Any:
    if isinstance(value, str) and len(value) > MAX_OUTPUT:
        raise TooMuch(f"a text is longer than {MAX_OUTPUT} characters")
    return value


def _text(value: Any) -> str:
    return "" if value is None or isinstance(value, _Missing) else str(value)


def _add(left: Any, right: Any) -> Any:
    if isinstance(left, int) and isinstance(right, int):
        return left + right
    return _short(_text(left) + _text(right))


def _default(value: Any, other: Any = "") -> Any:
    return value or other


def _default_if_none(value: Any, other: Any = "") -> Any:
    return other if value is None or isinstance(value, _Missing) else value


def _integer(value: Any) -> int:
    try:
        return int(float(_text(value) or 0)) if len(_text(value)) < 32 else 0
    except (ValueError, OverflowError):
        return 0


def _join(value: Iterable[Any], separator: Any = "") -> str:
    parts = [_text(each) for each in value]
    if sum(map(len, parts)) + len(parts) * len(_text(separator)) > MAX_OUTPUT:
        raise TooMuch(f"a text is longer than {MAX_OUTPUT} characters")
    return _text(separator).join(parts)


def _split(value: Any, separator: Any = " ") -> list[str]:
    return _text(value).split(_text(separator) or " ")


def _date(value: Any, layout: Any = "") -> str:
    if not isinstance(value, datetime):
        raise TypeError("filter date is for times")
    return written(value, _text(layout)) if layout else _text(value)


def _yesno(value: Any, words: Any = "yes,no") -> str:
    yes, _, no = _text(words).partition(",")
    return yes if value else no.partition(",")[0]


def _is_map(value: Any) -> bool:
    return isinstance(value, Mapping)


FILTERS: Mapping[str, Callable[..., Any]] = {
    "add": _add,
    "capfirst": lambda value: _text(value)[:1].upper() + _text(value)[1:],
    "cut": lambda value, part: _text(value).replace(_text(part), "") if _text(part) else value,
    "date": _date,
    "default": _default,
    "default_if_none": _default_if_none,
    "first": lambda value: value[0] if value else "",
    "integer": _integer,
    "join": _join,
    "last": lambda value: value[-1] if value else "",
    "length": lambda value: len(value) if value else 0,
    "lower": lambda value: _text(value).lower(),
    "reversed": lambda value: list(reversed(sorted(value) if _is_map(value) else list(value))),
    "safe": lambda value: value,
    "sorted": lambda value: value if _is_map(value) else sorted(value),
    "split": _split,
    "title": lambda value: _text(value).title(),
    "trim": lambda value: _text(value).strip(),
    "upper": lambda value: _text(value).upper(),
    "yesno": _yesno,
}


class _Environment(SandboxedEnvironment):
    """Jinja with nothing but our filters; one for each rendering, since it counts its steps."""

    intercepted_binops = frozenset(("+", "*", "**", "%", "//", "/", "-"))

    def __init__(self) -> None:
        super().__init__(
            undefined=_Missing, autoescape=False, keep_trailing_newline=True, cache_size=0
        )
        self._steps_left = _MAX_STEPS
        self.globals.clear()
        self.tests.clear()
        self.filters.clear()
        self.filters.update({name: self._counted(each) for name, each in FILTERS.items()})
        self.filters["each"] = self._each

    def _spend(self, steps: int) -> None:
        self._steps_left -= steps
        if self._steps_left < 0:
            raise TooMuch(f"it takes more than {_MAX_STEPS} steps")

    def _counted(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*values: Any) -> Any:
            self._spend(1 + sum(len(each) for each in values if isinstance(each, str)) // 64)
            return call(*values)

        return counted

    def _each(self, value: Any, variables: int, cost: int) -> Iterator[Any]:
        """Yield what a loop runs over; sorted keys, or pairs for two variables, of a mapping."""
        items: Iterable[Any] = value if not isinstance(value, _Missing) else ()
        if isinstance(value, Mapping):
            items = sorted(value.items() if variables == 2 else value)
        for item in items:
            self._spend(cost)
            yield item

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Return the value of a mapping's key: templates see no attributes and no methods."""
        if isinstance(obj, Mapping) and attribute in obj:
            return obj[attribute]
        return self.undefined(obj=obj, name=attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Return the item of a mapping, a list or a text."""
        try:
            return obj[argument]
        except (LookupError, TypeError):
            return self.undefined(obj=obj, name=_text(argument))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Calculate: numbers of a sane size only, and `+` on texts."""
        if operator == "+" and not (isinstance(left, int) and isinstance(right, int)):
            self._spend(1 + (len(_text(left)) + len(_text(right))) // 64)
            return _add(left, right)
        numbers = (left, right)
        if operator == "**" or not all(
            isinstance(each, int | float) and abs(each) < 1 << 62 for each in numbers
        ):
            raise TooMuch(f'"{operator}" is for numbers')
        return super().call_binop(context, operator, left, right)


class Renderer:
    """Renders templates of one image; `values` are what they see."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = dict(values)

    def render(self, name: str, source: str) -> str:
        """Return the text of a template. Raises Failed naming it and the cause."""
        if len(source) > MAX_SOURCE:
            raise Failed(
                f'Failed to render template "{name}": it is larger than {MAX_SOURCE} characters'
            )
        environment = _Environment()
        try:
            tree = environment.parse(to_jinja(source))
            _restrict(tree)
            return _gather(environment.from_string(tree).generate(self._values))
        except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError,
                AttributeError, RecursionError, SyntaxError, MemoryError) as error:  # fmt: skip
            problem = str(error) or type(error).__name__
            if isinstance(error, TemplateSyntaxError):
                problem = f"{error.message} (line {error.lineno})"
            raise Failed(f'Failed to render template "{name}": {problem}') from error


def _restrict(tree: nodes.Template) -> None:
    """Refuse what templates may not use, and have every loop counted. Raises TemplateError."""
    targets: set[int] = set()
    for number, node in enumerate(list(tree.find_all(nodes.Node))):
        if number > _MAX_NODES:
            raise TooMuch(f"it has more than {_MAX_NODES} parts")
        if isinstance(node, nodes.For):
            variables = 1
            if isinstance(node.target, nodes.Tuple):
                variables = len(node.target.items)
                targets.add(id(node.target))
            if node.recursive or node.test is not None:
                raise TemplateError("a loop is neither recursive nor conditional")
            cost = 1 + sum(1 for part in node.body for _ in part.find_all(nodes.Node))
            arguments = [nodes.Const(each, lineno=node.lineno) for each in (variables, cost)]
            node.iter = nodes.Filter(
                node.iter, "each", list(arguments), [], None, None, lineno=node.lineno
            )
        elif isinstance(node, nodes.Filter) and node.name not in FILTERS:
            raise TemplateError(f"filter {node.name!r} is not known")
        elif isinstance(node, nodes.Call):
            if not isinstance(node.node, nodes.Name) or node.node.name != "config_get":
                raise TemplateError("the only function is config_get")
        elif not isinstance(node, _NODES) and id(node) not in targets:
            raise TemplateError(f"{type(node).__name__} is not known")


def _gather(parts: Iterable[str]) -> str:
    written: list[str] = []
    length = 0
    for part in parts:
        length += len(part)
        if length > MAX_OUTPUT:
            raise TooMuch(f"it writes more than {MAX_OUTPUT} characters")
        written.append(part)
    return "".join(written)
