"""Time that the search core spends per trial, in a sweep of 10,000 trials on 1,000 lanes.

    python -m benchmarks.search_scale

The lanes are simulated: a twentieth of them are slow, and nodes are lost at random. The core, its journal on disk and
Optuna's file are those of a real sweep. A trial's time is the sum over all calls of the core for it: proposing it,
receiving every result, deciding, and writing the journal and Optuna's file. Two lines per sampler, without the
sampler's share of that time (``counted``: ``core``) and with it (``core and sampler``):

- ``median_ms``: wall milliseconds per trial, median over all trials.
- ``late_ms``: median of the last 100 trials; ``late_over_early``: that over the median of trials 50 to 149.
- ``target_met``: the median is below 5 ms and ``late_over_early`` below 2 (with the sampler: the median below 40 ms).
- ``lost_jobs``: parts of trials lost with a node. ``simulated_hours``: duration of the simulated sweep.
  ``seconds``: wall seconds of the whole simulation.
"""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

from benchmarks._command_line import argument_parser, emit
from orchestrator.common.trial_types import Ending, TrialKey
from orchestrator.journal.events import Journal
from orchestrator.search import studies
from orchestrator.search.allocation import Race
from orchestrator.search.budget import SpendingLimits
from orchestrator.search.core import Search
from orchestrator.search.plans import Decision, Proposal
from orchestrator.search.propose import propose
from orchestrator.simulation.fleet import Fleet
from orchestrator.simulation.sweep import Clock, Simulation
from orchestrator.simulation.synthetic import Synthetic

T = TypeVar("T")
RUNGS = (10, 20, 40, 80)
EARLY = range(50, 150)
MAX_CORE_S, MAX_CORE_AND_SAMPLER_S, MAX_GROWTH = 0.005, 0.040, 2.0


def main() -> None:
    """Simulate a sweep with every sampler."""
    parser = argument_parser(__doc__)
    parser.add_argument("--trials", type=int, default=10_000, help="trials of the sweep (default: %(default)s)")
    parser.add_argument("--lanes", type=int, default=1000, help="simulated lanes (default: %(default)s)")
    parser.add_argument(
        "--samplers",
        nargs="+",
        default=["random", "tpe"],
        metavar="SAMPLER",
        help="samplers to measure, each in a sweep of its own (default: %(default)s)",
    )
    arguments = parser.parse_args()
    for sampler in arguments.samplers:
        with tempfile.TemporaryDirectory() as folder:
            measure_sweep(Path(folder), sampler, arguments.trials, arguments.lanes)


def measure_sweep(folder: Path, sampler: str, trials: int, lanes: int) -> None:
    """Simulate a sweep and print its two lines."""
    fleet = Fleet(nodes=lanes // 8, lanes_per_node=8, straggling=0.05, seconds_between_losses=2_000.0)
    curves, clock, start = Synthetic(rungs=RUNGS), Clock(), time.perf_counter()
    search = Search(
        curves.plans("mail"),
        RUNGS,
        storage_path=folder / "optuna.log",
        journal=Journal(folder / "journal.jsonl", clock),
        allocation=Race(),
        budget=SpendingLimits(trials=trials),
        clock=clock,
        sampler=sampler,
    )
    timed, simulation = TimedSearch(search), Simulation(curves, RUNGS, fleet, clock)
    with patch.object(studies, "propose", timed.propose):
        simulation.run(timed)
    search.close("finished")
    core_seconds = [timed.core_seconds[key] for key in timed.keys]
    total_seconds = [timed.core_seconds[key] + timed.sampler_seconds[key] for key in timed.keys]
    sweep = {"trials": len(timed.keys), "lanes": len(fleet.lanes), "lost_jobs": simulation.lost,
             "simulated_hours": clock.now / 3600, "seconds": time.perf_counter() - start}  # fmt: skip
    core = summarize(core_seconds, MAX_CORE_S, MAX_GROWTH)
    emit(benchmark="search_scale", sampler=sampler, counted="core", **core, **sweep)
    total = summarize(total_seconds, MAX_CORE_AND_SAMPLER_S)
    emit(benchmark="search_scale", sampler=sampler, counted="core and sampler", **total, **sweep)


def summarize(seconds: list[float], max_median_s: float, max_growth: float = math.inf) -> dict[str, Any]:
    """Return the median of all trials, and how much longer late trials took than early ones.

    A sampler's time may grow without bound: it draws its first trials at random, and fits a model to all trials later.

    Args:
        seconds: time of each trial, in the order of their starts.
        max_median_s: target for the median of all trials.
        max_growth: target for the median of the late trials over that of the early ones.
    """
    late = statistics.median(seconds[-len(EARLY) :])
    early = statistics.median(seconds[EARLY.start : EARLY.stop])
    median = statistics.median(seconds)
    target_met = median < max_median_s and late / early < max_growth
    return {"median_ms": 1e3 * median, "late_over_early": late / early, "late_ms": 1e3 * late, "target_met": target_met}


class TimedSearch:
    """A search that records the time of its calls, by trial, with the sampler's share apart.

    Args:
        search: search whose calls are timed.
    """

    def __init__(self, search: Search) -> None:
        self._search = search
        self._sampling_seconds = 0.0
        self.keys: list[TrialKey] = []
        self.core_seconds: dict[TrialKey, float] = defaultdict(float)
        self.sampler_seconds: dict[TrialKey, float] = defaultdict(float)

    def ask(self) -> Proposal | None:
        """Return the search's proposal."""
        self._sampling_seconds = 0.0
        proposal, seconds = _measure(self._search.ask)
        if proposal is not None:
            if not proposal.start:
                self.keys.append(proposal.key)
            self.core_seconds[proposal.key] += seconds - self._sampling_seconds
            self.sampler_seconds[proposal.key] += self._sampling_seconds
        return proposal

    def report(
        self,
        key: TrialKey,
        step: int,
        value: float,
        lane_seconds: float = 0.0,
        metrics: Mapping[str, float] | None = None,
        measurements: Mapping[str, float] | None = None,
    ) -> Decision:
        """Report a result to the search."""
        decision, seconds = _measure(lambda: self._search.report(key, step, value, lane_seconds, metrics, measurements))
        self.core_seconds[key] += seconds
        return decision

    def finish(self, key: TrialKey, state: Ending, reason: str = "", lane_seconds: float = 0.0) -> None:
        """End a trial."""
        _, seconds = _measure(lambda: self._search.finish(key, state, reason, lane_seconds))
        self.core_seconds[key] += seconds

    def propose(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the sampler's configuration."""
        params, seconds = _measure(lambda: propose(*args, **kwargs))
        self._sampling_seconds += seconds
        return params


def _measure(call: Callable[[], T]) -> tuple[T, float]:
    """Return the result of a call and its wall seconds."""
    start = time.perf_counter()
    result = call()
    return result, time.perf_counter() - start


if __name__ == "__main__":
    main()
