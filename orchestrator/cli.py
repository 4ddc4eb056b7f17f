"""The command line: parse, call, print; nothing else. Heavy imports wait until a command needs them."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from orchestrator.errors import InputError, Problem, SweepError
from orchestrator.lines import finite

app = typer.Typer(
    name="peft-sweep",
    help="Find the best way to fine-tune a frozen language model for a task, and hand over the trained adapter.",
    epilog="First time here? peft-sweep demo. Then copy examples/airline.yaml, and: peft-sweep plan yours.yaml. "
    "Exit codes: 0 done, 1 a sweep or check failed, 2 the input cannot be used, 130 stopped with Ctrl-C. "
    "What libraries print goes to sweeps/NAME/sweep.log.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
models = typer.Typer(help="Browse and check the models that sweeps registered in MLflow.", no_args_is_help=True)
app.add_typer(models, name="models")

ConfigFile = Annotated[Path, typer.Argument(metavar="SWEEP.yaml", help="What to sweep; see peft-sweep schema.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on standard output, everything else on standard error.")]
Address = Annotated[
    str | None,
    typer.Option(help="Ray cluster to run in, as auto or HOST:PORT; RAY_ADDRESS does the same. Alone otherwise."),
]
TrackingUri = Annotated[str, typer.Option(help="Where MLflow's models are.")]
Reference = Annotated[str, typer.Argument(metavar="NAME@ALIAS", help="A registered model: NAME@champion or NAME/3.")]
DEFAULT_TRACKING = "sqlite:///mlflow.db"


@app.callback()
def common(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error; works anywhere.")] = False,
) -> None:
    """Options of every command; ``--debug`` is taken by :func:`main` before."""


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

    _print_json(plan_json(made)) if as_json else print_plan(made, config)


@app.command()
def methods(
    backbone: Annotated[str, typer.Option(help="Hub id, folder, or package:NAME/SUBFOLDER to try them on.")] = "",
    quantization: Annotated[str, typer.Option(help="nf4, fp4, int8 or none.")] = "nf4",
    task: Annotated[str, typer.Option(help="classification or causal-lm.")] = "classification",
    as_json: AsJson = False,
) -> None:
    """List the fine-tuning methods; with --backbone, which of them work on it and what they would train."""
    from orchestrator.views.plan import method_rows, print_methods

    rows = method_rows(backbone, quantization, task)
    _print_json(rows) if as_json else print_methods(rows, bool(backbone))


@app.command()
def schema() -> None:
    """Print the JSON schema of sweep.yaml, for editors."""
    from orchestrator.config import json_schema

    _print_json(json_schema())


@models.command("list")
def models_list(tracking_uri: TrackingUri = DEFAULT_TRACKING, as_json: AsJson = False) -> None:
    """List the registered models with their versions and aliases."""
    from orchestrator.tracking.registry import list_models
    from orchestrator.views.models import print_models

    found = list_models(tracking_uri)
    _print_json(found) if as_json else print_models(found)


@models.command("show")
def models_show(reference: Reference, tracking_uri: TrackingUri = DEFAULT_TRACKING, as_json: AsJson = False) -> None:
    """Show one registered model: its score, its backbone, its hyperparameters, how to load it."""
    from orchestrator.tracking.registry import show_model
    from orchestrator.views.models import print_model

    found = show_model(reference, tracking_uri)
    _print_json(found) if as_json else print_model(found)


@models.command("verify")
def models_verify(reference: Reference, tracking_uri: TrackingUri = DEFAULT_TRACKING, as_json: AsJson = False) -> None:
    """Load a registered model in a fresh process and compare every recorded test row; exit 0 only if they agree."""
    from orchestrator.tracking.verify import verify
    from orchestrator.views.models import print_verification

    found = verify(reference, tracking_uri)
    _print_json(found.to_dict()) if as_json else print_verification(found)
    if not found.ok:
        raise typer.Exit(1)


def main() -> NoReturn:
    """Run the command line and turn errors into one clear line each."""
    debug = "--debug" in sys.argv
    # On import it looks for a kernel that is optional, and says so at length when it finds none.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        app(arguments, standalone_mode=True)
    except InputError as error:
        if debug:
            raise
        _fail(2, *error.lines())
    except SweepError as error:
        if debug:
            raise
        _fail(1, f"peft-sweep: {error}")
    except Exception as error:
        if debug:
            raise
        first = (str(error).strip() or "no message").splitlines()[0]
        _fail(1, f"peft-sweep: unexpected {type(error).__name__}: {first}", "run it again with --debug for all of it")
    sys.exit(0)


def _run(config: Path, address: str | None, as_json: bool) -> None:
    from orchestrator.cluster import check_address

    address = check_address(address)
    made = _make_plan(config)
    from orchestrator.views.run import outcome_json, print_outcome, watch_sweep

    outcome = watch_sweep(made, address)
    _print_json(outcome_json(outcome)) if as_json else print_outcome(outcome, made.config)
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
    here = Path(__file__).resolve().parent
    for place in (here / "demo.yaml", here.parent / "examples" / "airline.yaml"):
        if place.is_file():
            return place
    raise InputError("peft-sweep demo", [Problem("", "this installation lacks the demo; install it from a wheel")])


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(finite(value), indent=2, default=str, allow_nan=False))


def _fail(code: int, *lines: str) -> NoReturn:
    for line in lines:
        typer.echo(line, err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
