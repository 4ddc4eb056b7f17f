"""``peft-sweep models``: what is in the registry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.markdown import Markdown

from orchestrator.cli.output.console import console, program, table
from orchestrator.common.units import metric_name, number, size

if TYPE_CHECKING:
    from orchestrator.tracking.verify import Verification

COMPARED = {
    "aliases": "aliases",
    "method": "method",
    "role": "in its sweep",
    "score": "score",
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
SHORT = {"backbone": 32, "sweep": 32}


def print_models(found: list[dict[str, Any]]) -> None:
    """The registered models, and what to type next."""
    if not found:
        console.print(f"no models are registered here; {program()} demo registers one")
        return
    shown = table("model", "version", "aliases", "method", "score", "size")
    for model in found:
        tags = model["tags"]
        row = (model["name"], str(model["version"]), ", ".join(model["aliases"]), tags.get("method", ""))
        shown.add_row(*row, _score(tags), _shown("adapter_bytes", model))
    console.print(shown)
    console.print(f"next: {program()} models show {_reference(found[0])}")


def print_model(found: dict[str, Any]) -> None:
    """One registered model, as its card tells it, and what to type next."""
    aliases = ", ".join(found["aliases"]) or "none"
    console.print(f"{found['name']} version {found['version']} · aliases: {aliases}\n")
    console.print(Markdown(found["description"]), soft_wrap=False)
    own = _reference(found)
    console.print(f"\n  check    {program()} models verify {own}")
    console.print(f"  fetch    {program()} models pull {own}")
    console.print(f"  use      {program()} predict {own} < rows.jsonl")


def print_comparison(found: dict[str, Any]) -> None:
    """Two versions side by side, what follows, and what to type next."""
    first, second = found["first"], found["second"]
    shown = table("", *(f"{model['name']}/{model['version']}" for model in (first, second)))
    for name, label in COMPARED.items():
        cells = [_shown(name, model) for model in (first, second)]
        if any(cells):
            shown.add_row(label, *cells)
    console.print(shown)
    console.print(found["reason"])
    better = second if found["better"] == "second" else first
    if found["better"] and "champion" not in better["aliases"] and better["name"] == first["name"]:
        console.print(f"next: {program()} models promote {better['name']}/{better['version']}")
    else:
        console.print(f"next: {program()} models show {_reference(better)}")


def print_change(found: dict[str, Any]) -> None:
    """Who is champion now, and what to type next."""
    name, now, was = found["name"], found["champion"], found["was"]
    if now == was:
        console.print(f"{name}: version {now} is the champion already")
    else:
        console.print(f"{name}: version {now} is the champion; until now it was version {was}")
    if found["before"] is None:
        console.print(f"next: {program()} models show {name}@champion")
    else:
        console.print(f"to go back to version {found['before']}: {program()} models rollback {name}")


def print_verification(found: Verification) -> None:
    """Whether a registered model does what was recorded, and what to type next."""
    verdict = "agrees" if found.ok else "does NOT agree"
    console.print(
        f"{found.reference} {verdict}: {found.rows:,} test rows, largest difference {found.largest_difference:.1e},"
        f" score {found.score_now:.4f} (recorded {found.score_recorded:.4f})"
    )
    for note in found.notes:
        console.print(f"  {note}")
    if found.ok:
        console.print(f"next: {program()} predict {found.reference} < rows.jsonl")
    else:
        console.print(f"next: {program()} models show {found.reference}, which says where it was recorded")


def _reference(model: dict[str, Any]) -> str:
    champion = "champion" in model["aliases"]
    return f"{model['name']}@champion" if champion else f"{model['name']}/{model['version']}"


def _score(tags: dict[str, str]) -> str:
    numbers = [float(tags[name]) for name in ("score", "interval_low", "interval_high") if name in tags]
    return "{:.3f} [{:.3f}, {:.3f}]".format(*numbers) if len(numbers) == 3 else ""


def _shown(name: str, model: dict[str, Any]) -> str:
    """A tag as people read it; empty where it was not recorded."""
    tags = model["tags"]
    if name == "aliases":
        return ", ".join(model["aliases"])
    if name == "score":
        return f"{metric_name(tags['metric'])} {_score(tags)}"
    value = str(tags.get(name, ""))
    if not value:
        return ""
    if name.endswith("_bytes"):
        return size(float(value))
    if name == "trainable_parameters":
        return number(float(value))
    if name.startswith("latency"):
        return f"{float(value):+.0%}"
    longest = SHORT.get(name, len(value))
    return value if len(value) <= longest else f"…{value[-longest + 1 :]}"
