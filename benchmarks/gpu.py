"""Everything about a GPU that no test without one can show, in at most eight minutes.

    python -m benchmarks.gpu
    python -m benchmarks.gpu --stage steps packs
    python -m benchmarks.gpu --device cpu --small

It needs torch, transformers, peft, bitsandbytes and what those need, pyarrow, scikit-learn, pydantic and greenlet, and
neither Ray nor MLflow nor Optuna; the second stage also needs pytest. All models are random; nothing is downloaded.
With ``--device cpu --small`` it runs on tiny models without a GPU, so that its own faults are found before one is at
hand; what only a GPU can show is then skipped.

There is a line per stage, with ``stage``, ``ok``, ``seconds``, ``figures`` (the unit stands in each name), ``skipped``
(what was left out, and why) and ``error``. The last line has ``stages``, ``failed`` (names of the stages that were not
ok), ``seconds``, and ``recommended``: for each setting the value to take as the default, with the time of a step (or of
a generated token) relative to today's default, below 1 is faster. The exit code is 0 if no stage failed.

A stage ends when its time is over, and what it has measured until then is printed; the next one has a new process.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from benchmarks._command_line import argument_parser, emit
from benchmarks.gpu_stages import STAGES
from benchmarks.gpu_stages.supervisor import run_stages


def main() -> int:
    """Run the stages and return the exit code."""
    names = [stage.name for stage in STAGES]
    parser = argument_parser(__doc__)
    parser.add_argument("--stage", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="default: %(default)s")
    parser.add_argument("--small", action="store_true", help="tiny models, for a run without a GPU")
    arguments = parser.parse_args()
    stages = [stage for stage in STAGES if stage.name in arguments.stage]
    begin, failed = time.monotonic(), list[str]()
    recommended: dict[str, object] = {}
    with tempfile.TemporaryDirectory(prefix="gpu-benchmark-") as folder:
        for result in run_stages(stages, arguments.device, arguments.small, Path(folder)):
            emit(benchmark="gpu", **result.line())
            recommended |= result.recommended
            failed += [] if result.ok else [result.name]
    emit(
        benchmark="gpu",
        stages=len(stages),
        failed=failed,
        seconds=round(time.monotonic() - begin, 2),
        recommended=recommended,
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
