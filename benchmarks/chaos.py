"""Faults against real sweeps, with what must hold after each of them.

    python -m benchmarks.chaos --minutes 5

Each run is a small sweep of one lane that trains packs, disturbed once at a random moment (``--seed``), and resumed
until it is finished. Its journal, MLflow, registry and values are then compared with those of a sweep that was left
alone, and no process or shared memory of it may be left.

A JSON line for each fault has ``fault``, ``times`` and ``held``, and ``problems`` where it did not hold. The exit code
is 1 if any did not. A fault that this machine does not allow (a small disk needs root) has ``times`` 0.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from pathlib import Path

from benchmarks._chaos_checks import Left, Result, problems, result_of
from benchmarks._chaos_faults import FAULTS, ImpossibleError
from benchmarks._chaos_sweep import ChaosSweep
from benchmarks._command_line import argument_parser, emit


def main() -> None:
    """Disturb sweeps until the time is over."""
    parser = argument_parser(__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="no sweep begins after that time")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments")
    parser.add_argument("--fault", choices=FAULTS, action="append", help="which faults; all if left out")
    arguments = parser.parse_args()
    end = time.monotonic() + 60 * arguments.minutes
    faults, found = arguments.fault or list(FAULTS), dict[str, list[list[str]]]()
    draw = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        undisturbed = _undisturbed(Path(folder) / "undisturbed")
        number = 0
        while time.monotonic() < end and faults:
            fault = faults[number % len(faults)]
            number += 1
            try:
                found.setdefault(fault, []).append(_disturb(fault, Path(folder) / str(number), draw, undisturbed))
            except ImpossibleError as error:
                print(f"{fault}: {error}", file=sys.stderr)
                faults.remove(fault)
    for fault in arguments.fault or FAULTS:
        runs = found.get(fault, [])
        emit(
            fault=fault,
            times=len(runs),
            held=sum(not run for run in runs),
            problems=[problem for run in runs for problem in run],
        )
    sys.exit(any(run for runs in found.values() for run in runs))


def _undisturbed(folder: Path) -> Result:
    with ChaosSweep(folder) as sweep:
        sweep.run()
        sweep.wait()
        return result_of(sweep)


def _disturb(fault: str, folder: Path, draw: random.Random, undisturbed: Result) -> list[str]:
    """Disturb one sweep; returns what did not hold."""
    left = Left.now()
    with FAULTS[fault](folder) as disturbed:
        after = draw.randint(2, 14)  # events: from the first trial to the final
        print(f"{fault} after {after} events in {folder}", file=sys.stderr, flush=True)
        try:
            disturbed.sweep.run()
            disturbed.sweep.wait_for_events(after)
            disturbed.strike()
            disturbed.sweep.wait()
            disturbed.mend()
            disturbed.sweep.resume_until_finished()
            found = problems(result_of(disturbed.sweep), undisturbed)
        except AssertionError as error:
            found = [str(error)]
    return [f"after {after} events: {problem}" for problem in [*found, *left.problems(folder)]]


if __name__ == "__main__":
    main()
