"""The command-line application: options that commands share, and errors as one line each."""

from __future__ import annotations

import gc
import json
import logging
import sys
from typing import Annotated, Any, NoReturn

import typer

from orchestrator.cli.terminal import prepare_streams
from orchestrator.common.errors import InputError, MachineryError, SweepError, describe_error
from orchestrator.common.jsonl import finite
from orchestrator.common.uris import mask_secrets

app = typer.Typer(
    name="peft-sweep",
    help="Find the best way to fine-tune a frozen language model for a task, and register the trained adapter.",
    epilog="To start, run peft-sweep demo. Then copy examples/airline.yaml, change it for your task, and run "
    "peft-sweep plan yours.yaml.\n\n"
    "Exit codes: 0 success, 1 a sweep or check failed, 2 the input cannot be used, 130 stopped with Ctrl-C.\n\n"
    "The output of libraries is in sweeps/NAME/sweep.log.",
    no_args_is_help=True,
    rich_markup_mode="markdown",  # the default keeps the line breaks of docstrings
    pretty_exceptions_enable=False,
    add_completion=False,
)
AsJson = Annotated[
    bool, typer.Option("--json", help="Print JSON on standard output, everything else on standard error.")
]
TrackingUri = Annotated[str, typer.Option(help="MLflow with the registered models: a sqlite file or a server.")]
SweepArgument = Annotated[
    str,
    typer.Argument(
        metavar="SWEEP", help="A sweep's name in sweeps/, a unique beginning of it, its folder, or URI/SWEEP."
    ),
]
StorageOption = Annotated[str, typer.Option(help="Folder or URI of the sweeps: storage in sweep.yaml.")]
DEFAULT_TRACKING = "sqlite:///mlflow.db"


def _print_version(requested: bool) -> None:
    """Print the installed version and exit; an eager option, so that no command is needed."""
    if requested:
        from importlib import metadata

        typer.echo(f"peft-sweep {metadata.version('peft-sweep')}")
        raise typer.Exit


@app.callback()
def common(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error; can stand anywhere.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Declare options of the application for ``--help``; :func:`main` removes ``--debug`` before."""


def main() -> NoReturn:
    """Run the command line; print an error as one line, and exit with its code."""
    prepare_streams()
    debug = "--debug" in sys.argv
    # Imports and plans create hundreds of thousands of lasting objects. With the default threshold the garbage
    # collector scans them so often that it takes a fifth of the time until a sweep starts.
    gc.set_threshold(100_000)
    # On import, bitsandbytes warns at length about an optional kernel that is not installed.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        app(arguments, standalone_mode=True)
    except InputError as error:
        if debug:
            raise
        _fail(2, *error.lines())
    except MachineryError as error:
        from orchestrator.cli.output.signals import end_process

        _print_lines(f"peft-sweep: {mask_secrets(str(error))}", *_notes(error))
        end_process(1)  # at the end of Python, what is left of Ray would be waited for
    except SweepError as error:
        if debug:
            raise
        _fail(1, f"peft-sweep: {mask_secrets(str(error))}", *_notes(error))
    except Exception as error:
        if debug:
            raise
        _fail(
            1,
            f"peft-sweep: unexpected {mask_secrets(describe_error(error))}",
            "run it again with --debug to see the traceback",
            *_notes(error),
        )
    sys.exit(0)


def print_json(value: Any) -> None:
    """Print a value as standard JSON, which has no NaN or infinity: they become null."""
    typer.echo(json.dumps(finite(value), indent=2, default=str, allow_nan=False))


def _notes(error: Exception) -> list[str]:
    """Return the notes of an error, such as a command that resumes the sweep."""
    return getattr(error, "__notes__", [])


def _fail(code: int, *lines: str) -> NoReturn:
    _print_lines(*lines)
    sys.exit(code)


def _print_lines(*lines: str) -> None:
    for line in lines:
        typer.echo(line, err=True)
