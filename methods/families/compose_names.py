"""The name of a composition: ``PART+PART``, where a part is ``METHOD`` or ``NAME=METHOD``.

Nothing here imports torch, so that a configuration is checked quickly.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_NEVER_PARTS = {
    "full": "trains every weight already",
    "linear_probe": "trains the head, which every composition does",
    "hard_prompt": "trains nothing",
    "multitask_prompt": "learns from other tasks before its own",
}
# groups of methods, by what they do; a composition has at most one method of each group
_EXCLUSIVE = {
    "sit in LoRA's place": frozenset({"lora", "qlora", "dora", "adalora"}),
    "put virtual tokens before the input": frozenset({"prompt", "p_tuning", "prefix"}),
}


@dataclass(frozen=True)
class Part:
    """One method of a composition.

    Args:
        name: name of the part, which its parameters and its folder have as well.
        method: name of the method.
    """

    name: str
    method: str


def parse(member: str) -> tuple[Part, ...]:
    """Return the parts of ``compose:member`` in their order, without checking that their methods exist.

    Raises:
        ValueError: if the name is not a list of parts, or names parts that exclude each other; one line.
    """
    parts = tuple(_part(text) for text in member.split("+"))
    for part in parts:
        if reason := _NEVER_PARTS.get(part.method):
            raise ValueError(f"{part.method} cannot be part of a composition: it {reason}")
    if twice := [name for name, count in Counter(part.name for part in parts).items() if count > 1]:
        raise ValueError(f"two parts are called {twice[0]}; name them, as in first={twice[0]}+second={twice[0]}")
    for action, methods in _EXCLUSIVE.items():
        if len(both := [part.name for part in parts if part.method in methods]) > 1:
            raise ValueError(f"{both[0]} and {both[1]} both {action}; take one of them")
    return parts


def methods_of(name: str) -> tuple[str, ...]:
    """Return the methods that a name stands for: those of its parts if it is a composition, else the method itself.

    Raises:
        ValueError: if it is a composition with an invalid name.
    """
    family, _, member = name.partition(":")
    return tuple(part.method for part in parse(member)) if family == "compose" else (name,)


def _part(text: str) -> Part:
    name, equals, method = text.rpartition("=")
    method_name = method.removeprefix("peft:")
    name = name if equals else method_name
    if not (_NAME.fullmatch(name) and _NAME.fullmatch(method_name)):
        raise ValueError(f"{text!r} is not a part; write METHOD or NAME=METHOD, with + between parts")
    return Part(name, method)
