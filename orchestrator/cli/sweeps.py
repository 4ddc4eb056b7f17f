"""``demo``, ``run``, ``resume``, ``plan`` and ``schema``: what is done with a sweep.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.app import AsJson, app, print_json
from orchestrator.common.errors import InputError, Problem

if TYPE_CHECKING:
    from orchestrator.config import SweepConfig
    from orchestrator.planning.plan import SweepPlan

ConfigFile = Annotated[Path, typer.Argument(metavar="SWEEP.yaml", help="What to sweep; see peft-sweep schema.")]
Address = Annotated[
    str | None,
    typer.Option(help="Ray cluster to run in, as auto or HOST:PORT; RAY_ADDRESS does the same. Alone otherwise."),
]

Sweep = Annotated[
    str, typer.Argument(metavar="SWEEP", help="A sweep's name, as in sweeps/, the beginning of one, or its folder.")
]


@app.command()
def demo(as_json: AsJson = False) -> None:
    """Sweep real tweets with a real model on this machine, in a few minutes. The same as run examples/airline.yaml."""
    _run(_demo_config(), None, as_json)


@app.command()
def run(config: ConfigFile, address: Address = None, as_json: AsJson = False) -> None:
    """Run a sweep: train methods against each other, score the best once on the test split, register the champion."""
    _run(config, address, as_json)


@app.command()
def resume(
    sweep: Sweep,
    config: Annotated[
        Path | None, typer.Option(help="Its SWEEP.yaml, if that holds passwords: they are kept nowhere else.")
    ] = None,
    address: Address = None,
    storage: Annotated[str, typer.Option(help="Where the sweeps are: storage in sweep.yaml.")] = "sweeps",
    as_json: AsJson = False,
) -> None:
    """Go on with a sweep that was stopped, or whose driver died: no trial is lost, and what was done is not repeated.

    Data, backbone and search spaces must be what they were. Time and trials that were spent count.
    """
    from orchestrator.lanes.cluster import Cluster
    from orchestrator.sweep.resume import open_sweep

    cluster = Cluster(address)

    with open_sweep(sweep, storage) as saved:
        from orchestrator.cli.output.resume import finished_json, print_finished, watch_resumed

        if saved.finished:
            print_json(finished_json(saved)) if as_json else print_finished(saved, storage)
            return
        typer.echo(f"{saved.sweep}: reading data and trying the methods on the architecture ...", err=True)
        with cluster:
            outcome, made = watch_resumed(saved, config, cluster)
    _end(outcome, made, as_json)


@app.command()
def plan(config: ConfigFile, as_json: AsJson = False) -> None:
    """Show what a sweep would do and at what size, without training anything."""
    made = _make_plan(_load(config))
    from orchestrator.cli.output.plan import plan_json, print_plan
    from orchestrator.common.output_capture import no_library_noise
    from orchestrator.planning.forecast import forecast

    with no_library_noise():
        estimated = forecast(made)
    print_json(plan_json(made, estimated)) if as_json else print_plan(made, config, estimated)


@app.command()
def schema() -> None:
    """Print the JSON schema of sweep.yaml, for editors."""
    from orchestrator.config import json_schema

    print_json(json_schema())


def _run(config: Path, address: str | None, as_json: bool) -> None:
    from orchestrator.lanes.cluster import Cluster

    cluster, loaded = Cluster(address), _load(config)
    with cluster:
        made = _make_plan(loaded)
        from orchestrator.cli.output.run import watch_sweep

        outcome = watch_sweep(made, cluster)
    _end(outcome, made, as_json)


def _end(outcome: Any, made: Any, as_json: bool) -> None:
    from orchestrator.cli.output.run import outcome_json, print_outcome

    print_json(outcome_json(outcome)) if as_json else print_outcome(outcome, made.config)
    if outcome.reason == "interrupted":
        raise typer.Exit(130)
    if any(task.registered is None for task in outcome.tasks.values()):
        raise typer.Exit(1)


def _load(config: Path) -> SweepConfig:
    from orchestrator.config import load_config

    return load_config(config)


def _make_plan(config: SweepConfig) -> SweepPlan:
    typer.echo(f"{config.name}: reading data and trying the methods on the architecture ...", err=True)
    from orchestrator.common.output_capture import no_library_noise

    with no_library_noise():
        from orchestrator.planning.plan import make_plan

        return make_plan(config)


def _demo_config() -> Path:
    here = Path(__file__).resolve().parents[1]
    for place in (here / "demo.yaml", here.parent / "examples" / "airline.yaml"):
        if place.is_file():
            return place
    raise InputError("peft-sweep demo", [Problem("", "this installation lacks the demo; install it from a wheel")])
