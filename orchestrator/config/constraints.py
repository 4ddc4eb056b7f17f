"""Constraints on every trial of a sweep: ``adapter <= 10 MB``."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator

from orchestrator.common.suggest import did_you_mean
from orchestrator.common.units import number, parse_bytes, parse_count, size

_FORM = re.compile(r"([A-Za-z_]+)\s*(<=|>=|==|=|<|>|≤)\s*(.*)")
_KNOWN_AFTER_TRAINING = {"latency": "--max-latency-overhead", "forgetting": "--max-forgetting"}


@dataclass(frozen=True)
class _Quantity:
    """How a quantity is parsed and formatted."""

    parse: Callable[[str], float]
    format: Callable[[float], str]


QUANTITIES = {
    "adapter": _Quantity(parse_bytes, size),
    "trainable": _Quantity(parse_count, number),
    "memory": _Quantity(parse_bytes, size),
}
"""The quantities that are known before training: the adapter's bytes on disk, its trainable parameters, and the least
memory in bytes that training takes: backbone, trainable parameters, their gradients and the optimizer's state."""


@dataclass(frozen=True)
class Constraint:
    """An upper bound of a quantity.

    Args:
        quantity: Name in :data:`QUANTITIES`.
        most: Largest value, in bytes or as a count.
    """

    quantity: str
    most: float

    @classmethod
    def parse(cls, text: str) -> Constraint:
        """Parse a constraint such as ``adapter <= 10 MB``.

        Raises:
            ValueError: If the text is not a constraint, with what to write instead.
        """
        match = _FORM.fullmatch(text.strip())
        if not match:
            raise ValueError(f"{text!r} is not a constraint; write it as in adapter <= 10 MB or trainable <= 1M")
        name, sign, most = match.groups()
        if name in _KNOWN_AFTER_TRAINING:
            command = f"peft-sweep select {_KNOWN_AFTER_TRAINING[name]}"
            raise ValueError(f"{name} is known only after training; once the sweep has finished, use {command}")
        if name not in QUANTITIES:
            hint = did_you_mean(name, [*QUANTITIES])
            raise ValueError(f"{name} is not a quantity that is known before training; {hint}")
        if sign not in ("<=", "≤"):
            raise ValueError(f"{text!r} is not an upper bound; write {name} <= {most}")
        return cls(name, QUANTITIES[name].parse(most))

    def format(self, value: float) -> str:
        """Return a value of the quantity as text: ``1.2 MB``."""
        return QUANTITIES[self.quantity].format(value)


def _require_constraint(text: str) -> str:
    Constraint.parse(text)
    return text


def _require_distinct(texts: list[str]) -> list[str]:
    names = [Constraint.parse(text).quantity for text in texts]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{', '.join(repeated)} given more than once")
    return texts


Constraints = Annotated[list[Annotated[str, AfterValidator(_require_constraint)]], AfterValidator(_require_distinct)]
