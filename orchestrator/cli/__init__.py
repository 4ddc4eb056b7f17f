"""The command line: parse, call, print; nothing else. Heavy imports wait until a command needs them."""

from orchestrator.cli import catalogue, export, models, predict, report, select, sweeps  # noqa: F401 - each adds its own
from orchestrator.cli.app import app, main

__all__ = ["app", "main"]
