"""Time of ``--help`` of every command, and of the errors for a sweep file with mistakes.

    python -m benchmarks.startup

The JSON line has wall seconds of a whole process, medians of five: ``help_seconds`` by command and
``worst_help_seconds``, the largest of these; ``error_seconds`` for ``peft-sweep run`` with an invalid sweep file.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks._command_line import argument_parser, emit

COMMANDS = (
    *("", "demo", "run", "plan", "schema", "select", "report", "predict", "export", "methods", "models"),
    *(f"models {name}" for name in ("list", "show", "compare", "pull", "promote", "rollback", "verify")),
)
INVALID_SWEEP = """backbone: {model: no/such/folder/anywhere, quantisation: nf4}
tasks: {mail: {type: classification, data: mail.csv, text: text, label: lable}}
methods: [lora, ia3, lorra]
budget: {trials: 1}
"""


def main() -> None:
    """Measure every command."""
    argument_parser(__doc__).parse_args()
    program = str(Path(sys.executable).with_name("peft-sweep"))
    times = {name or "peft-sweep": median_seconds([program, *name.split(), "--help"]) for name in COMMANDS}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "mail.csv").write_text("text,label\nhello,a\nbye,b\n")
        (Path(folder) / "invalid.yaml").write_text(INVALID_SWEEP)
        error_seconds = median_seconds([program, "run", f"{folder}/invalid.yaml"])
    emit(
        benchmark="startup",
        help_seconds=times,
        worst_help_seconds=max(times.values()),
        error_seconds=error_seconds,
    )


def median_seconds(command: list[str], repeats: int = 5) -> float:
    """Run a command several times, and return the median wall seconds of its process."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        subprocess.run(command, capture_output=True, check=False)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


if __name__ == "__main__":
    main()
