"""Restrict a search space to the configurations that work on an architecture."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from search_spaces._base import SearchSpace

Refusal = Callable[[Mapping[str, Any], bool], str]
"""Function that returns why a configuration does not work, one line, or an empty text; the flag asks for a dry run."""
BISECTIONS = 12


@dataclass(frozen=True)
class RestrictedSpace:
    """A search space after its restriction.

    Args:
        space: the restricted space, whose default works.
        reason: why no configuration works, one line; empty if one does.
        notes: changes of parameters that the user did not override, one line each.
        problems: overrides of the user that do not work: the parameter, and one line.
    """

    space: SearchSpace
    reason: str = ""
    notes: tuple[str, ...] = ()
    problems: tuple[tuple[str, str], ...] = ()


def restrict_space(
    space: SearchSpace, original_default: Mapping[str, Any], overridden: Collection[str], refusal: Refusal
) -> RestrictedSpace:
    """Try a space's default, and then each parameter's ends or choices beside the default of the others.

    Args:
        space: the search space with the user's overrides.
        original_default: the default configuration without them.
        overridden: parameters that the user overrides, which are never changed.
        refusal: function that returns why a configuration does not work.
    """
    default = dict(space.default)
    if reason := refusal(default, True):
        working = nearest_working(space, default, overridden, refusal)
        if working is None:
            culprits = [
                name
                for name in overridden
                if name in original_default
                and _can_work(space, {**default, name: original_default[name]}, overridden, refusal)
            ]
            return RestrictedSpace(space, reason, problems=tuple((name, reason) for name in culprits))
        default = working
    distributions, notes, problems = dict(space.distributions), [], []
    for name, distribution in space.distributions.items():
        reasons = _reasons_by_value(name, distribution, default, refusal)
        if reasons and name in overridden:
            problems += [(name, _message(name, value, reason)) for value, reason in reasons.items()]
        elif reasons:
            distributions[name] = _narrowed(name, distribution, default, refusal, reasons)
            reason = next(iter(reasons.values()))
            notes.append(f"{name} is searched in {_as_text(distributions[name])} of {_as_text(distribution)}: {reason}")
    narrowed = SearchSpace(distributions=distributions, default=default, sources=space.sources)
    return RestrictedSpace(narrowed, notes=tuple(notes), problems=tuple(problems))


def _can_work(space: SearchSpace, default: Mapping[str, Any], overridden: Collection[str], refusal: Refusal) -> bool:
    return not refusal(default, True) or nearest_working(space, default, overridden, refusal) is not None


def nearest_working(
    space: SearchSpace, default: Mapping[str, Any], fixed: Collection[str], refusal: Refusal
) -> dict[str, Any] | None:
    """Return the default with one parameter changed as little as possible so that it works; ``None`` if none does.

    Args:
        space: the search space.
        default: a configuration that does not work.
        fixed: parameters that must not be changed.
        refusal: function that returns why a configuration does not work.
    """
    for name, distribution in space.distributions.items():
        if name in fixed:
            continue
        for value in extremes(distribution):
            candidate = {**default, name: value}
            if value != default[name] and not refusal(candidate, False) and not refusal(candidate, True):
                return {**default, name: _nearest(name, distribution, candidate, default[name], refusal)}
    return None


def _reasons_by_value(
    name: str, distribution: BaseDistribution, default: Mapping[str, Any], refusal: Refusal
) -> dict[Any, str]:
    """Return the ends or choices that do not work beside the other parameters' defaults, each with its reason."""
    # A number changes only shapes, which attaching checks; a text may select other code, which takes a dry run.
    reasons = {value: refusal({**default, name: value}, isinstance(value, str)) for value in extremes(distribution)}
    return {value: reason for value, reason in reasons.items() if reason}


def _narrowed(
    name: str, distribution: BaseDistribution, default: Mapping[str, Any], refusal: Refusal, refused: Collection[Any]
) -> BaseDistribution:
    """Return the distribution without refused choices, or with refused ends moved to the nearest values that work."""
    if isinstance(distribution, CategoricalDistribution):
        return CategoricalDistribution([choice for choice in distribution.choices if choice not in refused])
    assert isinstance(distribution, (IntDistribution, FloatDistribution))
    ends: dict[str, Any] = {
        end: _nearest(name, distribution, default, value, refusal) if value in refused else value
        for end, value in (("low", distribution.low), ("high", distribution.high))
    }
    if isinstance(distribution, IntDistribution):
        return IntDistribution(**ends, log=distribution.log, step=distribution.step)
    return FloatDistribution(**ends, log=distribution.log, step=distribution.step)


def _nearest(
    name: str, distribution: BaseDistribution, working: Mapping[str, Any], refused: Any, refusal: Refusal
) -> Any:
    """Return the value of a parameter that works and is nearest to a refused one, by bisection.

    Args:
        name: the parameter.
        distribution: its distribution.
        working: a configuration that works.
        refused: a value of the parameter that does not.
        refusal: function that returns why a configuration does not work.
    """
    if isinstance(distribution, CategoricalDistribution):
        return working[name]
    assert isinstance(distribution, (IntDistribution, FloatDistribution))
    good, bad = working[name], refused
    for _ in range(BISECTIONS):
        middle = _between(distribution, good, bad)
        if middle is None:
            break
        if refusal({**working, name: middle}, False):
            bad = middle
        else:
            good = middle
    return good


def _between(distribution: IntDistribution | FloatDistribution, good: Any, bad: Any) -> Any:
    """Return a value of the distribution between two others; ``None`` if they are neighbours."""
    if distribution.step is None:
        return (good + bad) / 2
    steps = int((bad - good) / distribution.step / 2)
    return good + steps * distribution.step if steps else None


def extremes(distribution: BaseDistribution) -> tuple[Any, ...]:
    """Return the ends of a range, or all choices."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    if isinstance(distribution, (IntDistribution, FloatDistribution)):
        return (distribution.low, distribution.high) if distribution.low < distribution.high else (distribution.low,)
    raise TypeError(f"{type(distribution).__name__} is not a distribution of one value")


def _message(name: str, value: Any, reason: str) -> str:
    return reason if reason.startswith(f"{name} is ") else f"{_value_text(value)} is not possible here: {reason}"


def _as_text(distribution: BaseDistribution) -> str:
    if isinstance(distribution, CategoricalDistribution):
        return ", ".join(_value_text(choice) for choice in distribution.choices)
    low, high = extremes(distribution)[0], extremes(distribution)[-1]
    return f"{_value_text(low)}..{_value_text(high)}"


def _value_text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
