"""``peft-sweep predict``: read rows from standard input, write them with predictions, and show the progress."""

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
from orchestrator.common.file_modes import give_default_modes
from orchestrator.tracking.fetch import fetch_model
from orchestrator.tracking.predict_lines import predict_lines
from orchestrator.tracking.predictor import Predictor

SOURCE = "standard input"


def predict_rows(reference: str, out: Path | None, tracking_uri: str) -> None:
    """Predict every row of standard input.

    Args:
        reference: reference of the registered model.
        out: output file, which appears only once it is complete; standard output if left out.
        tracking_uri: MLflow's tracking URI.

    Raises:
        InputError: if there is no such model, there are no rows, or a row is invalid.
        SweepError: if the model cannot be downloaded.
    """
    if sys.stdin.isatty():
        usage = f"{program()} predict {reference} < rows.jsonl"
        raise InputError(SOURCE, [Problem("", f"has no rows; write {usage}")])
    with tempfile.TemporaryDirectory() as folder, _opened(out) as stream:
        model = fetch_model(reference, Path(folder), tracking_uri)
        model.use_plugins()
        predictor = Predictor.load(model.folder)
        label = f"{model.name} version {model.version} ({model.bundle.method})"
        _predict(predictor, stream, label, out)


def _predict(predictor: Predictor, stream: TextIO, label: str, out: Path | None) -> None:
    begin, rows = time.monotonic(), 0
    with _progress() as bar:
        task = bar.add_task(label, total=None, speed="")
        for written in predict_lines(predictor, sys.stdin.buffer, SOURCE):
            if not _write(stream, written.lines):
                return
            rows = written.rows
            bar.update(task, completed=rows, speed=_speed(rows, begin))
    place = f", written to {out}" if out else ""
    print(f"{label}: {rows:,} rows, {_speed(rows, begin)}{place}", file=sys.stderr)


def _speed(rows: int, begin: float) -> str:
    return f"{rows / max(1e-9, time.monotonic() - begin):,.1f} rows/s"


def _write(stream: TextIO, lines: str) -> bool:
    """Write lines; return whether the reader is still there."""
    try:
        stream.write(lines)
        stream.flush()
    except BrokenPipeError:
        # Standard output is closed; without this the interpreter would fail when it flushes it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False
    return True


def _progress() -> Progress:
    """Return a progress bar on standard error, which is shown on a terminal alone."""
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
    """Open standard output, or a temporary file that gets its name only once it is complete."""
    if out is None:
        sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
        yield sys.stdout
        return
    try:
        handle, temporary = tempfile.mkstemp(dir=out.absolute().parent, prefix=".predicting-")
    except OSError as error:
        raise InputError("--out", [Problem(str(out), f"cannot be written ({error.strerror})")]) from error
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            yield stream
        give_default_modes(Path(temporary))
        os.replace(temporary, out)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
