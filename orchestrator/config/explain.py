"""Pydantic's errors as messages for the person who wrote the file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, Tag
from pydantic_core import ErrorDetails

from orchestrator.common.errors import KeyPath
from orchestrator.common.suggest import did_you_mean
from orchestrator.config.tasks import RegisteredSection

_KINDS = {"str": "a text", "int": "a whole number", "float": "a number", "bool": "true or false", "NoneType": "nothing"}
_EXPECTED = {
    "string_type": "a text",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}
_BOUNDS = {
    "greater_than": ("gt", "above"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "below"),
    "less_than_equal": ("le", "at most"),
}


def explain(model: type[BaseModel], error: ErrorDetails) -> Iterator[tuple[KeyPath, str]]:
    """Translate one of pydantic's errors.

    Args:
        model: The model that was validated.
        error: One of ``ValidationError.errors()``.

    Yields:
        Pairs of a key path and a message.
    """
    path, kind = _walk(model, error["loc"])
    if error["type"] == "refused":
        yield from ((path + tuple(key), message) for key, message in error["ctx"]["problems"])
    elif error["type"] == "extra_forbidden":
        keys = [*kind.model_fields] if isinstance(kind, type) and issubclass(kind, BaseModel) else []
        yield path, f"unknown key; {did_you_mean(str(path[-1]), keys)}"
    elif error["type"] in ("union_tag_not_found", "union_tag_invalid"):
        tag = error["input"].get("type") if isinstance(error["input"], dict) else error["ctx"].get("tag")
        yield (*path, "type"), _choice(tag, _type_names(kind))
    else:
        yield path, _message(error)


def _message(error: ErrorDetails) -> str:
    value, context = error["input"], error.get("ctx", {})
    if error["type"] == "missing":
        return "is missing"
    if error["type"] == "literal_error":
        return _choice(value, [part.strip(" '") for part in context["expected"].replace(" or ", ",").split(",")])
    if expected := _EXPECTED.get(error["type"]):
        return f"is {_shown(value)}; write {expected}"
    if bound := _BOUNDS.get(error["type"]):
        limit = context[bound[0]]
        return f"is {_shown(value)}; it must be {bound[1]} {limit if isinstance(limit, int) else f'{limit:g}'}"
    if error["type"] == "string_pattern_mismatch":
        return f"is {value!r}; use letters, digits and - _ . only, and begin with a letter or digit"
    if error["type"] == "too_short":
        return f"is empty; give at least {context['min_length']}"
    return str(context["error"]) if error["type"] == "value_error" else error["msg"]


def _choice(value: Any, choices: list[str]) -> str:
    if value is None:
        return f"is missing; choose from {', '.join(choices)}"
    return f"{_shown(value)} is not possible; {did_you_mean(str(value), choices, 'choose from')}"


def _shown(value: Any) -> str:
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    text = "true" if value is True else "false" if value is False else repr(value)
    return (
        "empty" if value is None else text if len(text) <= 60 else _KINDS.get(type(value).__name__, text[:57] + "...")
    )


def _walk(model: Any, loc: tuple[int | str, ...]) -> tuple[KeyPath, Any]:
    """Return the key path of an error, without the tags that pydantic adds for unions, and the type at its end."""
    path: list[str | int] = []
    kind: Any = model
    holder: Any = model
    for part in loc:
        kind = _plain(kind)
        if part == "[key]":  # the error is in the name itself, which is in the path already
            continue
        if (member := _member(kind, part)) is not None:
            kind = holder = member
            continue
        path.append(part)
        holder, kind = kind, _inside(kind, part)
    return tuple(path), _plain(kind) if kind is not None and not _is_unknown(holder, loc) else holder


def _is_unknown(holder: Any, loc: tuple[int | str, ...]) -> bool:
    return isinstance(holder, type) and issubclass(holder, BaseModel) and loc[-1] not in holder.model_fields


def _plain(kind: Any) -> Any:
    """Return a type without its metadata and without ``None``; the sections of all task types for a task."""
    while get_origin(kind) is Annotated:
        registered = [mark for mark in kind.__metadata__ if isinstance(mark, RegisteredSection)]
        kind = registered[0].union if registered else get_args(kind)[0]
    members = [member for member in _members(kind) if member is not type(None)]
    return _plain(members[0]) if len(members) == 1 else kind


def _members(kind: Any) -> tuple[Any, ...]:
    import types

    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else ()


def _member(kind: Any, tag: Any) -> Any:
    """Return the member of a union that has a tag."""
    for member in _members(kind):
        tags = [mark.tag for mark in getattr(member, "__metadata__", ()) if isinstance(mark, Tag)]
        if tag in tags or tag in _type_names(member):
            return _plain(member)
    return None


def _type_names(kind: Any) -> list[str]:
    """Return what ``type: ...`` may be in a section, or in a union of sections."""
    if members := _members(_plain(kind)):
        return [name for member in members for name in _type_names(member)]
    field = getattr(_plain(kind), "model_fields", {}).get("type")
    return list(get_args(field.annotation)) if field else []


def _inside(kind: Any, part: str | int) -> Any:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        field = kind.model_fields.get(str(part))
        return field.annotation if field else None
    arguments = get_args(kind)
    return arguments[-1] if get_origin(kind) in (dict, list) else None
