"""``peft-sweep methods``: collect the methods and what they can do on a backbone, and its output."""

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
from orchestrator.planning.gpu_fit import GpuFit
from orchestrator.tasks import TASK_TYPES

COLUMNS_WIDTH, TRIED_COLUMNS_WIDTH = 14, 32  # characters between a name and its reference, also with counts
ORDER = [category.value for category in Category]


def capabilities(backbone: str, quantization: str, task: str, names: Sequence[str]) -> list[Capability]:
    """Return the capabilities of methods, sorted by category.

    Args:
        backbone: hub id, folder, file or package to try them on; empty for none.
        quantization: quantization of the backbone.
        task: name of the task type.
        names: names of the methods; empty for all.

    Raises:
        InputError: if an argument cannot be used.
    """
    if task not in TASK_TYPES:
        raise InputError("--task", [Problem(task, f"unknown task type; write one of {', '.join(TASK_TYPES)}")])
    if quantization not in get_args(Quantization):
        raise InputError("--quantization", [Problem(quantization, "write nf4, fp4, int8 or none")])
    available, refused = list_methods()
    _check_names(names, (*available, *refused))
    with no_library_noise():
        selected = names or [*available, *refused]
        tried = _try_methods(backbone, quantization, task, [name for name in selected if name not in refused])
    left_out = [_refused_type(name, refused[name]) for name in selected if name in refused]
    return sorted([*tried, *left_out], key=lambda capability: ORDER.index(capability.category))


def method_row(capability: Capability) -> dict[str, Any]:
    """Return a method's capability as JSON values."""
    return {
        "name": capability.method,
        "category": capability.category,
        "available": capability.available,
        "reason": capability.reason,
        "trainable": capability.trainable,
        "percent": capability.percent,
        "mergeable": capability.mergeable,
    }


def print_methods(rows: Sequence[Capability], tried: bool) -> None:
    """Print the methods that can be used, by category, and why the others cannot.

    Args:
        rows: capabilities of the methods, sorted by category.
        tried: whether they were tried on a backbone.
    """
    usable = [capability for capability in rows if capability.available]
    grid = table("method", *(("trainable", "%") if tried else ()), "merges", "reference")
    room = (
        console.width
        - max((len(capability.method) for capability in usable), default=0)
        - (TRIED_COLUMNS_WIDTH if tried else COLUMNS_WIDTH)
    )
    for category, members in groupby(usable, key=lambda capability: capability.category):
        grid.add_row(Text(category, style="bold"))
        for capability in members:
            counts = _trainable_cells(capability) if tried else ()
            merges = "yes" if capability.mergeable else "no"
            grid.add_row(f"  {capability.method}", *counts, merges, _shortened(capability.reference, room))
    console.print(grid)
    _print_left_out([capability for capability in rows if not capability.available])
    console.print(f"\n{len(usable)} of {len(rows)} methods can be used" + (" on this backbone" if tried else ""))
    if not tried:
        console.print(f"which of them work on a backbone: {program()} methods --backbone HUB_ID_OR_FOLDER")


def print_capabilities(
    rows: Sequence[Capability], forecasts: Mapping[str, MethodForecast] = MappingProxyType({})
) -> None:
    """Print what each method trains and its forecast, and why the others cannot be used.

    Args:
        rows: capabilities of the methods.
        forecasts: estimated memory and time by method; empty for none.
    """
    has_fits = any(forecast.fit for forecast in forecasts.values())
    columns = ("memory", "s/step", *(("rows at once",) if has_fits else ())) if forecasts else ()
    grid = table("method", "trainable", "%", "merges", *columns)
    for capability in rows:
        if capability.available:
            cost = _forecast_cells(forecasts.get(capability.method))[: len(columns)]
            merges = "yes" if capability.mergeable else "no"
            grid.add_row(capability.method, *_trainable_cells(capability), merges, *cost)
    console.print(grid)
    for capability in rows:
        if not capability.available:
            print_wrapped(f"{capability.method}  left out: {capability.reason}")


def print_wrapped(line: str) -> None:
    """Print a line wrapped between words, with the following lines indented."""
    width = min(console.width, 100)
    console.print(textwrap.fill(line, width, subsequent_indent="    ", break_on_hyphens=False, break_long_words=False))


def _print_left_out(left_out: Sequence[Capability]) -> None:
    """Print the methods that are left out, grouped by reason."""
    if left_out:
        console.print("\nleft out", style="bold")
    by_reason: dict[str, list[str]] = {}
    for capability in left_out:
        by_reason.setdefault(capability.reason, []).append(capability.method)
    for reason, names in by_reason.items():
        print_wrapped(f"  {', '.join(names)}: {reason}")


def _shortened(reference: str, room: int) -> str:
    """Return a reference that fits the remaining width, or nothing where that is too narrow."""
    return reference if len(reference) <= room else f"{reference[: max(room - 1, 0)]}…" if room > 8 else ""


def _check_names(names: Sequence[str], valid: Sequence[str]) -> None:
    """Refuse unknown names. A name of a family, such as ``compose:``, is checked by the family itself."""
    problems = []
    for name in names:
        try:
            if name not in valid:
                methods.get(name)
        except KeyError:
            problems.append(Problem(name, f"unknown method; {did_you_mean(name, valid)}"))
        except MethodError as error:
            problems.append(Problem(name, str(error)))
    if problems:
        raise InputError("--method", problems)


def _try_methods(backbone: str, quantization: str, task: str, names: Sequence[str]) -> list[Capability]:
    kind = TASK_TYPES[task]
    if not backbone:
        return [Capability.of(methods.get(name), kind) for name in names]
    settings = BackboneConfig(model=backbone, quantization=quantization)  # type: ignore[arg-type]
    config = architecture(settings, Path.cwd())
    try:
        probe = Probe(config, kind, name=backbone, labels=kind.example_labels, quantization=settings.quantization)
    except MethodError as error:
        untried = [Capability.of(methods.get(name), kind) for name in names]
        return [_unavailable(row, str(error)) if row.available else row for row in untried]
    return [try_method(probe, name)[0] for name in names]


def _unavailable(capability: Capability, reason: str) -> Capability:
    return Capability(
        method=capability.method,
        available=False,
        reason=reason,
        category=capability.category,
        reference=capability.reference,
    )


def _refused_type(name: str, reason: str) -> Capability:
    return Capability(method=name, available=False, reason=reason, category=Category.REPARAMETERIZATION.value)


def _trainable_cells(capability: Capability) -> tuple[str, str]:
    """Return the number and percentage of trained parameters; question marks if they depend on the weights."""
    if capability.trainable is None or capability.percent is None:
        return "?", "?"
    return number(capability.trainable), _percent(capability.percent)


def _forecast_cells(forecast: MethodForecast | None) -> tuple[str, str, str]:
    """Return memory, seconds per step, and how many rows of a batch fit the GPU at once.

    All are empty for a method that trains nothing or cannot be estimated.
    """
    if forecast is None:
        return "", "", ""
    seconds = "?" if forecast.seconds_per_step is None else f"{forecast.seconds_per_step:.2g}"
    return size(forecast.peak_bytes), seconds, fit_text(forecast.fit) if forecast.fit else ""


def fit_text(fit: GpuFit) -> str:
    """Return how much of a batch passes through the model at once, with a star if blocks are checkpointed."""
    return f"{fit.rows} of {fit.batch_size}" + (" *" if fit.size.checkpointed else "")


def _percent(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"
