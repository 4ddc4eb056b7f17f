"""The command line: parse, call, print; nothing else. Heavy imports wait until a command needs them."""

# ruff: noqa: I001 - each adds its commands, in the order that --help lists them
from orchestrator.cli import sweeps  # noqa: F401
from orchestrator.cli import select, report, predict, export  # noqa: F401
from orchestrator.cli import methods, models  # noqa: F401
from orchestrator.cli.app import app, main

__all__ = ["app", "main"]
