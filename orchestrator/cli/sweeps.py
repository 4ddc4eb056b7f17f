"""The commands ``demo``, ``run``, ``resume``, ``plan`` and ``schema``."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.app import AsJson, StorageOption, SweepArgument, app, print_json
from orchestrator.common.errors import InputError, Problem

if TYPE_CHECKING:
    from orchestrator.config import SweepConfig
    from orchestrator.lanes.cluster import Cluster
    from orchestrator.planning.plan import SweepPlan
    from orchestrator.sweep.status import Outcome
    from orchestrator.tasks import TaskData

ConfigFile = Annotated[
    Path, typer.Argument(metavar="SWEEP.yaml", help="The configuration; peft-sweep schema describes it.")
]
Address = Annotated[
    str | None,
    typer.Option(
        help="Ray cluster to run on: auto or HOST:PORT. RAY_ADDRESS does the same; without either, this machine."
    ),
]
RecordedConfig = Annotated[
    Path | None,
    typer.Option(help="Its configuration; needed only if that contains passwords, which are not recorded."),
]


@app.command()
def demo(as_json: AsJson = False) -> None:
    """Run the demo sweep, over real tweets with a small real model, on this machine in a few minutes.

    The same as peft-sweep run examples/airline.yaml.
    """
    _run(_demo_config(), None, as_json)


@app.command()
def run(config: ConfigFile, address: Address = None, as_json: AsJson = False) -> None:
    """Run a sweep: search over the methods, score the best ones on the test split, and register the winner.

    Ctrl-C stops the sweep after the current step; peft-sweep resume continues it.
    """
    _run(config, address, as_json)


@app.command()
def resume(
    sweep: SweepArgument,
    config: RecordedConfig = None,
    address: Address = None,
    storage: StorageOption = "sweeps",
    take_over: Annotated[
        bool,
        typer.Option("--take-over", help="Do not wait until a driver on another machine has been silent for a minute."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Continue a sweep that was stopped or whose driver died, without losing a trial or repeating finished work.

    Data, checkpoint, plugins and search spaces must not have changed. Trials and time that were spent count towards the
    budget. Where the storage is an object store, any machine can continue it: add --storage URI, or write URI/SWEEP.
    """
    from orchestrator.lanes.cluster import Cluster
    from orchestrator.sweep.resume import open_sweep

    cluster = Cluster(address)

    with open_sweep(sweep, storage, take_over=take_over) as saved:
        from orchestrator.cli.output.resume import finished_json, print_finished, watch_resumed

        if saved.finished:
            from orchestrator.sweep.late_export import export_late

            if line := export_late(saved, config):
                typer.echo(line, err=True)
            print_json(finished_json(saved)) if as_json else print_finished(saved)
            return
        typer.echo(f"{saved.sweep}: reading the data and trying the methods on the architecture ...", err=True)
        with cluster:
            outcome, sweep_plan = watch_resumed(saved, config, cluster)
    end(outcome, sweep_plan, as_json)


@app.command()
def plan(
    config: ConfigFile,
    address: Address = None,
    check_weights: Annotated[
        bool,
        typer.Option("--check-weights", help="Read all weights of the checkpoint, and refuse NaN and infinity."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check a configuration, and show what the sweep would do and what it would cost, without training.

    With --address, the cluster is asked for the memory of its GPUs.
    """
    from orchestrator.lanes.cluster import Cluster

    cluster, loaded = Cluster(address), load(config)
    _require_places(loaded)
    data = _read_data(loaded)
    with cluster if cluster.address else nullcontext():
        sweep_plan = _make_plan(loaded, cluster, data)
    if check_weights:
        from orchestrator.planning.checkpoint import require_finite_weights

        require_finite_weights(sweep_plan.source)
    from orchestrator.cli.output.plan import plan_json, print_plan
    from orchestrator.common.output_capture import no_library_noise
    from orchestrator.planning.forecast import forecast

    with no_library_noise():
        sweep_forecast = forecast(sweep_plan)
    if as_json:
        print_json(plan_json(sweep_plan, sweep_forecast))
    else:
        print_plan(sweep_plan, config, sweep_forecast)


@app.command()
def schema() -> None:
    """Print the JSON schema of sweep.yaml, for editors."""
    from orchestrator.config import json_schema

    print_json(json_schema())


def _run(config: Path, address: str | None, as_json: bool) -> None:
    from orchestrator.lanes.cluster import Cluster

    cluster, loaded = Cluster(address), load(config)
    _require_places(loaded)
    data = _read_data(loaded)
    with cluster:
        sweep_plan = _make_plan(loaded, cluster, data)
        from orchestrator.cli.output.run import watch_sweep

        outcome = watch_sweep(sweep_plan, cluster)
    end(outcome, sweep_plan, as_json)


def end(outcome: Outcome, plan: SweepPlan, as_json: bool) -> None:
    """Print a sweep's outcome, and exit with its code."""
    from orchestrator.cli.output.run import outcome_json, print_outcome

    print_json(outcome_json(outcome)) if as_json else print_outcome(outcome, plan.config)
    if outcome.reason == "interrupted":
        raise typer.Exit(130)
    if any(task.registered is None for task in outcome.tasks.values()):
        raise typer.Exit(1)


def load(config: Path) -> SweepConfig:
    """Read a configuration."""
    from orchestrator.config import load_config

    return load_config(config)


def _require_places(config: SweepConfig) -> None:
    """Look at the storage and at MLflow, which are needed when much has been computed already."""
    from orchestrator.common.storage_check import require_storage
    from orchestrator.tracking.tracking_check import require_tracking

    require_storage(config.storage)
    mlflow = config.mlflow
    require_tracking(mlflow.tracking_uri, mlflow.registry_uri, mlflow.experiment or config.name)


def _read_data(config: SweepConfig) -> dict[str, TaskData]:
    """Read the tasks' rows, before Ray and torch are started or imported: bad rows are told within seconds."""
    typer.echo(f"{config.name}: reading the data and trying the methods on the architecture ...", err=True)
    from orchestrator.tasks import read_task

    return {name: read_task(name, task, config.base, config.seed) for name, task in config.tasks.items()}


def _make_plan(config: SweepConfig, cluster: Cluster, data: dict[str, TaskData]) -> SweepPlan:
    from orchestrator.common.output_capture import no_library_noise

    with no_library_noise():
        from orchestrator.planning.lane_device import device_in
        from orchestrator.planning.plan import make_plan

        return make_plan(config, device=device_in(cluster, config.lanes), data=data)


def _demo_config() -> Path:
    """Return the demo's configuration: inside an installed package, or in a checkout's ``examples``."""
    package = Path(__file__).resolve().parents[1]
    for file in (package / "demo.yaml", package.parent / "examples" / "airline.yaml"):
        if file.is_file():
            return file
    raise InputError(
        "peft-sweep demo", [Problem("", "this installation lacks demo.yaml; install peft-sweep from a wheel")]
    )
