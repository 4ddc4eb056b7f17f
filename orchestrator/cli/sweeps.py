"""``demo``, ``run``, ``plan`` and ``schema``: what is done with a sweep.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator.cli.app import AsJson, app, print_json
from orchestrator.errors import InputError, Problem

ConfigFile = Annotated[Path, typer.Argument(metavar="SWEEP.yaml", help="What to sweep; see peft-sweep schema.")]
Address = Annotated[
    str | None,
    typer.Option(help="Ray cluster to run in, as auto or HOST:PORT; RAY_ADDRESS does the same. Alone otherwise."),
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
def plan(config: ConfigFile, as_json: AsJson = False) -> None:
    """Show what a sweep would do and at what size, without training anything."""
    made = _make_plan(config)
    from orchestrator.views.plan import plan_json, print_plan

    print_json(plan_json(made)) if as_json else print_plan(made, config)


@app.command()
def schema() -> None:
    """Print the JSON schema of sweep.yaml, for editors."""
    from orchestrator.config import json_schema

    print_json(json_schema())


def _run(config: Path, address: str | None, as_json: bool) -> None:
    from orchestrator.cluster import check_address

    address = check_address(address)
    made = _make_plan(config)
    from orchestrator.views.run import outcome_json, print_outcome, watch_sweep

    outcome = watch_sweep(made, address)
    print_json(outcome_json(outcome)) if as_json else print_outcome(outcome, made.config)
    if outcome.reason == "interrupted":
        raise typer.Exit(130)
    if any(task.registered is None for task in outcome.tasks.values()):
        raise typer.Exit(1)


def _make_plan(config: Path) -> Any:
    from orchestrator.config import load_config

    loaded = load_config(config)
    typer.echo(f"{loaded.name}: reading data and trying the methods on the architecture ...", err=True)
    from orchestrator.quiet import no_library_noise

    with no_library_noise():
        from orchestrator.plan import make_plan

        return make_plan(loaded)


def _demo_config() -> Path:
    here = Path(__file__).resolve().parents[1]
    for place in (here / "demo.yaml", here.parent / "examples" / "airline.yaml"):
        if place.is_file():
            return place
    raise InputError("peft-sweep demo", [Problem("", "this installation lacks the demo; install it from a wheel")])
