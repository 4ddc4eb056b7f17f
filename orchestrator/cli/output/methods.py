"""``peft-sweep methods``: which methods there are, and which of them work on a backbone."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args

from rich.text import Text

import methods
from methods.base.spec import Category, MethodError, Quantization
from orchestrator.backbone.architecture import architecture
from orchestrator.cli.output.console import console, program, table
from orchestrator.common.errors import InputError, Problem
from orchestrator.common.output_capture import no_library_noise
from orchestrator.common.suggest import did_you_mean
from orchestrator.common.units import number, size
from orchestrator.config import BackboneConfig
from orchestrator.planning.capability import Capability, Probe, list_methods, try_method
from orchestrator.planning.forecast import MethodForecast
from orchestrator.tasks import TASK_TYPES

LABELS = 2
KNOWN, TRIED = 14, 32  # columns that stand between a name and its reference
ORDER = [category.value for category in Category]


def capabilities(backbone: str, quantization: str, task: str, names: Sequence[str]) -> list[Capability]:
    """Every method, tried on a backbone where one is named.

    Args:
        backbone: hub id, folder, file or package; empty for none.
        quantization: of the backbone.
        task: type of task.
        names: which methods; all that there are if empty.

    Raises:
        InputError: if one of the arguments cannot be used.
    """
    if task not in TASK_TYPES:
        raise InputError("--task", [Problem(task, f"unknown task type; there are {', '.join(TASK_TYPES)}")])
    if quantization not in get_args(Quantization):
        raise InputError("--quantization", [Problem(quantization, "write nf4, fp4, int8 or none")])
    there, refused = list_methods()
    _check(names, (*there, *refused))
    with no_library_noise():
        asked = names or [*there, *refused]
        tried = _tried(backbone, quantization, task, [name for name in asked if name not in refused])
    left_out = [_refused(name, refused[name]) for name in asked if name in refused]
    return sorted([*tried, *left_out], key=lambda one: ORDER.index(one.category))


def method_row(one: Capability) -> dict[str, Any]:
    """A method for machines."""
    return {
        "name": one.method,
        "category": one.category,
        "available": one.available,
        "reason": one.reason,
        "trainable": one.trainable,
        "percent": one.percent,
        "mergeable": one.mergeable,
    }


def print_methods(found: Sequence[Capability], tried: bool) -> None:
    """The methods for people: those that can be used by category, and why the others cannot."""
    able = [one for one in found if one.available]
    shown = table("method", *(("trainable", "%") if tried else ()), "merges", "reference")
    room = console.width - max((len(one.method) for one in able), default=0) - (TRIED if tried else KNOWN)
    for category, members in groupby(able, key=lambda one: one.category):
        shown.add_row(Text(category, style="bold"))
        for one in members:
            size = _size(one) if tried else ()
            merges = "yes" if one.mergeable else "no"
            shown.add_row(f"  {one.method}", *size, merges, _skip_prefix(one.reference, room))
    console.print(shown)
    _print_left_out([one for one in found if not one.available])
    console.print(f"\n{len(able)} of {len(found)} can be used" + (" here" if tried else ""))
    if not tried:
        console.print(f"which of them work on a backbone: {program()} methods --backbone HUB_ID_OR_FOLDER")


def print_capabilities(
    found: Sequence[Capability], forecasts: Mapping[str, MethodForecast] = MappingProxyType({})
) -> None:
    """What each method would train and what it is estimated to take, and why the others cannot."""
    able = [one for one in found if one.available]
    shown = table("method", "trainable", "%", "merges", *(("memory", "s/step") if forecasts else ()))
    for one in able:
        taken = _taken(forecasts.get(one.method)) if forecasts else ()
        shown.add_row(one.method, *_size(one), "yes" if one.mergeable else "no", *taken)
    console.print(shown)
    for one in found:
        if not one.available:
            print_wrapped(f"{one.method}  left out: {one.reason}")


def print_wrapped(line: str) -> None:
    """A line that is broken between words, and indented from the second on."""
    width = min(console.width, 100)
    console.print(textwrap.fill(line, width, subsequent_indent="    ", break_on_hyphens=False, break_long_words=False))


def _print_left_out(left_out: Sequence[Capability]) -> None:
    """Methods with the same reason stand together."""
    if left_out:
        console.print("\nleft out", style="bold")
    reasons = {one.reason: [other.method for other in left_out if other.reason == one.reason] for one in left_out}
    for reason, names in reasons.items():
        print_wrapped(f"  {', '.join(names)}: {reason}")


def _skip_prefix(reference: str, room: int) -> str:
    """A reference gives way where the terminal is narrow."""
    return reference if len(reference) <= room else f"{reference[: max(room - 1, 0)]}…" if room > 8 else ""


def _check(names: Sequence[str], known: Sequence[str]) -> None:
    """Refuse names that no method has; several methods at once are checked by their own family."""
    problems = []
    for name in names:
        try:
            if name not in known:
                methods.get(name)
        except KeyError:
            problems.append(Problem(name, f"unknown method; {did_you_mean(name, known)}"))
        except MethodError as error:
            problems.append(Problem(name, str(error)))
    if problems:
        raise InputError("--method", problems)


def _tried(backbone: str, quantization: str, task: str, names: Sequence[str]) -> list[Capability]:
    if not backbone:
        return [Capability.of(methods.get(name), task) for name in names]
    settings = BackboneConfig(model=backbone, quantization=quantization)  # type: ignore[arg-type]
    labels = LABELS if task == "classification" else 0
    config = architecture(settings, Path.cwd())
    try:
        probe = Probe(config, TASK_TYPES[task], name=backbone, labels=labels, quantization=settings.quantization)
    except MethodError as error:
        known = [Capability.of(methods.get(name), task) for name in names]
        return [_without(one, str(error)) if one.available else one for one in known]
    return [try_method(probe, name)[0] for name in names]


def _without(one: Capability, reason: str) -> Capability:
    return Capability(method=one.method, available=False, reason=reason, category=one.category, reference=one.reference)


def _refused(name: str, reason: str) -> Capability:
    return Capability(method=name, available=False, reason=reason, category=Category.REPARAMETERIZATION.value)


def _size(one: Capability) -> tuple[str, str]:
    """How many parameters train, and in percent; question marks where only real weights would tell."""
    if one.trainable is None or one.percent is None:
        return "?", "?"
    return number(one.trainable), _percent(one.percent)


def _taken(forecast: MethodForecast | None) -> tuple[str, str]:
    """Memory and seconds; nothing where nothing trains or only real weights would tell."""
    return (size(forecast.peak_bytes), f"{forecast.seconds_per_step:.2g}") if forecast else ("", "")


def _percent(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"
