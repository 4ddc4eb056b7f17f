"""Command line of the benchmarks: ``--help`` from the module's docstring, and results as JSON lines."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any


def argument_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser whose ``--help`` prints a module's docstring with its line breaks."""
    spec = sys.modules["__main__"].__spec__
    prog = f"python -m {spec.name}" if spec else None
    return argparse.ArgumentParser(
        prog=prog, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def emit(**fields: Any) -> None:
    """Print a measurement as one JSON line."""
    print(json.dumps(fields), flush=True)
