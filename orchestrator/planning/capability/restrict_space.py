"""Narrow a search space to what is possible on an architecture."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from search_spaces._base import SearchSpace

Refusal = Callable[[Mapping[str, Any], bool], str]
"""Why a configuration is impossible, one line, or nothing; the flag asks for a thorough answer."""
BISECTIONS = 12


@dataclass(frozen=True)
class Fit:
    """A search space on an architecture.

    Args:
        space: what is left of it; its default is possible.
        reason: why nothing is left, one line.
        notes: what was cut off a parameter that nobody asked for, one line each.
        problems: what cannot be of that which was asked for: the parameter, and one line.
    """

    space: SearchSpace
    reason: str = ""
    notes: tuple[str, ...] = ()
    problems: tuple[tuple[str, str], ...] = ()


def fit(space: SearchSpace, usual: Mapping[str, Any], asked: Collection[str], refusal: Refusal) -> Fit:
    """Try a space at its default, and from there each parameter's ends and choices.

    Args:
        space: with the user's overrides.
        usual: the default configuration without them.
        asked: the parameters that the user overrides, which are never changed.
        refusal: whether a configuration is possible.
    """
    default = dict(space.default)
    if reason := refusal(default, True):
        changed = repaired(space, default, asked, refusal)
        if changed is None:
            blamed = [n for n in asked if n in usual and _mendable(space, {**default, n: usual[n]}, asked, refusal)]
            return Fit(space, reason, problems=tuple((name, reason) for name in blamed))
        default = changed
    distributions, notes, problems = dict(space.distributions), [], []
    for name, distribution in space.distributions.items():
        bad = _impossible(name, distribution, default, refusal)
        if bad and name in asked:
            problems += [(name, _told(name, value, why)) for value, why in bad.items()]
        elif bad:
            distributions[name] = _narrowed(name, distribution, default, refusal, bad)
            why = next(iter(bad.values()))
            notes.append(f"{name} is searched in {_shown(distributions[name])} of {_shown(distribution)}: {why}")
    narrowed = SearchSpace(distributions=distributions, default=default, sources=space.sources)
    return Fit(narrowed, notes=tuple(notes), problems=tuple(problems))


def _mendable(space: SearchSpace, default: Mapping[str, Any], asked: Collection[str], refusal: Refusal) -> bool:
    return not refusal(default, True) or repaired(space, default, asked, refusal) is not None


def repaired(
    space: SearchSpace, default: Mapping[str, Any], asked: Collection[str], refusal: Refusal
) -> dict[str, Any] | None:
    """The default with the one parameter changed that makes it possible, as little as that takes."""
    for name, distribution in space.distributions.items():
        if name in asked:
            continue
        for value in corners(distribution):
            other = {**default, name: value}
            if value != default[name] and not refusal(other, False) and not refusal(other, True):
                return {**default, name: _nearest(name, distribution, {**default, name: value}, default[name], refusal)}
    return None


def _impossible(
    name: str, distribution: BaseDistribution, default: Mapping[str, Any], refusal: Refusal
) -> dict[Any, str]:
    """The ends or choices that do not work beside the other parameters' defaults, each with its reason."""
    # a number is a matter of shapes, a word of what is done
    tried = {value: refusal({**default, name: value}, isinstance(value, str)) for value in corners(distribution)}
    return {value: reason for value, reason in tried.items() if reason}


def _narrowed(
    name: str, distribution: BaseDistribution, default: Mapping[str, Any], refusal: Refusal, bad: Collection[Any]
) -> BaseDistribution:
    if isinstance(distribution, CategoricalDistribution):
        return CategoricalDistribution([choice for choice in distribution.choices if choice not in bad])
    assert isinstance(distribution, (IntDistribution, FloatDistribution))
    ends: dict[str, Any] = {
        end: _nearest(name, distribution, default, value, refusal) if value in bad else value
        for end, value in (("low", distribution.low), ("high", distribution.high))
    }
    if isinstance(distribution, IntDistribution):
        return IntDistribution(**ends, log=distribution.log, step=distribution.step)
    return FloatDistribution(**ends, log=distribution.log, step=distribution.step)


def _nearest(
    name: str, distribution: BaseDistribution, possible: Mapping[str, Any], wished: Any, refusal: Refusal
) -> Any:
    """The value between a possible configuration's and an impossible one that is nearest to the latter."""
    if isinstance(distribution, CategoricalDistribution):
        return possible[name]
    assert isinstance(distribution, (IntDistribution, FloatDistribution))
    good, bad = possible[name], wished
    for _ in range(BISECTIONS):
        middle = _between(distribution, good, bad)
        if middle is None:
            break
        if refusal({**possible, name: middle}, False):
            bad = middle
        else:
            good = middle
    return good


def _between(distribution: IntDistribution | FloatDistribution, good: Any, bad: Any) -> Any:
    """A value of the distribution halfway, or nothing where the two are neighbours."""
    if distribution.step is None:
        return (good + bad) / 2
    steps = int((bad - good) / distribution.step / 2)
    return good + steps * distribution.step if steps else None


def corners(distribution: BaseDistribution) -> tuple[Any, ...]:
    """The ends of a range, or all choices."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    if isinstance(distribution, (IntDistribution, FloatDistribution)):
        return (distribution.low, distribution.high) if distribution.low < distribution.high else (distribution.low,)
    raise TypeError(f"{type(distribution).__name__} is not a distribution of one value")


def _told(name: str, value: Any, why: str) -> str:
    return why if why.startswith(f"{name} is ") else f"{_named(value)} is not possible here: {why}"


def _shown(distribution: BaseDistribution) -> str:
    if isinstance(distribution, CategoricalDistribution):
        return ", ".join(_named(choice) for choice in distribution.choices)
    low, high = corners(distribution)[0], corners(distribution)[-1]
    return f"{_named(low)}..{_named(high)}"


def _named(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
