"""YAML by its 1.2 specification: ``no`` is a text, ``1e-4`` a number, and a key may occur once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from yaml.reader import ReaderError

from orchestrator.common.errors import InputError, KeyPath, Problem
from orchestrator.common.suggest import close_matches


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the scalars of YAML 1.2's core schema."""


_SCALARS = [
    ("bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), "tTfF"),
    ("null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
    ("int", re.compile(r"^[-+]?[0-9]+$"), "-+0123456789"),
    ("float", re.compile(r"^[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?$"), "-+.0123456789"),
    ("merge", re.compile(r"^<<$"), "<"),
]
_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in _SCALARS:
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _pattern, list(_first))


def _int(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    text = loader.construct_scalar(node)
    try:
        return int(text)
    except ValueError:  # Python reads no more than some thousand digits
        message = f"a number of {len(text):,} digits is too long"
        raise yaml.constructor.ConstructorError(None, None, message, node.start_mark) from None


def _float(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    return float(loader.construct_scalar(node))


_Loader.add_constructor("tag:yaml.org,2002:int", _int)
_Loader.add_constructor("tag:yaml.org,2002:float", _float)


def read_yaml(path: Path) -> tuple[Any, list[tuple[KeyPath, str]]]:
    """Return the values of a file, and the keys that occur twice with a message.

    Raises:
        InputError: If the file does not exist or is not YAML.
    """
    try:
        content = path.read_bytes()
        loader = _Loader(content)
        node = loader.get_single_node()
        if node is None:
            return None, []
        return loader.construct_document(node), list(_repeated(node, (), set()))
    except IsADirectoryError as error:
        raise InputError(str(path), [Problem("", "is a folder; name the file in it")]) from error
    except FileNotFoundError as error:
        raise InputError(str(path), [Problem("", f"there is no such file{_similar(path)}")]) from error
    except OSError as error:
        raise InputError(str(path), [Problem("", error.strerror or "cannot be read")]) from error
    except ReaderError as error:
        raise InputError(str(path), [_character(error, content)]) from error
    except yaml.YAMLError as error:
        raise InputError(str(path), [_syntax(error)]) from error


def _repeated(node: yaml.Node, path: KeyPath, visited: set[int]) -> Iterator[tuple[KeyPath, str]]:
    if id(node) in visited:  # an anchor that is used again
        return
    visited.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _repeated(item, (*path, index), visited)
    elif isinstance(node, yaml.MappingNode):
        lines: dict[Any, int] = {}
        for key, value in node.value:
            line, inner = key.start_mark.line + 1, (*path, str(key.value))
            if (first := lines.setdefault((key.tag, str(key.value)), line)) != line or _shared_line(node, key):
                yield inner, f"given twice, in lines {first} and {line}; keep one"
            yield from _repeated(value, inner, visited)


def _shared_line(node: yaml.MappingNode, key: yaml.Node) -> bool:
    """Return whether an earlier key of the same name is in the same line, as in ``{a: 1, a: 2}``."""
    same = [
        k for k, _ in node.value if (k.tag, k.value, k.start_mark.line) == (key.tag, key.value, key.start_mark.line)
    ]
    return same[0] is not key


def _similar(path: Path) -> str:
    """Return the name of a configuration beside a missing one that was probably meant, as a hint."""
    close = close_matches(path.name, sorted(file.name for file in path.parent.glob("*.y*ml")), most=1)
    return f"; did you mean {path.with_name(close[0])}?" if close else ""


def _character(error: ReaderError, content: bytes) -> Problem:
    if error.encoding == "unicode":  # which is what PyYAML calls a text that it has decoded
        return Problem("", f"holds the character {chr(error.character)!r}, which YAML does not allow; remove it")
    line = content[: error.position].count(b"\n") + 1
    return Problem(f"line {line}", "is no text in UTF-8; save the file as UTF-8")


def _syntax(error: yaml.YAMLError) -> Problem:
    if isinstance(error, yaml.MarkedYAMLError) and (mark := error.problem_mark):
        where = f"line {mark.line + 1}, column {mark.column + 1}"
        return Problem(where, ", ".join(text for text in (error.context, error.problem) if text))
    return Problem("", "is not YAML: " + " ".join(str(error).split()))
