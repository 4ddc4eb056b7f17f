"""The ``extend`` command."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from orchestrator.cli.app import AsJson, StorageOption, SweepArgument, app
from orchestrator.cli.sweeps import Address, RecordedConfig, end
from orchestrator.common.errors import InputError, Problem


@app.command()
def extend(
    sweep: SweepArgument,
    trials: Annotated[str, typer.Option(help="How many more trials to start, as in +20.", metavar="+NUMBER")],
    config: RecordedConfig = None,
    address: Address = None,
    storage: StorageOption = "sweeps",
    as_json: AsJson = False,
) -> None:
    """Go on with a finished sweep under the same name: more trials, and another final with the same finalists.

    The number of trials is the only limit. It is another look at the same test rows, so intervals and ties are at a
    higher level (97.5 % at the second look), which the result says. Stopped meanwhile, peft-sweep resume continues it.
    """
    more = parse_trials(trials)
    from orchestrator.lanes.cluster import Cluster
    from orchestrator.sweep.resume import open_sweep

    cluster = Cluster(address)
    with open_sweep(sweep, storage) as saved:
        if not saved.finished:
            message = f"is not finished; continue it with peft-sweep resume {saved.sweep}"
            raise InputError(saved.sweep, [Problem("", message)])
        if saved.is_exhausted:
            message = "has tried every configuration; widen the search space or add methods, and run another sweep"
            raise InputError(saved.sweep, [Problem("", message)])
        from orchestrator.cli.output.resume import watch_resumed

        typer.echo(f"{saved.sweep}: reading the data and trying the methods on the architecture ...", err=True)
        with cluster:
            outcome, plan = watch_resumed(saved.extended(more), config, cluster)
    end(outcome, plan, as_json)


def parse_trials(text: str) -> int:
    """Return the number of further trials that an option gives.

    Raises:
        InputError: if it is no whole number above 0.
    """
    if not re.fullmatch(r"\+?[1-9]\d{0,8}", text.strip()):
        raise InputError("--trials", [Problem(text, "is not a number of further trials; write it as in +20")])
    return int(text)
