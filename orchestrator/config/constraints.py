"""What no trial of a sweep may exceed, as a configuration says it: ``adapter <= 10 MB``."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator

from orchestrator.common.suggest import did_you_mean
from orchestrator.common.units import number, parse_bytes, parse_count, size

_FORM = re.compile(r"([A-Za-z_]+)\s*(<=|>=|==|=|<|>|≤)\s*(.*)")
_LATER = {"latency": "--max-latency-overhead", "forgetting": "--max-forgetting"}


@dataclass(frozen=True)
class _Quantity:
    """How a quantity is read and told."""

    parse: Callable[[str], float]
    told: Callable[[float], str]


QUANTITIES = {
    "adapter": _Quantity(parse_bytes, size),
    "trainable": _Quantity(parse_count, number),
    "memory": _Quantity(parse_bytes, size),
}
"""What is known of a configuration before it is trained: the adapter's bytes on disk, its trainable parameters, and
the least memory that training takes: the backbone, and what trains with its gradients and optimizer state."""


@dataclass(frozen=True)
class Constraint:
    """The most that a quantity may be.

    Args:
        quantity: one of :data:`QUANTITIES`.
        most: in bytes, or a count.
    """

    quantity: str
    most: float

    @classmethod
    def parse(cls, text: str) -> Constraint:
        """Read a constraint.

        Raises:
            ValueError: if it is none, with what to write instead.
        """
        match = _FORM.fullmatch(text.strip())
        if not match:
            raise ValueError(f"{text!r} is no constraint; write it as in adapter <= 10 MB or trainable <= 1M")
        name, sign, most = match.groups()
        if name in _LATER:
            ask = f"peft-sweep select {_LATER[name]}"
            raise ValueError(f"{name} is known only once a trial was trained; ask the finished sweep: {ask}")
        if name not in QUANTITIES:
            raise ValueError(f"{name} is nothing that is known before training; {did_you_mean(name, [*QUANTITIES])}")
        if sign not in ("<=", "≤"):
            raise ValueError(f"{text!r} cannot be asked for; write {name} <= {most}")
        return cls(name, QUANTITIES[name].parse(most))

    def told(self, value: float) -> str:
        """A value of the quantity, as people read it."""
        return QUANTITIES[self.quantity].told(value)


def _readable(text: str) -> str:
    Constraint.parse(text)
    return text


def _distinct(texts: list[str]) -> list[str]:
    names = [Constraint.parse(text).quantity for text in texts]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{', '.join(twice)} given more than once")
    return texts


Constraints = Annotated[list[Annotated[str, AfterValidator(_readable)]], AfterValidator(_distinct)]
