"""A method's search space under the overrides of a configuration.

This module alone decides whether an override fits a parameter and which distribution it makes. A configuration calls
:func:`override_problems` when it is read; the plan of a sweep calls :func:`resolve` once per method and holds the
result for everybody else.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

import methods
import search_spaces
from methods.base.ranges import OF_TRAINING, RANGES, ValueRange
from methods.families.compose_names import methods_of
from orchestrator.common.errors import InputError, KeyPath, Problem, key_path
from orchestrator.common.suggest import did_you_mean
from search_spaces._base import SearchSpace

Override = Mapping[str, Any]
"""``{choices}``, ``{value}`` or ``{low, high, log, step}``, whose syntax :mod:`orchestrator.config.overrides` has
checked; ``log`` and ``step`` may be left out."""
Values = type[int] | type[float] | tuple[Any, ...]
"""What a parameter takes: whole numbers, numbers, or the listed choices alone."""


def override_problems(method: str, overrides: Mapping[str, Override]) -> list[tuple[KeyPath, str]]:
    """Return what is wrong with the overrides of one method, all of it at once.

    Args:
        method: A name in ``search_spaces``.
        overrides: Overrides by parameter.

    Returns:
        Pairs of a key path, which begins with the method, and a message.
    """
    try:
        space = search_spaces.get(method)
    except KeyError:
        return [((method,), "has no search space; write one in search_spaces/, or in the plugin as SPACE")]
    problems: list[tuple[KeyPath, str]] = []
    for name, override in overrides.items():
        distribution = space.distribution_of(name)
        if distribution is None:
            hint = did_you_mean(name, list(space.distributions))
            problems.append(((method, name), f"unknown hyperparameter; {hint}"))
        elif not (name in space.texts and _has_texts_only(override)):
            wrong = misfits(override, distribution) or _out_of_range(override, _range_of(method, name))
            problems += [((method, name, *path), message) for path, message in wrong]
    return problems


def misfits(override: Override, distribution: BaseDistribution) -> list[tuple[KeyPath, str]]:
    """Return the values of an override that a parameter cannot take.

    Args:
        override: What a configuration says of the parameter.
        distribution: The parameter's distribution in the method's search space.

    Returns:
        Pairs of a key path inside the override and a message.
    """
    accepted = _accepted_values(distribution)
    if "low" in override and isinstance(accepted, tuple):
        return [((), f"cannot be a range; choose from {', '.join(map(_as_yaml, accepted))}")]
    values = _values_of(override)
    if override.get("step") is not None:
        values.append((("step",), override["step"]))
    return [(path, message) for path, value in values if (message := _misfit(value, accepted))]


def resolve(method: str, overrides: Mapping[str, Override]) -> SearchSpace:
    """Return the search space of a method, with each override in place of the distribution of that name.

    The default configuration moves to the nearest point of the new space.

    Args:
        method: A name in ``search_spaces``.
        overrides: Overrides by parameter.

    Raises:
        InputError: With every override that does not fit, and if there is no such space.
    """
    if problems := override_problems(method, overrides):
        raise InputError("", [Problem(key_path(("search_space", *path)), message) for path, message in problems])
    space = search_spaces.get(method)
    distributions = dict(space.distributions)
    for name, override in overrides.items():
        base = space.distribution_of(name)
        assert base is not None  # override_problems has refused unknown names
        distributions[name] = _overridden(base, override)
    default = {
        name: nearest(distribution, space.default.get(name, True)) for name, distribution in distributions.items()
    }
    return SearchSpace(distributions=distributions, default=default, sources=space.sources)


def unreached_ends(method: str, overrides: Mapping[str, Override]) -> list[str]:
    """Return a line for each range whose steps miss its high end, which Optuna moves without a word.

    Args:
        method: A name in ``search_spaces``.
        overrides: Overrides by parameter, which fit.
    """
    lines = []
    for name, override in overrides.items():
        step = override.get("step")
        if step is not None:
            # exact, as the numbers are written: three steps of 0.1 are 0.3
            low, high, exact_step = (Fraction(str(override[key])) for key in ("low", "high", "step"))
            last = low + (high - low) // exact_step * exact_step
            if last < high:
                key = key_path(("search_space", method, name))
                ends = f"steps of {step} from {override['low']} end at {float(last):g}"
                lines.append(f"{key}: {ends}; the high end {override['high']} is never tried")
    return lines


def nearest(distribution: BaseDistribution, value: Any) -> Any:
    """Return the point of a distribution that is nearest to a value; its first choice or low end, if none is near."""
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


def _values_of(override: Override) -> list[tuple[KeyPath, Any]]:
    """Return the values that an override names, its ends if it is a range, each with its key path inside of it."""
    if "choices" in override:
        return [(("choices", index), choice) for index, choice in enumerate(override["choices"])]
    return [((key,), override[key]) for key in ("low", "high", "value") if key in override]


def _range_of(method: str, name: str) -> ValueRange | None:
    """Return the range of a hyperparameter; ``None`` for one that has none, or may be a plugin's own."""
    _, _, last = name.rpartition(".")  # after a part of a composition
    plugins = [each for each in methods_of(method) if ":" not in each and each not in methods.names()]
    return None if plugins and last not in OF_TRAINING else RANGES.get(last)


def _out_of_range(override: Override, values: ValueRange | None) -> list[tuple[KeyPath, str]]:
    return [
        (path, f"is {_as_yaml(value)}; it must be {values.text}")
        for path, value in _values_of(override)
        if values and _is_number(value) and not values.holds(value)
    ]


def _has_texts_only(override: Override) -> bool:
    values = [override["value"]] if "value" in override else override.get("choices", [None])
    return all(isinstance(value, str) for value in values)


def _accepted_values(distribution: BaseDistribution) -> Values:
    """Return what a parameter takes: choices that are all numbers stand for any number of their kind."""
    if not isinstance(distribution, CategoricalDistribution):
        return int if isinstance(distribution, IntDistribution) else float
    types = {type(choice) for choice in distribution.choices}
    return int if types == {int} else float if types <= {int, float} else tuple(distribution.choices)


def _misfit(value: Any, accepted: Values) -> str:
    """Return why a parameter cannot take a value; empty if it can. ``True`` is no 1: YAML keeps them apart."""
    if isinstance(accepted, tuple):
        if any(type(value) is type(choice) and value == choice for choice in accepted):
            return ""
        hint = did_you_mean(str(value), [_as_yaml(choice) for choice in accepted], "choose from")
        return f"{_as_yaml(value, quoted=True)} is not possible; {hint}"
    if type(value) is int or (accepted is float and type(value) is float):
        return ""
    return f"{_as_yaml(value, quoted=True)} is not possible; write a {'whole number' if accepted is int else 'number'}"


def _overridden(base: BaseDistribution, override: Override) -> BaseDistribution:
    if "value" in override:
        return CategoricalDistribution([override["value"]])
    if "choices" in override:
        return CategoricalDistribution(list(dict.fromkeys(override["choices"])))
    return _range(base, override)


def _range(base: BaseDistribution, override: Override) -> BaseDistribution:
    """Return a range of the same kind of numbers as the base; of whole numbers for choices and whole ends."""
    log = bool(override.get("log"))
    step = override.get("step")
    if step is None and not log and isinstance(base, (FloatDistribution, IntDistribution)):
        step = base.step  # Optuna refuses a step on a logarithmic scale
    numbers = [number for number in (override["low"], override["high"], override.get("step")) if number is not None]
    whole = all(float(number).is_integer() for number in numbers)
    if isinstance(base, FloatDistribution) or not whole:
        return FloatDistribution(override["low"], override["high"], log=log, step=step)
    return IntDistribution(override["low"], override["high"], log=log, step=1 if step is None else step)


def _nearest_choice(choices: tuple[Any, ...], value: Any) -> Any:
    equal = [choice for choice in choices if choice == value and isinstance(choice, bool) == isinstance(value, bool)]
    numbers = [choice for choice in choices if _is_number(choice)]
    if equal or not numbers or not _is_number(value):
        return (equal or choices)[0]
    return min(numbers, key=lambda choice: abs(choice - value))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _as_yaml(value: Any, *, quoted: bool = False) -> str:
    """Return a value as it is written in a configuration."""
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if quoted else str(value)
