"""The command line. A command parses its options, calls the packages below, and prints the result.

Heavy packages are imported inside commands, so that ``--help`` answers within a second.
"""

# ruff: noqa: I001 - an import adds commands; --help lists them in this order
from orchestrator.cli import init, sweeps, extend, preview, status, doctor  # noqa: F401
from orchestrator.cli import select, explain, report, predict, export  # noqa: F401
from orchestrator.cli import methods, models  # noqa: F401
from orchestrator.cli.app import app, main

__all__ = ["app", "main"]
