"""The ``explain`` command."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.app import AsJson, StorageOption, SweepArgument, app, print_json


@app.command()
def explain(
    sweep: SweepArgument,
    name: Annotated[
        str,
        typer.Argument(
            metavar="TRIAL_OR_METHOD",
            help="A trial, TASK/METHOD/NUMBER, or a method, TASK/METHOD; the task may be left out where it is clear.",
        ),
    ],
    storage: StorageOption = "sweeps",
    as_json: AsJson = False,
) -> None:
    """Tell in at most ten lines what was tried, and why it was stopped, dropped, retried or chosen, with the numbers.

    The answer comes from the sweep's journal, so that a running, stopped or failed sweep can be asked as well.
    """
    from orchestrator.cli.output.explain import explain_in, print_explanation

    explanation = explain_in(sweep, name, storage)
    print_json(explanation.to_dict()) if as_json else print_explanation(explanation)
