"""What the name of a composition says: ``PART+PART``, where a part is ``METHOD`` or ``NAME=METHOD``.

Nothing here imports torch, so that a configuration can be checked in no time.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_ALONE = {
    "full": "trains every weight already",
    "linear_probe": "trains the head, which every composition does",
    "hard_prompt": "trains nothing",
    "multitask_prompt": "learns from other tasks before its own",
}
# what only one part of a composition can be, with the methods that are
_SINGLE = {
    "sit in LoRA's place": frozenset({"lora", "qlora", "dora", "adalora"}),
    "put virtual tokens before the input": frozenset({"prompt", "p_tuning", "prefix"}),
}


@dataclass(frozen=True)
class Part:
    """One method of a composition.

    Args:
        name: what its parameters and its folder are called.
        method: the method's own name.
    """

    name: str
    method: str


def parse(member: str) -> tuple[Part, ...]:
    """The parts of ``compose:member``, in the order given. Whether their methods exist is not looked at.

    Raises:
        ValueError: if the name is no list of parts, or names some that cannot go together; one clear line.
    """
    found = tuple(_part(text) for text in member.split("+"))
    for part in found:
        if reason := _ALONE.get(part.method):
            raise ValueError(f"{part.method} cannot be part of a composition: it {reason}")
    if twice := [name for name, count in Counter(part.name for part in found).items() if count > 1]:
        raise ValueError(f"two parts are called {twice[0]}; name them, as in first={twice[0]}+second={twice[0]}")
    for what, methods in _SINGLE.items():
        if len(both := [part.name for part in found if part.method in methods]) > 1:
            raise ValueError(f"{both[0]} and {both[1]} both {what}; take one of them")
    return found


def methods_of(name: str) -> tuple[str, ...]:
    """The methods that a method's name stands for: its parts' if it is a composition, or itself.

    Raises:
        ValueError: if it is a composition with an impossible name.
    """
    family, _, member = name.partition(":")
    return tuple(part.method for part in parse(member)) if family == "compose" else (name,)


def _part(text: str) -> Part:
    name, equals, method = text.rpartition("=")
    method_name = method.removeprefix("peft:")
    name = name if equals else method_name
    if not (_NAME.fullmatch(name) and _NAME.fullmatch(method_name)):
        raise ValueError(f"{text!r} is no part; write METHOD or NAME=METHOD, with + between parts")
    return Part(name, method)
