"""The commands ``list``, ``status``, ``logs`` and ``stop``: a sweep seen and stopped from another terminal."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.app import AsJson, StorageOption, SweepArgument, app, print_json
from orchestrator.common.errors import InputError, Problem

OptionalSweep = Annotated[
    str, typer.Argument(metavar="[SWEEP]", help="A sweep's name or a unique beginning of it; the latest if left out.")
]


@app.command(name="list")
def list_sweeps(storage: StorageOption = "sweeps", as_json: AsJson = False) -> None:
    """List all sweeps with their state, the latest first."""
    from orchestrator.cli.output.status import print_states, states_json
    from orchestrator.sweep.state import sweep_states

    states = sweep_states(storage)
    print_json(states_json(states)) if as_json else print_states(states, storage)


@app.command()
def status(
    sweep: OptionalSweep = "",
    watch: Annotated[bool, typer.Option("--watch", help="Show it again every two seconds until it ends.")] = False,
    storage: StorageOption = "sweeps",
    as_json: AsJson = False,
) -> None:
    """Show what a sweep is doing or how it ended, its best scores on validation so far, and the next command.

    It is running, stopping, stopped by the user, failed, dead (its driver ended without a word), or finished.
    """
    if watch and as_json:
        raise InputError("--watch", [Problem("", "cannot be combined with --json; leave one out")])
    from orchestrator.cli.output.status import print_state, state_json, watch_state
    from orchestrator.sweep.state import latest_sweep, sweep_state

    state = sweep_state(sweep, storage) if sweep else latest_sweep(storage)
    if watch:
        watch_state(state, storage)
        return
    print_json(state_json(state)) if as_json else print_state(state)


@app.command()
def stop(sweep: SweepArgument, storage: StorageOption = "sweeps") -> None:
    """Stop a running sweep after the current step, as Ctrl-C does, and wait until it has stopped.

    It works from another terminal, and from another machine where the storage is shared. peft-sweep resume continues
    the sweep. Ctrl-C ends the wait; the sweep still stops.
    """
    from orchestrator.cli.output.status import stop_sweep

    stop_sweep(sweep, storage)


@app.command()
def logs(
    sweep: SweepArgument,
    lane: Annotated[int | None, typer.Option(help="Only what the processes of this lane printed.", min=0)] = None,
    trial: Annotated[str, typer.Option(help="Only what is about this trial: TASK/METHOD/NUMBER.")] = "",
    storage: StorageOption = "sweeps",
) -> None:
    """Print what the libraries and processes of a sweep printed, or the part of a lane or a trial.

    For a trial, its events in the journal come first.
    """
    from orchestrator.cli.output.logs import print_logs

    print_logs(sweep, storage, lane=lane, trial=trial)
