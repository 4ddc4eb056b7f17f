"""``peft-sweep models``: versions in the registry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.markdown import Markdown

from orchestrator.cli.output.console import console, print_field, program, table
from orchestrator.common.units import number, size
from orchestrator.selection.recommend import measured_text
from orchestrator.selection.selection import Preference
from orchestrator.tasks import recorded_metric

if TYPE_CHECKING:
    from orchestrator.tracking.verify import Verification

COMPARED_TAGS = {
    "aliases": "aliases",
    "method": "method",
    "role": "in its sweep",
    "mean_score": "mean score",
    "checkpoint_score": "checkpoint",
    "seeds": "seeds",
    "test_rows": "test rows",
    "trainable_parameters": "trains",
    "adapter_bytes": "size",
    "peak_memory_bytes": "memory",
    "latency_overhead_1": "latency",
    "backbone": "backbone",
    "quantization": "quantization",
    "sweep": "sweep",
}
MAX_LENGTHS = {"backbone": 32, "sweep": 32}


def print_models(models: list[dict[str, Any]]) -> None:
    """Print the registered models, and the next command."""
    if not models:
        console.print(f"no models are registered here; {program()} demo registers one")
        return
    rows = table("model", "version", "aliases", "method", "mean score", "size")
    for model in models:
        tags = model["tags"]
        row = (model["name"], str(model["version"]), ", ".join(model["aliases"]), tags.get("method", ""))
        rows.add_row(*row, _score(tags), _cell("adapter_bytes", model))
    console.print(rows)
    console.print(f"next: {program()} models show {_reference(models[0])}")


def print_model(model: dict[str, Any]) -> None:
    """Print one registered model with its card, and the next commands."""
    aliases = ", ".join(model["aliases"]) or "none"
    console.print(f"{model['name']} version {model['version']} · aliases: {aliases}\n")
    console.print(Markdown(model["description"]), soft_wrap=False)
    reference = _reference(model)
    console.print()
    print_field("verify", f"{program()} models verify {reference}")
    print_field("pull", f"{program()} models pull {reference}")
    print_field("predict", f"{program()} predict {reference} < rows.jsonl")


def print_comparison(comparison: dict[str, Any]) -> None:
    """Print two versions side by side, which is better, and the next command."""
    first, second = comparison["first"], comparison["second"]
    rows = table("", *(f"{model['name']}/{model['version']}" for model in (first, second)))
    for name, label in COMPARED_TAGS.items():
        cells = [_cell(name, model) for model in (first, second)]
        if any(cells):
            rows.add_row(label, *cells)
    console.print(rows)
    console.print(comparison["reason"])
    better = second if comparison["better"] == "second" else first
    if comparison["better"] and "champion" not in better["aliases"] and better["name"] == first["name"]:
        console.print(f"next: {program()} models promote {better['name']}/{better['version']}")
    else:
        console.print(f"next: {program()} models show {_reference(better)}")


def print_change(change: dict[str, Any]) -> None:
    """Print the champion after a promotion or rollback, and the next command."""
    name, now, was = change["name"], change["champion"], change["was"]
    if now == was:
        console.print(f"{name}: version {now} is the champion already")
    else:
        console.print(f"{name}: version {now} is the champion (before: {f'version {was}' if was else 'none'})")
        if change.get("comparison"):
            console.print(f"  {change['comparison']}")
    if change["before"] is None:
        console.print(f"next: {program()} models show {name}@champion")
    else:
        console.print(f"to return to version {change['before']}: {program()} models rollback {name}")


def print_verification(verification: Verification) -> None:
    """Print whether a registered model reproduces its recorded predictions, and the next command."""
    reference, difference = verification.reference, verification.largest_difference
    verdict = "agrees" if verification.ok else "does NOT agree"
    console.print(
        f"{reference} {verdict}: {verification.rows:,} test rows, largest difference {difference:.1e},"
        f" checkpoint score {verification.score_now:.4f} (recorded {verification.score_recorded:.4f})"
    )
    for note in verification.notes:
        console.print(f"  {note}")
    if verification.other_device and not verification.ok:
        console.print("  another device rounds and adds in other ways: verify again on the recorded one to be sure")
    if verification.ok:
        console.print(f"next: {program()} predict {reference} < rows.jsonl")
    else:
        console.print(f"next: {program()} models show {reference}, which lists the recorded environment")


def _reference(model: dict[str, Any]) -> str:
    champion = "champion" in model["aliases"]
    return f"{model['name']}@champion" if champion else f"{model['name']}/{model['version']}"


def _measured(preference: Preference, tags: dict[str, str]) -> str:
    """Return memory, with the backbone where its size was recorded, or latency, as other commands show them."""
    names = ("peak_memory_bytes", "latency_overhead_1", "latency_overhead_32", "mergeable")
    measurements = {name: float(tags[name]) for name in names if name in tags}
    backbone = float(tags.get("backbone_bytes", 0))
    above = " above the backbone" if preference == "memory" and not backbone else ""
    return f"{measured_text(preference, measurements, backbone=backbone)}{above}"


def _score(tags: dict[str, str]) -> str:
    numbers = [float(tags[name]) for name in ("mean_score", "interval_low", "interval_high") if name in tags]
    return "{:.3f} [{:.3f}, {:.3f}]".format(*numbers) if len(numbers) == 3 else ""


def _cell(name: str, model: dict[str, Any]) -> str:
    """Return a tag with its unit; empty where it was not recorded."""
    tags = model["tags"]
    if name == "aliases":
        return ", ".join(model["aliases"])
    if name == "mean_score":
        metric = recorded_metric(tags["metric"], higher_is_better=tags["higher_is_better"] == "true")
        return f"{metric.label} {_score(tags)}"
    value = str(tags.get(name, ""))
    if not value:
        return ""
    if name == "checkpoint_score":
        return f"{float(value):.3f}"
    if name in ("peak_memory_bytes", "latency_overhead_1"):
        return _measured("memory" if name == "peak_memory_bytes" else "latency", tags)
    if name.endswith("_bytes"):
        return size(float(value))
    if name == "trainable_parameters":
        return number(float(value))
    longest = MAX_LENGTHS.get(name, len(value))
    return value if len(value) <= longest else f"…{value[-longest + 1 :]}"
