"""What all commands share: the application, common options, and how errors become one clear line each."""

from __future__ import annotations

import gc
import json
import logging
import sys
from typing import Annotated, Any, NoReturn

import typer

from orchestrator.common.errors import InputError, SweepError, describe_error
from orchestrator.common.jsonl import finite

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
AsJson = Annotated[bool, typer.Option("--json", help="JSON on standard output, everything else on standard error.")]
TrackingUri = Annotated[str, typer.Option(help="Where MLflow's models are.")]
DEFAULT_TRACKING = "sqlite:///mlflow.db"


def _print_version(asked: bool) -> None:
    """Print the installed version and exit; an eager option, so that no command is needed."""
    if asked:
        from importlib import metadata

        typer.echo(f"peft-sweep {metadata.version('peft-sweep')}")
        raise typer.Exit


@app.callback()
def common(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error; works anywhere.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Options of every command; ``--debug`` is taken by :func:`main` before."""


def main() -> NoReturn:
    """Run the command line and turn errors into one clear line each."""
    debug = "--debug" in sys.argv
    # Imports and plans make objects by the hundred thousand that stay: looking among them for garbage every few hundred
    # takes a fifth of the time until a sweep begins.
    gc.set_threshold(100_000)
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
        _fail(1, f"peft-sweep: {error}", *_notes(error))
    except Exception as error:
        if debug:
            raise
        _fail(
            1,
            f"peft-sweep: unexpected {describe_error(error)}",
            "run it again with --debug for all of it",
            *_notes(error),
        )
    sys.exit(0)


def print_json(value: Any) -> None:
    """Print JSON that any reader takes: numbers that are none become null."""
    typer.echo(json.dumps(finite(value), indent=2, default=str, allow_nan=False))


def _notes(error: Exception) -> list[str]:
    """How to go on, where somebody knew it."""
    return getattr(error, "__notes__", [])


def _fail(code: int, *lines: str) -> NoReturn:
    for line in lines:
        typer.echo(line, err=True)
    sys.exit(code)
