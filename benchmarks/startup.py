"""How long a person waits for ``--help`` and for the errors of a bad configuration: median seconds per command."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks._common import emit

COMMANDS = (
    *("", "demo", "run", "plan", "schema", "select", "report", "predict", "export", "methods", "models"),
    *(f"models {name}" for name in ("list", "show", "compare", "pull", "promote", "rollback", "verify")),
)
BROKEN = """backbone: {model: no/such/folder/anywhere, quantisation: nf4}
tasks: {mail: {type: classification, data: mail.csv, text: text, label: lable}}
methods: [lora, ia3, lorra]
budget: {trials: 1}
"""


def main() -> None:
    """Measure every command."""
    program = str(Path(sys.executable).with_name("peft-sweep"))
    times = {name or "peft-sweep": median([program, *name.split(), "--help"]) for name in COMMANDS}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "mail.csv").write_text("text,label\nhello,a\nbye,b\n")
        (Path(folder) / "broken.yaml").write_text(BROKEN)
        broken = median([program, "run", f"{folder}/broken.yaml"])
    emit(benchmark="startup", help_seconds=times, worst_help_seconds=max(times.values()), broken_seconds=broken)


def median(command: list[str], repeats: int = 5) -> float:
    """Seconds of a whole process."""
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        subprocess.run(command, capture_output=True, check=False)
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds)


if __name__ == "__main__":
    main()
