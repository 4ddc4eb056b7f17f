"""The syntax of an override of a method's search space; whether it fits there is said by ``search/space.py``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from orchestrator.common.errors import KeyPath
from orchestrator.common.field_types import Number, Scalar
from orchestrator.common.section import Section, refusal


def _distinct(values: list[Scalar]) -> list[Scalar]:
    if len({(type(value), value) for value in values}) < len(values):
        raise ValueError("a choice is given twice")
    return values


class Choices(Section):
    """Try these values only."""

    choices: Annotated[list[Scalar], Field(min_length=1), AfterValidator(_distinct)]
    """The values to choose from."""


class Range(Section):
    """Try any value from low to high."""

    low: Number
    """The smallest value to try."""
    high: Number
    """The largest value to try."""
    log: bool = False
    """Whether to draw on a logarithmic scale."""
    step: Number | None = None
    """Distance between neighbouring values; without it, that of the method's own space, if it has one."""

    @model_validator(mode="after")
    def _has_valid_ends(self) -> Range:
        checks = [
            (self.low >= self.high, ("high",), f"is {self.high}; it must be above low, which is {self.low}"),
            (self.log and self.low <= 0, ("low",), f"is {self.low}; it must be above 0 on a logarithmic scale"),
            (self.step is not None and self.step <= 0, ("step",), f"is {self.step}; it must be above 0"),
            (self.step is not None and self.log, ("step",), "cannot go together with log: true"),
        ]
        if problems := [(key, message) for wrong, key, message in checks if wrong]:
            raise refusal(problems)
        return self


class Fixed(Section):
    """Do not search: every trial has this value."""

    value: Scalar
    """The value of every trial."""


_SECTIONS = {"choices": Choices, "range": Range, "fixed": Fixed}
_KEYS = {"choices": {"choices"}, "fixed": {"value"}, "range": {"low", "high"}}


def _tag(value: Any) -> str | None:
    """Return which section a value is, or has the keys of."""
    if not isinstance(value, dict):
        return next((tag for tag, section in _SECTIONS.items() if isinstance(value, section)), None)
    return next((tag for tag, keys in _KEYS.items() if keys & set(value)), None)


Override = Annotated[
    Annotated[Choices, Tag("choices")] | Annotated[Range, Tag("range")] | Annotated[Fixed, Tag("fixed")],
    Discriminator(
        _tag,
        custom_error_type="override",
        custom_error_message="write {choices: [...]}, {low: ..., high: ...} or {value: ...}",
    ),
]


def as_mappings(overrides: Mapping[str, Override]) -> dict[str, dict[str, Any]]:
    """Return a method's overrides as :mod:`orchestrator.search.space` takes them: mappings of the keys that are set."""
    return {name: override.model_dump(exclude_none=True) for name, override in overrides.items()}


def search_space_problems(search_space: Mapping[str, Mapping[str, Override]]) -> list[tuple[KeyPath, str]]:
    """Return what is wrong with the overrides of all methods.

    Args:
        search_space: Overrides by method and hyperparameter.

    Returns:
        Pairs of a key path inside ``search_space`` and a message.
    """
    from orchestrator.search.space import override_problems  # imports Optuna, which most commands do without

    return [
        problem
        for method, overrides in search_space.items()
        for problem in override_problems(method, as_mappings(overrides))
    ]
