"""A method's search space with what the configuration says about it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

import search_spaces
from orchestrator.common.errors import InputError, Problem
from search_spaces._base import SearchSpace

Override = Mapping[str, Any]
"""``{choices: [...]}``, ``{value: x}``, or ``{low, high, log, step}``, of which any may be left out."""


def resolve(method: str, overrides: Mapping[str, Override]) -> SearchSpace:
    """The space of a method, with each override in place of the distribution of that name.

    The default configuration moves to the nearest point of the new space.

    Args:
        method: a name in ``search_spaces``.
        overrides: by parameter.

    Raises:
        InputError: with every override that names no parameter or makes no distribution.
        KeyError: if there is no such space.
    """
    space = search_spaces.get(method)
    distributions = dict(space.distributions)
    problems = []
    for name, override in overrides.items():
        try:
            distributions[name] = _override(_known(space, name), override)
        except ValueError as error:
            problems.append(Problem(f"{method}.{name}", str(error)))
    if problems:
        raise InputError("search_space", problems)
    default = {name: nearest(chosen, space.default.get(name, True)) for name, chosen in distributions.items()}
    return SearchSpace(distributions=distributions, default=default, sources=space.sources)


def nearest(distribution: BaseDistribution, value: Any) -> Any:
    """The point of a distribution that is nearest to a value; the first choice, if none is near."""
    if isinstance(distribution, CategoricalDistribution):
        return _nearest_choice(distribution.choices, value)
    if not isinstance(distribution, (FloatDistribution, IntDistribution)):
        raise TypeError(f"{type(distribution).__name__} is not a distribution of one value")
    if not _is_number(value):
        return distribution.low
    inside = min(max(value, distribution.low), distribution.high)
    if distribution.step is None:
        return float(inside)
    steps = round((inside - distribution.low) / distribution.step)
    return min(distribution.low + steps * distribution.step, distribution.high)


def _known(space: SearchSpace, name: str) -> BaseDistribution:
    if known := space.known(name):
        return known
    close = difflib.get_close_matches(name, space.distributions, n=1)
    hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(sorted(space.distributions))}"
    raise ValueError(f"unknown parameter; {hint}")


def _override(base: BaseDistribution, override: Override) -> BaseDistribution:
    if "value" in override:
        return _categorical([override["value"]])
    if "choices" in override:
        return _categorical(override["choices"])
    return _range(base, override)


def _categorical(choices: Any) -> CategoricalDistribution:
    if not isinstance(choices, (list, tuple)) or not choices:
        raise ValueError(f"choices is {choices!r}; it must be a list of at least one value")
    if odd := [choice for choice in choices if not isinstance(choice, (bool, int, float, str, type(None)))]:
        raise ValueError(f"{odd[0]!r} cannot be a choice; write a string, a number, true, false or null")
    return CategoricalDistribution(list(dict.fromkeys(choices)))


def _range(base: BaseDistribution, override: Override) -> BaseDistribution:
    given = {key: value for key, value in override.items() if value is not None}
    if unknown := sorted(set(given) - {"low", "high", "log", "step"}):
        raise ValueError(f"unknown key {unknown[0]!r}; write choices, value, or low, high, log and step")
    if isinstance(base, (FloatDistribution, IntDistribution)):
        # A step of the base's own would forbid `log`, and a `log` would forbid a step.
        kept: dict[str, Any] = {"low": base.low, "high": base.high}
        kept |= {"log": base.log} if "step" not in given else {}
        kept |= {"step": base.step} if not given.get("log", base.log) else {}
        given = kept | given
    if missing := [key for key in ("low", "high") if key not in given]:
        raise ValueError(f"{missing[0]} is missing; a range needs low and high")
    if odd := [key for key in ("low", "high", "step") if given.get(key) is not None and not _is_number(given[key])]:
        raise ValueError(f"{odd[0]} is {given[odd[0]]!r}; it must be a number")
    return _numeric(base, given)


def _numeric(base: BaseDistribution, given: dict[str, Any]) -> BaseDistribution:
    """Whole numbers for a whole-number parameter, and for choices that turn into a whole-number range."""
    ends = [given[key] for key in ("low", "high", "step") if given.get(key) is not None]
    whole = all(float(end).is_integer() for end in ends)
    if isinstance(base, IntDistribution) and not whole:
        raise ValueError("low, high and step must be whole numbers")
    if isinstance(base, FloatDistribution) or not whole:
        return FloatDistribution(**given)
    return IntDistribution(**{key: value for key, value in given.items() if value is not None})


def _nearest_choice(choices: tuple[Any, ...], value: Any) -> Any:
    same = [choice for choice in choices if choice == value and isinstance(choice, bool) == isinstance(value, bool)]
    numbers = [choice for choice in choices if _is_number(choice)]
    if same or not numbers or not _is_number(value):
        return (same or choices)[0]
    return min(numbers, key=lambda choice: abs(choice - value))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
