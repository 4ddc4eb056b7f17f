"""The parameters of a composition: flat, each part's under the part's name and a dot."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar, Self

from methods.base.spec import Hyperparameters, MethodError

SHARED = ("batch_size", "warmup", "weight_decay")
_OWN = ("learning_rate", *SHARED)
_SWITCH = re.compile(r"layer_\d+|\w+\.(on|layer_\d+)")


@dataclass(frozen=True, kw_only=True)
class CompositionParams(Hyperparameters):
    """Parameters of a composition; a class per composition knows its parts.

    As JSON they are flat: ``prefix.tokens``, ``adapter.bottleneck``. Batch size, warm-up and weight decay are those of
    all parts, ``PART.learning_rate`` is each part's own, and ``learning_rate`` alone is the head's.

    Three kinds of switches are true unless they are set: ``layer_3`` for all parts in block 3, ``PART.layer_3`` for
    one part there, and ``PART.on`` for a part as a whole.

    Args:
        parts: parameters by part; a part that is left out has its defaults.
        switches: those that are set, by name.
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
        """The blocks out of ``count`` that a part sits in; ``None`` for all.

        Raises:
            MethodError: if a switch is for a block that is not there.
        """
        if not self.switches.get(f"{part}.on", True):
            return frozenset()
        off = set()
        for name in (name for name in self.switches if "layer_" in name.rpartition(".")[2]):
            number = int(name.rpartition("_")[2])
            if number >= count:
                raise MethodError(f"{name} is not there: the backbone has {count} blocks, layer_0 to layer_{count - 1}")
            if name.rpartition(".")[0] in ("", part) and not self.switches[name]:
                off.add(number)
        return frozenset(range(count)) - off if off else None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, the inverse of :meth:`from_dict`."""
        flat = {name: getattr(self, name) for name in _OWN}
        for part, params in self.parts.items():
            flat |= {f"{part}.{name}": value for name, value in params.to_dict().items() if name not in SHARED}
        return flat | dict(self.switches)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build from flat JSON values.

        Raises:
            MethodError: if a name is unknown or a value is out of range.
        """
        shared = {name: values[name] for name in _OWN if name in values}
        inherited = {name: values[name] for name in SHARED if name in values}
        parts: dict[str, dict[str, Any]] = {part: dict(inherited) for part in cls.types}
        switches = {}
        for name, value in values.items():
            part, _, own = name.rpartition(".")
            if _SWITCH.fullmatch(name) and part in ("", *parts):
                switches[name] = value
            elif part in parts and own not in SHARED:
                parts[part][own] = value
            elif name not in shared:
                raise MethodError(f"unknown parameter {name!r}; known: {', '.join(sorted(cls().to_dict()))}")
        built = {part: _built(part, cls.types[part], own) for part, own in parts.items()}
        return cls(**shared, parts=built, switches=switches)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self.member, self.to_dict())


def params_type(member: str, types: Mapping[str, type[Hyperparameters]]) -> type[CompositionParams]:
    """The parameter class of a composition.

    Args:
        member: its name after ``compose:``.
        types: the parameter class of each part, by the part's name.
    """
    return _params_type(member, tuple(types.items()))


@cache
def _params_type(member: str, types: tuple[tuple[str, type[Hyperparameters]], ...]) -> type[CompositionParams]:
    return type("CompositionParams", (CompositionParams,), {"member": member, "types": dict(types)})


def _built(part: str, kind: type[Hyperparameters], values: Mapping[str, Any]) -> Hyperparameters:
    try:
        return kind.from_dict(values)
    except MethodError as error:
        raise MethodError(f"{part}: {error}") from error


def _rebuild(member: str, values: Mapping[str, Any]) -> Hyperparameters:
    from methods import get

    params: Hyperparameters = get(f"compose:{member}").params_type.from_dict(values)
    return params
