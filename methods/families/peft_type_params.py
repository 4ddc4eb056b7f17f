"""The parameters of a `peft` type, derived from its configuration class."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar

from peft import PeftConfig, PeftType
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

from methods.base.spec import Hyperparameters, MethodError
from methods.parts.low_rank import TARGETS

# defaults of fields that peft requires
_REQUIRED = {"num_virtual_tokens": 20}
# options with other values than peft's defaults
_OPTIONS: dict[str, dict[str, Any]] = {
    "fourierft": {"init_weights": True},  # zeros; a drawn spectrum is scaled to the size of the weights themselves
    "frod": {"progressbar": False},
}
_NO_PARAMETER = re.compile(r".*(seed|prng_key)$")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PeftTypeParams(Hyperparameters):
    """Base of the parameters of all types; a subclass per type adds the numbers of its configuration.

    Those have `peft`'s names and defaults: every number with a positive default, and every dropout.
    """

    kind: ClassVar[str]

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in _numbers(self.kind):
            if name.endswith("dropout"):
                self.require(0 <= getattr(self, name) < 1, name, "in 0..1, below 1")
            else:
                self.require(getattr(self, name) > 0, name, "above 0")
        targets = getattr(self, "targets", "all_linear")
        self.require(targets in TARGETS, "targets", f"one of {', '.join(TARGETS)}")
        self.config()

    def config(self, **changes: Any) -> PeftConfig:
        """Return `peft`'s configuration with these numbers; ``changes`` override them.

        Raises:
            MethodError: if `peft` refuses the combination of numbers.
        """
        numbers = {name: getattr(self, name) for name in _numbers(self.kind)}
        try:
            return config_class(self.kind)(**{**numbers, **_OPTIONS.get(self.kind, {}), **changes})
        except (ValueError, TypeError) as error:
            raise MethodError(f"peft:{self.kind}: {str(error).splitlines()[0]}") from error

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self.kind, self.to_dict())


@cache
def params_type(kind: str) -> type[PeftTypeParams]:
    """Return the parameter class of a type."""
    fields: list[tuple[str, type, Any]] = [(name, type(value), value) for name, value in _numbers(kind).items()]
    if has_targets(kind):
        fields.append(("targets", str, "all_linear"))
    name = f"{''.join(part.title() for part in kind.split('_'))}Params"
    params_class: type[PeftTypeParams] = dataclasses.make_dataclass(
        name, fields, bases=(PeftTypeParams,), frozen=True, kw_only=True
    )
    params_class.kind = kind
    params_class.__doc__ = f"Parameters of ``peft:{kind}``, with `peft`'s names."
    return params_class


def config_class(kind: str) -> type[PeftConfig]:
    """Return `peft`'s configuration class of a type.

    Raises:
        KeyError: if `peft` declares the type without one.
    """
    config: type[PeftConfig] = PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(kind.upper())]
    return config


def has_targets(kind: str) -> bool:
    """Return whether the type's target layers can be chosen."""
    return "target_modules" in {field.name for field in dataclasses.fields(config_class(kind))}


@cache
def _numbers(kind: str) -> Mapping[str, float]:
    """Return the numbers of a type's configuration that are parameters, with their defaults."""
    numbers: dict[str, float] = {}
    for field in dataclasses.fields(config_class(kind)):
        value: Any = _REQUIRED.get(field.name, field.default)
        settable = type(value) in (int, float) and not _NO_PARAMETER.fullmatch(field.name)
        if settable and (value > 0 or field.name.endswith("dropout")):
            numbers[field.name] = value
    return numbers


def _rebuild(kind: str, values: Mapping[str, Any]) -> PeftTypeParams:
    return params_type(kind).from_dict(values)
