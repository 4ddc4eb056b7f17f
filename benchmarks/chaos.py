"""Faults against real sweeps, with what must hold after each of them.

    python -m benchmarks.chaos --minutes 5

Each run is a small real sweep that trains packs. It is disturbed several times at moments that ``--seed`` draws, and
resumed until it is finished. Its journal, MLflow, registry and values are then compared with those of a sweep that was
left alone, MLflow's also with the journal. Five seconds after each end of its process, no process or shared memory of
it may be left, and the line to resume must be there. What stops a sweep must have stopped it within 30 seconds. A
strike of which nothing shows, in processes that it has killed, the sweep's log or its output, is a problem of the
harness, and told as well.

A JSON line for each fault has ``fault``, ``times`` (how often sweeps were disturbed), ``held`` (of these, those of
sweeps without a problem), ``sweeps`` and ``problems``. The exit code is 1 if any did not hold. Faults take turns; one
for which there was no time has ``times`` 0, as has one that this machine does not allow: a small disk needs root, and
PostgreSQL must be installed.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks._chaos_checks import Left, Result, problems, result_of
from benchmarks._chaos_faults import FAULTS, Disturbed, Fault, ImpossibleError
from benchmarks._chaos_servers import SERVER_FAULTS
from benchmarks._chaos_sweep import ChaosSweep
from benchmarks._command_line import argument_parser, emit

ALL_FAULTS = FAULTS | SERVER_FAULTS
MOST_LIVES = 20


@dataclass
class Run:
    """A sweep that was disturbed.

    Args:
        moments: when.
        problems: what did not hold.
    """

    moments: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def main() -> None:
    """Disturb sweeps until the time is over."""
    parser = argument_parser(__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="no sweep begins after that time")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments")
    parser.add_argument("--fault", choices=ALL_FAULTS, action="append", help="which faults; all if left out")
    parser.add_argument(
        "--strikes", type=int, default=0, help="how often a sweep is disturbed; by the fault if left out"
    )
    arguments = parser.parse_args()
    end = time.monotonic() + 60 * arguments.minutes
    faults, runs = arguments.fault or list(ALL_FAULTS), dict[str, list[Run]]()
    draw = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        undisturbed = run_undisturbed(Path(folder) / "undisturbed")
        number = 0
        while time.monotonic() < end and faults:
            fault = faults[number % len(faults)]
            number += 1
            place = Path(folder) / str(number)
            try:
                run = disturb(ALL_FAULTS[fault], place, draw, undisturbed, arguments.strikes)
            except ImpossibleError as error:
                print(f"{fault}: {error}", file=sys.stderr)
                faults.remove(fault)
                continue
            print(f"{fault}: {run}", file=sys.stderr, flush=True)
            runs.setdefault(fault, []).append(run)
    for fault in arguments.fault or ALL_FAULTS:
        of_fault = runs.get(fault, [])
        emit(
            fault=fault,
            times=sum(len(run.moments) for run in of_fault),
            held=sum(len(run.moments) for run in of_fault if not run.problems),
            sweeps=len(of_fault),
            problems=[problem for run in of_fault for problem in run.problems],
        )
    sys.exit(any(run.problems for of_fault in runs.values() for run in of_fault))


def run_undisturbed(folder: Path) -> Result:
    """Run a sweep that is left alone."""
    with ChaosSweep(folder) as sweep:
        sweep.start()
        sweep.wait()
        assert sweep.is_finished, sweep.output().decode(errors="replace")
        return result_of(sweep)


def disturb(fault: Fault, folder: Path, draw: random.Random, undisturbed: Result, strikes: int = 0) -> Run:
    """Disturb one sweep until it is finished.

    Args:
        fault: what is done.
        folder: folder of the sweep, which is made.
        draw: source of the moments.
        undisturbed: what the sweep must come to.
        strikes: how often, at most; 0 for the fault's own number.
    """
    left, run = Left.now(), Run()
    with fault(folder) as disturbed:
        try:
            _live(disturbed, draw, left, run, strikes or disturbed.strikes)
            run.problems += problems(result_of(disturbed.sweep), undisturbed)
        except AssertionError as error:
            run.problems.append(str(error) or "an assertion failed")
        if run.problems:
            print(disturbed.sweep.output().decode(errors="replace")[-3000:], file=sys.stderr)
    return run


def _live(disturbed: Disturbed, draw: random.Random, left: Left, run: Run, strikes: int) -> None:
    """Run and resume a sweep until it is finished, and disturb it meanwhile."""
    sweep = disturbed.sweep
    for _ in range(MOST_LIVES):
        if len(run.moments) < strikes:
            disturbed.prepare(draw)
        else:
            sweep.kill_itself = None
        sweep.start()
        while len(run.moments) < strikes:
            moment = disturbed.disturb(draw)
            if not moment:
                break
            run.moments.append(moment)
            run.problems += disturbed.settle()
            run.problems += disturbed.without_effect()
            if sweep.has_ended():
                break
        sweep.wait()
        run.problems += left.problems(sweep.folder)
        if sweep.is_finished:
            if sweep.has_succeeded():
                return
            continue  # killed at its very end: resumed once more, it brings MLflow up to date
        if sweep.has_begun() and not sweep.says_how_to_continue():
            run.problems.append(f"no line to resume, {run.moments[-1:]}")
    raise AssertionError(f"it is not finished after {MOST_LIVES} attempts")


if __name__ == "__main__":
    main()
