"""The ``select`` command."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from orchestrator.cli.app import AsJson, StorageOption, SweepArgument, app, print_json
from orchestrator.common.errors import InputError, Problem

PREFERENCES = ("score", "size", "memory", "latency", "training_time")


@app.command()
def select(
    sweep: SweepArgument,
    task: Annotated[str, typer.Option(help="Only this task; all tasks of the sweep if left out.")] = "",
    max_size: Annotated[str, typer.Option(help="Largest adapter on disk, for example 10MB.")] = "",
    max_memory: Annotated[str, typer.Option(help="Most memory in training, backbone included, for example 12GB.")] = "",
    max_latency_overhead: Annotated[
        str,
        typer.Option(
            help="Most latency added to the bare backbone's, for example 5%; adapters that merge add none once merged."
        ),
    ] = "",
    max_forgetting: Annotated[
        str,
        typer.Option(
            help="Largest rise of the loss on neutral text, in nats per token, for example 0.05; decoders with a "
            "language-model head only."
        ),
    ] = "",
    mergeable: Annotated[
        bool, typer.Option("--mergeable", help="Only methods whose adapter merges into the weights.")
    ] = False,
    prefer: Annotated[str, typer.Option(help=f"Criterion among tied methods: {', '.join(PREFERENCES)}.")] = "",
    storage: StorageOption = "sweeps",
    as_json: AsJson = False,
) -> None:
    """Query a finished sweep under other limits or another preference, without training.

    The answer is one of the methods that the sweep scored on the test split. If none of them satisfies the limits, the
    command names the one limit to relax and its new value, and exits with code 1.
    """
    from orchestrator.common.units import parse_bytes_with_unit
    from orchestrator.selection.limits import Limits, parse_fraction, parse_nats

    limits = Limits(
        max_size=_parsed("--max-size", max_size, parse_bytes_with_unit),
        max_memory=_parsed("--max-memory", max_memory, parse_bytes_with_unit),
        max_latency_overhead=_parsed("--max-latency-overhead", max_latency_overhead, parse_fraction),
        max_forgetting=_parsed("--max-forgetting", max_forgetting, parse_nats),
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
