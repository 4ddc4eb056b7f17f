"""``peft-sweep predict``: from standard input to standard output, with progress on a terminal."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from orchestrator.cli.output.console import program
from orchestrator.common.errors import InputError, Problem
from orchestrator.tracking.fetch import fetch_model
from orchestrator.tracking.predictor import Predictor
from orchestrator.tracking.stream import predict_lines

SOURCE = "standard input"


def predict_rows(reference: str, out: Path | None, tracking_uri: str) -> None:
    """Answer every row of standard input.

    Args:
        reference: the registered model.
        out: file to write whole or not at all; standard output if left out.
        tracking_uri: where models are.

    Raises:
        InputError: if there is no such model, no rows are given, or one cannot be used.
        SweepError: if the model cannot be had here.
    """
    if sys.stdin.isatty():
        usage = f"{program()} predict {reference} < rows.jsonl"
        raise InputError(SOURCE, [Problem("", f"gives no rows; write {usage}")])
    with tempfile.TemporaryDirectory() as place, _opened(out) as stream:
        found = fetch_model(reference, Path(place), tracking_uri)
        found.use_plugins()
        predictor = Predictor.load(found.folder)
        told = f"{found.name} version {found.version} ({found.bundle.method})"
        _answer(predictor, stream, told, out)


def _answer(predictor: Predictor, stream: TextIO, told: str, out: Path | None) -> None:
    begin, rows = time.monotonic(), 0
    with _progress() as bar:
        task = bar.add_task(told, total=None, speed="")
        for written in predict_lines(predictor, sys.stdin.buffer, SOURCE):
            if not _write(stream, written.lines):
                return
            rows = written.rows
            bar.update(task, completed=rows, speed=_speed(rows, begin))
    where = f"; they are in {out}" if out else ""
    print(f"{told}: {rows:,} rows, {_speed(rows, begin)}{where}", file=sys.stderr)


def _speed(rows: int, begin: float) -> str:
    return f"{rows / max(1e-9, time.monotonic() - begin):,.1f} rows/s"


def _write(stream: TextIO, lines: str) -> bool:
    """Whether somebody still reads them."""
    try:
        stream.write(lines)
        stream.flush()
    except BrokenPipeError:
        # Nothing is left to say it to; the interpreter must not try again at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False
    return True


def _progress() -> Progress:
    """On a terminal alone, and never on standard output."""
    console = Console(stderr=True)
    parts = ("{task.description}", "{task.completed:,} rows", "{task.fields[speed]}")
    return Progress(
        SpinnerColumn(),
        *(TextColumn(part) for part in parts),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


@contextmanager
def _opened(out: Path | None) -> Iterator[TextIO]:
    """Standard output, or a file that appears under its name only once it is whole."""
    if out is None:
        sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
        yield sys.stdout
        return
    try:
        handle, aside = tempfile.mkstemp(dir=out.absolute().parent, prefix=".predicting-")
    except OSError as error:
        raise InputError("--out", [Problem(str(out), f"cannot be written ({error.strerror})")]) from error
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            yield stream
        os.replace(aside, out)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise
