"""The API's description (OpenAPI 3.1), derived from what declares it.

Paths and methods come from the routes, texts from the handlers' docstrings. What a handler takes
and gives is read from its source: the struct that it decodes the body as, the query parameters it
asks for, the kind of reply it makes, and the type of what it replies with, from the annotations of
the services it calls. So a route that is added is described without another line.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import UnionType
from typing import Any, get_args, get_origin

import msgspec
from aiohttp import web

from lxpy import __version__
from lxpy.api.envelope import Reply
from lxpy.api.operations import Operation

Json = dict[str, Any]

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
_TEXT: Json = {"type": "string"}
_WHOLE: Json = {"type": "integer"}
#: what the functions of daemon.http read of the query
_OF_HELPERS: Mapping[str, Mapping[str, Json]] = {
    "project": {"project": _TEXT},
    "project_or_all": {"project": _TEXT, "all-projects": {"type": "boolean"}},
    "recursion": {"recursion": {"type": "integer", "minimum": 0, "maximum": 2}},
    "chosen": {"filter": _TEXT},
    "listing": {"filter": _TEXT, "recursion": {"type": "integer", "minimum": 0, "maximum": 2}},
}
_NO_ENVELOPE = "application/octet-stream"


@dataclass
class Facts:
    """What the source of a handler tells."""

    body: Any = None
    query: dict[str, Json] = field(default_factory=dict)
    replies: set[str] = field(default_factory=set)
    results: list[Any] = field(default_factory=list)
    is_listing: bool = False


def describe(routes: Iterable[web.AbstractRoute]) -> Json:
    """Return the description of some routes (blocking: it reads sources)."""
    paths: dict[str, Json] = {}
    types: list[Any] = [Reply, Operation]
    found: list[tuple[str, str, str, Facts]] = []
    for path, method, handler in _public(routes):
        facts = _facts(handler)
        found.append((path, method, _summary(handler), facts))
        types += [each for each in (facts.body, *facts.results) if each is not None]
    schemas, components = msgspec.json.schema_components(
        types, ref_template="#/components/schemas/{name}"
    )
    by_type = dict(zip(map(_key, types), schemas, strict=True))
    for path, method, summary, facts in found:
        paths.setdefault(path, {})[method.lower()] = _operation(
            path, method, summary, facts, by_type
        )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "lxpy",
            "version": __version__,
            "description": "LXD's REST API, and what lxpy adds to it.",
        },
        "servers": [{"url": "/"}],
        "paths": dict(sorted(paths.items())),
        "components": {"schemas": {**components, "Error": _error_schema()}},
    }


def _public(
    routes: Iterable[web.AbstractRoute],
) -> Iterator[tuple[str, str, Callable[..., Any]]]:
    """Yield path, method and handler of the routes below `/1.0`."""
    for route in routes:
        resource = route.resource
        path = re.sub(r"\{(\w+):[^}]*\}", r"{\1}", resource.canonical if resource else "")
        answers_get = resource is not None and any(
            each.method == "GET" and each.handler == route.handler for each in resource
        )
        if route.method == "HEAD" and answers_get:
            continue  # made by the library, not declared
        if route.method in _METHODS and (path == "/" or path.startswith("/1.0")):
            yield path, route.method, route.handler


def _operation(
    path: str, method: str, summary: str, facts: Facts, schemas: Mapping[str, Json]
) -> Json:
    words = [word for word in re.split(r"\W+", path.removeprefix("/1.0/")) if word]
    described: Json = {
        "operationId": "_".join([method.lower(), *(words or ["api"])]),
        "tags": [words[0] if words else "server"],
        "summary": summary,
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in re.findall(r"\{(\w+)\}", path)
        ]
        + [
            {"name": name, "in": "query", "schema": schema}
            for name, schema in sorted(facts.query.items())
        ],
        "responses": _responses(method, facts, schemas),
    }
    if facts.body is not None:
        schema = schemas[_key(facts.body)]
        described["requestBody"] = {"content": {"application/json": {"schema": schema}}}
    elif method in ("POST", "PUT") and not facts.replies.isdisjoint({"accepted", "other"}):
        described["requestBody"] = {"content": {_NO_ENVELOPE: {}, "application/json": {}}}
    return described


def _responses(method: str, facts: Facts, schemas: Mapping[str, Json]) -> Json:
    found: Json = {"default": _reply("An error", {"$ref": "#/components/schemas/Error"})}
    if method == "HEAD":
        return {"200": {"description": "Headers only"}, "default": {"description": "An error"}}
    if "accepted" in facts.replies:
        operation = schemas[_key(Operation)]
        found["202"] = _reply("Work has begun", _envelope("async", operation))
    if "created" in facts.replies:
        found["201"] = _reply("Made; Location says where it is", _envelope("sync", {}))
    if "empty" in facts.replies:
        found["200"] = _reply("Done", _envelope("sync", {}))
    if "sync" in facts.replies or facts.is_listing:
        found["200"] = _reply("The result", _envelope("sync", _metadata(facts, schemas)))
    if "other" in facts.replies or (len(found) == 1 and "socket" not in facts.replies):
        done = found.setdefault("200", {"description": "The content", "content": {}})
        done["content"]["*/*"] = {}
    if "socket" in facts.replies:
        found["101"] = {"description": "A websocket, from here on"}
    return found


def _metadata(facts: Facts, schemas: Mapping[str, Json]) -> Json:
    if not facts.results or None in facts.results:
        return {}
    found = [schemas[_key(each)] for each in facts.results]
    schema = found[0] if len(found) == 1 else {"anyOf": found}
    if not facts.is_listing:
        return schema
    objects = schema if schema.get("type") == "array" else {"type": "array"}
    return {"anyOf": [{"type": "array", "items": {"type": "string"}}, objects]}


def _reply(description: str, schema: Json) -> Json:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _envelope(kind: str, metadata: Json) -> Json:
    return {
        "type": "object",
        "required": [each.encode_name for each in msgspec.structs.fields(Reply)],
        "properties": {
            "type": {"const": kind},
            "status": {"type": "string"},
            "status_code": {"type": "integer"},
            "operation": {"type": "string"},
            "error_code": {"const": 0},
            "error": {"const": ""},
            "metadata": metadata,
        },
    }


def _error_schema() -> Json:
    return {
        "type": "object",
        "required": [each.encode_name for each in msgspec.structs.fields(Reply)],
        "properties": {
            "type": {"const": "error"},
            "error_code": {"type": "integer", "minimum": 400, "maximum": 599},
            "error": {"type": "string", "minLength": 1},
            "metadata": {"type": "null"},
        },
    }


def _key(kind: Any) -> str:
    return repr(kind)


def _summary(handler: Callable[..., Any]) -> str:
    text = inspect.getdoc(_function(handler)) or ""
    return text.partition("\n")[0].removesuffix(".")


def _function(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Return what a handler was made of: a function, however bound."""
    while isinstance(handler, partial):
        handler = handler.func
    return getattr(handler, "__func__", handler)


# What the source tells


def _facts(handler: Callable[..., Any]) -> Facts:
    """Read a handler, and the functions beside it that it hands its request to."""
    facts = Facts()
    owner = getattr(handler, "__self__", None)
    waiting, seen = [_function(handler)], set()
    while waiting:
        function = waiting.pop()
        if function in seen:
            continue
        seen.add(function)
        reader = _Reader(facts, function, owner)
        reader.visit(ast.parse(textwrap.dedent(inspect.getsource(function))))
        waiting += reader.further
    return facts


class _Reader(ast.NodeVisitor):
    """Looks through one function for what it does with `daemon.http` and its request."""

    def __init__(self, facts: Facts, function: Callable[..., Any], owner: object) -> None:
        self._facts = facts
        self._names: dict[str, Any] = {
            **getattr(function, "__globals__", {}),
            **inspect.getclosurevars(function).nonlocals,
        }
        self._module = getattr(function, "__module__", "")
        self._owner = owner
        #: types of local variables, as far as annotations tell them
        self._locals: dict[str, Any] = {}
        self.further: list[Callable[..., Any]] = []

    def visit_Assign(self, node: ast.Assign) -> None:
        """Note the types of what is assigned."""
        self.generic_visit(node)
        kind = self._type(node.value)
        for target in node.targets:
            if isinstance(target, ast.Name):
                self._locals[target.id] = kind
            elif isinstance(target, ast.Tuple) and get_origin(kind) is tuple:
                for name, part in zip(target.elts, get_args(kind), strict=False):
                    if isinstance(name, ast.Name):
                        self._locals[name.id] = part

    def visit_Call(self, node: ast.Call) -> None:
        """Note what is read and replied."""
        self.generic_visit(node)
        name = _dotted(node.func)
        head, _, last = name.rpartition(".")
        if head == "http":
            self._helper(last, node)
        elif name.startswith(("web.", "multipart.")) and last in (
            "FileResponse", "StreamResponse", "Response", "send", "WebSocketResponse",
        ):  # fmt: skip
            self._facts.replies.add("other")
        elif name == "request.query.get" or name.endswith("query.get"):
            self._parameter(node, _TEXT)
        elif head in ("", "self") or head == "backups":
            self._follow(head, last)

    def _helper(self, name: str, node: ast.Call) -> None:
        facts = self._facts
        facts.query.update(_OF_HELPERS.get(name, {}))
        if name == "body" and len(node.args) > 1:
            facts.body = self._named(node.args[1]) or facts.body
        elif name == "integer":
            self._parameter(node, _WHOLE, 1)
        elif name in ("accepted", "created", "empty"):
            facts.replies.add(name)
        elif name == "listing" and len(node.args) > 2:
            facts.is_listing = True
            self._result(node.args[2])
        elif name == "sync":
            if any(each.arg == "location" for each in node.keywords):
                facts.replies.add("created")
            facts.replies.add("sync")
            self._result(node.args[0])
        elif name == "chosen" and len(node.args) > 1:
            facts.is_listing = True
            self._result(node.args[1])

    def _result(self, node: ast.expr) -> None:
        kind = self._type(node)
        if kind not in self._facts.results:
            self._facts.results.append(kind)

    def _parameter(self, node: ast.Call, schema: Json, place: int = 0) -> None:
        if len(node.args) > place and isinstance(node.args[place], ast.Constant):
            self._facts.query[str(node.args[place].value)] = schema  # type: ignore[attr-defined]

    def _follow(self, head: str, last: str) -> None:
        """Read on in a function of the same class or module, or of the routes'."""
        found = getattr(self._owner, last, None) if head == "self" else self._names.get(last)
        if head == "backups":
            found = getattr(self._names.get("backups"), last, None)
        function = _function(found) if inspect.isroutine(found) else None
        module = getattr(function, "__module__", "") or ""
        if function is not None and module in (self._module, "lxpy.daemon.routes.backups"):
            self.further.append(function)
        elif function is not None and module.startswith("lxpy.daemon.sockets"):
            self._facts.replies.add("socket")

    # Types

    def _type(self, node: ast.expr) -> Any:
        """Return the type of an expression as annotations tell it, None when they do not."""
        if isinstance(node, ast.Await):
            return self._type(node.value)
        if isinstance(node, ast.Name):
            return self._locals.get(node.id)
        if isinstance(node, ast.Call):
            kind = self._named(node.func)
            if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
                return kind
            if _dotted(node.func) == "http.chosen" and len(node.args) > 1:
                return self._type(node.args[1])
            return _wire(_returned(self._callee(node.func)))
        return None

    def _named(self, node: ast.expr) -> Any:
        """Return what a dotted name stands for in the module: a struct, mostly."""
        found: Any = None
        for number, word in enumerate(_dotted(node).split(".")):
            found = self._names.get(word) if number == 0 else getattr(found, word, None)
        return found

    def _callee(self, node: ast.expr) -> Any:
        """Return the function that `self._service.method` is."""
        words = _dotted(node).split(".")
        found: Any = self._owner if words[0] == "self" else self._names.get(words[0])
        for word in words[1:]:
            found = getattr(found, word, None)
        return found


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return ""


def _returned(function: Any) -> Any:
    """Return what a function is annotated to return, None when that is not known."""
    if not inspect.isroutine(function):
        return None
    try:
        return typing.get_type_hints(_function(function)).get("return")
    except (NameError, TypeError):
        return None  # names that are imported for type checkers only


def _wire(kind: Any) -> Any:
    """Return a type that the schema can hold: structs, plain types, collections of these."""
    origin = get_origin(kind)
    if isinstance(kind, type) and origin is None:
        plain = issubclass(kind, msgspec.Struct | str | int | float | dict | list)
        return kind if plain else None
    if origin is tuple:
        return tuple[tuple(_wire(each) or Any for each in get_args(kind))]  # type: ignore[misc]
    if origin in (typing.Union, UnionType):
        return kind
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return dict[str, Any]
    if isinstance(origin, type) and issubclass(origin, Iterable):
        inner = _wire(get_args(kind)[0]) or Any
        return list[inner]  # type: ignore[valid-type]
    return None
