"""What a sweep may say about a method's search space, and whether it fits there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from orchestrator.common.suggest import did_you_mean
from orchestrator.config.kinds import Number, Scalar
from orchestrator.config.section import Section, refusal

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


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
    """Distance between neighbouring values; any value between the ends if left out."""

    @model_validator(mode="after")
    def _possible(self) -> Range:
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
    """Do not search: always this value."""

    value: Scalar
    """The value of every trial."""


def _kind(value: Any) -> str | None:
    if not isinstance(value, dict):
        return next((kind for kind, section in _SECTIONS.items() if isinstance(value, section)), None)
    found = [kind for kind, keys in _KEYS.items() if keys & set(value)]
    return found[0] if found else None


_SECTIONS = {"choices": Choices, "range": Range, "fixed": Fixed}
_KEYS = {"choices": {"choices"}, "fixed": {"value"}, "range": {"low", "high"}}
Override = Annotated[
    Annotated[Choices, Tag("choices")] | Annotated[Range, Tag("range")] | Annotated[Fixed, Tag("fixed")],
    Discriminator(
        _kind,
        custom_error_type="override",
        custom_error_message="write {choices: [...]}, {low: ..., high: ...} or {value: ...}",
    ),
]


def override_problems(search_space: dict[str, dict[str, Override]]) -> list[tuple[tuple[str | int, ...], str]]:
    """Overrides that name unknown hyperparameters, or values that they cannot have.

    Args:
        search_space: overrides by method and hyperparameter.

    Returns:
        Pairs of a key path and what is wrong there.
    """
    return [problem for method, overrides in search_space.items() for problem in _of_method(method, overrides)]


def _of_method(method: str, overrides: dict[str, Override]) -> list[tuple[tuple[str | int, ...], str]]:
    import search_spaces

    try:
        space = search_spaces.get(method)
    except KeyError:
        return [((method,), "has no search space")]
    problems: list[tuple[tuple[str | int, ...], str]] = []
    for name, override in overrides.items():
        known = space.known(name)
        if known is None:
            hint = did_you_mean(name, list(space.distributions))
            problems.append(((method, name), f"unknown hyperparameter; {hint}"))
            continue
        found = [] if name in space.texts and _says_texts(override) else misfits(override, known)
        problems += [((method, name, *key), message) for key, message in found]
    return problems


def _says_texts(override: Override) -> bool:
    if isinstance(override, Range):
        return False
    values = [override.value] if isinstance(override, Fixed) else override.choices
    return all(isinstance(value, str) for value in values)


def misfits(override: Override, distribution: BaseDistribution) -> list[tuple[tuple[str | int, ...], str]]:
    """Where an override asks for values that the parameter cannot have.

    Args:
        override: what the sweep says.
        distribution: what the method's search space says of the parameter.

    Returns:
        Pairs of a key path inside the override and what is wrong there.
    """
    allowed = _allowed(distribution)
    named: list[tuple[tuple[str | int, ...], Any]]
    if isinstance(override, Range):
        if isinstance(allowed, tuple):
            return [((), f"cannot be a range; choose from {_listed(allowed)}")]
        named = [((key,), value) for key in ("low", "high", "step") if (value := getattr(override, key)) is not None]
    elif isinstance(override, Fixed):
        named = [(("value",), override.value)]
    else:
        named = [(("choices", place), value) for place, value in enumerate(override.choices)]
    return [(key, message) for key, value in named if (message := _misfit(value, allowed))]


def _allowed(distribution: BaseDistribution) -> type[int] | type[float] | tuple[Any, ...]:
    from optuna.distributions import CategoricalDistribution, IntDistribution

    if not isinstance(distribution, CategoricalDistribution):
        return int if isinstance(distribution, IntDistribution) else float
    kinds = {type(choice) for choice in distribution.choices}
    return int if kinds == {int} else float if kinds <= {int, float} else tuple(distribution.choices)


def _misfit(value: Any, allowed: type[int] | type[float] | tuple[Any, ...]) -> str:
    if isinstance(allowed, tuple):
        if any(type(value) is type(choice) and value == choice for choice in allowed):
            return ""
        known = [str(choice) for choice in allowed]
        return f"{value!r} is not possible; {did_you_mean(str(value), known, 'choose from')}"
    if type(value) is int or (allowed is float and type(value) is float):
        return ""
    return f"{value!r} is not possible; a {'whole number' if allowed is int else 'number'} is wanted"


def _listed(values: tuple[Any, ...]) -> str:
    return ", ".join(str(value) for value in values)
