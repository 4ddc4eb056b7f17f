"""``select``: a finished sweep is asked again."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from orchestrator.cli.app import AsJson, app, print_json
from orchestrator.common.errors import InputError, Problem

Sweep = Annotated[str, typer.Argument(metavar="SWEEP", help="A sweep's name, as in sweeps/, or its folder.")]
Folder = Annotated[str, typer.Option(help="Where the sweeps are: storage in sweep.yaml.")]
PREFERENCES = ("score", "size", "memory", "latency", "training_time")


@app.command()
def select(
    sweep: Sweep,
    task: Annotated[str, typer.Option(help="Only this task; all of the sweep's if left out.")] = "",
    max_size: Annotated[str, typer.Option(help="Adapter on disk, as in 10MB.")] = "",
    max_memory: Annotated[str, typer.Option(help="While training, backbone included, as in 12GB.")] = "",
    max_latency_overhead: Annotated[
        str, typer.Option(help="Of a pass against the bare backbone, as in 5%; nothing for what merges.")
    ] = "",
    max_forgetting: Annotated[
        str, typer.Option(help="Of neutral text, nats per token, as in 0.05; decoders with a language-model head.")
    ] = "",
    mergeable: Annotated[bool, typer.Option("--mergeable", help="Only what folds into the weights.")] = False,
    prefer: Annotated[
        str, typer.Option(help=f"What decides among methods that are tied: {', '.join(PREFERENCES)}.")
    ] = "",
    storage: Folder = "sweeps",
    as_json: AsJson = False,
) -> None:
    """Ask a finished sweep again under other limits or another preference; nothing is trained.

    The answer is one of the methods that the sweep scored on the test split. If none satisfies the limits, the one
    limit to relax is named, and to what; the exit code is then 1.
    """
    from orchestrator.common.units import parse_bytes
    from orchestrator.selection.limits import Limits, parse_fraction

    limits = Limits(
        max_size=_parsed("--max-size", max_size, parse_bytes),
        max_memory=_parsed("--max-memory", max_memory, parse_bytes),
        max_latency_overhead=_parsed("--max-latency-overhead", max_latency_overhead, parse_fraction),
        max_forgetting=_parsed("--max-forgetting", max_forgetting, parse_fraction),
        mergeable=mergeable,
    )
    if prefer and prefer not in PREFERENCES:
        raise InputError("--prefer", [Problem(prefer, f"is unknown; write {', '.join(PREFERENCES)}")])
    from orchestrator.cli.output.select import ask_sweep, print_replies, replies_json

    answer = ask_sweep(sweep, task, limits, prefer or None, storage)
    print_json(replies_json(answer)) if as_json else print_replies(answer)
    if any(reply.result is None for reply in answer.replies):
        raise typer.Exit(1)


def _parsed(option: str, text: str, parse: Any) -> float | None:
    try:
        return parse(text) if text else None
    except ValueError as error:
        raise InputError(option, [Problem("", str(error))]) from error
