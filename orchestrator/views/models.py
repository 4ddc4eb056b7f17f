"""``peft-sweep models``: what is in the registry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.markdown import Markdown

from orchestrator.views.console import console, program, table

if TYPE_CHECKING:
    from orchestrator.tracking.verify import Verification


def print_models(found: list[dict[str, Any]]) -> None:
    """The registered models."""
    if not found:
        console.print(f"no models are registered here; {program()} demo registers one")
        return
    shown = table("model", "version", "aliases", "method", "score", "backbone")
    for model in found:
        tags = model["tags"]
        row = (model["name"], str(model["version"]), ", ".join(model["aliases"]), tags.get("method", ""))
        shown.add_row(*row, _score(tags), tags.get("backbone", ""))
    console.print(shown)


def print_model(found: dict[str, Any]) -> None:
    """One registered model, as its card tells it."""
    aliases = ", ".join(found["aliases"]) or "none"
    console.print(f"{found['name']} version {found['version']} · aliases: {aliases}\n")
    console.print(Markdown(found["description"]))


def print_verification(found: Verification) -> None:
    """Whether a registered model does what was recorded."""
    verdict = "agrees" if found.ok else "does NOT agree"
    console.print(
        f"{found.reference} {verdict}: {found.rows:,} test rows, largest difference {found.largest_difference:.1e},"
        f" score {found.score_now:.4f} (recorded {found.score_recorded:.4f})"
    )
    for note in found.notes:
        console.print(f"  {note}")


def _score(tags: dict[str, str]) -> str:
    numbers = [float(tags[name]) for name in ("score", "interval_low", "interval_high") if name in tags]
    return "{:.3f} [{:.3f}, {:.3f}]".format(*numbers) if len(numbers) == 3 else ""
