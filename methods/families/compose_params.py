"""The parameters of a composition: flat, with a part's parameters under the part's name and a dot."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar, Self

from methods.base.spec import Hyperparameters, MethodError

SHARED = ("batch_size", "warmup", "weight_decay")
_COMPOSITION = ("learning_rate", *SHARED)
_SWITCH = re.compile(r"layer_\d+|\w+\.(on|layer_\d+)")


@dataclass(frozen=True, kw_only=True)
class CompositionParams(Hyperparameters):
    """Parameters of a composition; every composition has a subclass with the classes of its parts.

    As JSON they are flat: ``prefix.tokens``, ``adapter.bottleneck``. Batch size, warm-up and weight decay apply to all
    parts, ``PART.learning_rate`` to one part, and ``learning_rate`` to the head.

    Three kinds of switches are true by default: ``layer_3`` for all parts in block 3, ``PART.layer_3`` for one part in
    block 3, and ``PART.on`` for a part as a whole.

    Args:
        parts: parameters by part; a part that is left out has its defaults.
        switches: values of the switches that are set, by name.
    """

    parts: Mapping[str, Hyperparameters] = field(default_factory=dict)
    switches: Mapping[str, bool] = field(default_factory=dict)
    types: ClassVar[Mapping[str, type[Hyperparameters]]] = {}
    member: ClassVar[str] = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        shared = {name: getattr(self, name) for name in SHARED}
        parts = {name: self.parts.get(name) or kind.from_dict(shared) for name, kind in self.types.items()}
        object.__setattr__(self, "parts", parts)
        for name, value in self.switches.items():
            if not isinstance(value, bool):
                raise MethodError(f"{name} is {value!r}; it must be true or false")

    def layers(self, part: str, count: int) -> frozenset[int] | None:
        """Return the positions of the blocks, out of ``count``, that a part sits in; ``None`` for all.

        Raises:
            MethodError: if a switch names a block that the backbone does not have.
        """
        if not self.switches.get(f"{part}.on", True):
            return frozenset()
        off = set()
        for name in (name for name in self.switches if "layer_" in name.rpartition(".")[2]):
            number = int(name.rpartition("_")[2])
            if number >= count:
                blocks = f"the backbone has {count} blocks, layer_0 to layer_{count - 1}"
                raise MethodError(f"{name} names a block that does not exist: {blocks}")
            if name.rpartition(".")[0] in ("", part) and not self.switches[name]:
                off.add(number)
        return frozenset(range(count)) - off if off else None

    def to_dict(self) -> dict[str, Any]:
        """Return flat JSON values; the inverse of :meth:`from_dict`."""
        flat = {name: getattr(self, name) for name in _COMPOSITION}
        for part, params in self.parts.items():
            flat |= {f"{part}.{name}": value for name, value in params.to_dict().items() if name not in SHARED}
        return flat | dict(self.switches)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build the parameters from flat JSON values.

        Raises:
            MethodError: if a name is unknown or a value is out of range.
        """
        shared = {name: values[name] for name in _COMPOSITION if name in values}
        inherited = {name: values[name] for name in SHARED if name in values}
        parts: dict[str, dict[str, Any]] = {part: dict(inherited) for part in cls.types}
        switches = {}
        for name, value in values.items():
            part, _, field_name = name.rpartition(".")
            if _SWITCH.fullmatch(name) and part in ("", *parts):
                switches[name] = value
            elif part in parts and field_name not in SHARED:
                parts[part][field_name] = value
            elif name not in shared:
                raise MethodError(f"unknown parameter {name!r}; known: {', '.join(sorted(cls().to_dict()))}")
        params = {part: _part_params(part, cls.types[part], part_values) for part, part_values in parts.items()}
        return cls(**shared, parts=params, switches=switches)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self.member, self.to_dict())


def params_type(member: str, types: Mapping[str, type[Hyperparameters]]) -> type[CompositionParams]:
    """Return the parameter class of a composition.

    Args:
        member: name of the composition after ``compose:``.
        types: parameter class of each part, by the part's name.
    """
    return _params_type(member, tuple(types.items()))


@cache
def _params_type(member: str, types: tuple[tuple[str, type[Hyperparameters]], ...]) -> type[CompositionParams]:
    return type("CompositionParams", (CompositionParams,), {"member": member, "types": dict(types)})


def _part_params(part: str, kind: type[Hyperparameters], values: Mapping[str, Any]) -> Hyperparameters:
    try:
        return kind.from_dict(values)
    except MethodError as error:
        raise MethodError(f"{part}: {error}") from error


def _rebuild(member: str, values: Mapping[str, Any]) -> Hyperparameters:
    from methods import get

    params: Hyperparameters = get(f"compose:{member}").params_type.from_dict(values)
    return params
