"""What the Search core costs per trial in a sweep of 10,000 trials on 1,000 lanes.

The lanes are simulated, a twentieth of them slow, and their nodes are lost now and then; the core, its journal on disk
and Optuna's file are those of a real sweep. What is measured is the time inside the core from a trial's start to its
end: asking, every result, every decision, and what is written of them.

    python -m benchmarks.search_scale

One line without the sampler's own time, one with it; ``late_over_early`` compares the last trials with those around the
hundredth.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

from benchmarks._lines import emit
from orchestrator.common.trial_types import Ending, TrialKey
from orchestrator.search import studies
from orchestrator.search.allocation import Race
from orchestrator.search.budget import Limits
from orchestrator.search.core import Search
from orchestrator.search.plans import Decision, Proposal
from orchestrator.search.propose import propose
from orchestrator.simulation.fleet import Fleet
from orchestrator.simulation.sweep import Clock, Simulation
from orchestrator.simulation.synthetic import Synthetic
from orchestrator.tracking.journal import Journal

T = TypeVar("T")
RUNGS = (10, 20, 40, 80)
EARLY = range(50, 150)
CORE, WHOLE, GROWTH = 0.005, 0.040, 2.0


def main() -> None:
    """Run the sweep, once with a sampler whose time is left out, and once with one whose time counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--lanes", type=int, default=1000)
    parser.add_argument("--samplers", nargs="+", default=["random", "tpe"])
    asked = parser.parse_args()
    for sampler in asked.samplers:
        with tempfile.TemporaryDirectory() as folder:
            measure(Path(folder), sampler, asked.trials, asked.lanes)


def measure(folder: Path, sampler: str, trials: int, lanes: int) -> None:
    """One sweep, and a line on it."""
    fleet = Fleet(nodes=lanes // 8, lanes_per_node=8, straggling=0.05, seconds_between_losses=2_000.0)
    curves, clock, begin = Synthetic(rungs=RUNGS), Clock(), time.perf_counter()
    search = Search(
        curves.plans("mail"),
        RUNGS,
        storage_path=folder / "optuna.log",
        journal=Journal(folder / "journal.jsonl", clock),
        allocation=Race(),
        budget=Limits(trials=trials),
        clock=clock,
        sampler=sampler,
    )
    timed, simulation = Timed(search), Simulation(curves, RUNGS, fleet, clock)
    with patch.object(studies, "propose", timed.propose):
        simulation.run(timed)
    search.close("finished")
    core = compared([timed.core[key] for key in timed.keys], CORE, GROWTH)
    whole = compared([timed.core[key] + timed.sampler[key] for key in timed.keys], WHOLE)
    about = {"trials": len(timed.keys), "lanes": len(fleet.lanes), "lost_pieces": simulation.lost,
             "simulated_hours": clock.now / 3600, "seconds": time.perf_counter() - begin}  # fmt: skip
    emit(benchmark="search_scale", sampler=sampler, counted="core", **core, **about)
    emit(benchmark="search_scale", sampler=sampler, counted="core and sampler", **whole, **about)


def compared(seconds: list[float], limit: float, growth: float = math.inf) -> dict[str, Any]:
    """The middle of all trials, and of the last ones over that of the ones around the hundredth.

    A sampler may grow: it draws the first trials at random, and models what there is later.
    """
    late = statistics.median(seconds[-len(EARLY) :])
    early = statistics.median(seconds[EARLY.start : EARLY.stop])
    median = statistics.median(seconds)
    reached = median < limit and late / early < growth
    return {"median_ms": 1e3 * median, "late_over_early": late / early, "late_ms": 1e3 * late, "reached": reached}


class Timed:
    """A search that keeps the time that every trial took of it, and how much of that was the sampler's.

    Args:
        search: whose calls are timed.
    """

    def __init__(self, search: Search) -> None:
        self._search = search
        self._sampling = 0.0
        self.keys: list[TrialKey] = []
        self.core: dict[TrialKey, float] = defaultdict(float)
        self.sampler: dict[TrialKey, float] = defaultdict(float)

    def ask(self) -> Proposal | None:
        """Ask the search."""
        self._sampling = 0.0
        proposal, seconds = _timed(self._search.ask)
        if proposal is not None:
            if not proposal.start:
                self.keys.append(proposal.key)
            self.core[proposal.key] += seconds - self._sampling
            self.sampler[proposal.key] += self._sampling
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
        """Tell the search."""
        decision, seconds = _timed(lambda: self._search.report(key, step, value, lane_seconds, metrics, measurements))
        self.core[key] += seconds
        return decision

    def finish(self, key: TrialKey, state: Ending, reason: str = "", lane_seconds: float = 0.0) -> None:
        """End a trial."""
        _, seconds = _timed(lambda: self._search.finish(key, state, reason, lane_seconds))
        self.core[key] += seconds

    def propose(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Ask the sampler."""
        params, seconds = _timed(lambda: propose(*args, **kwargs))
        self._sampling += seconds
        return params


def _timed(call: Callable[[], T]) -> tuple[T, float]:
    begin = time.perf_counter()
    answer = call()
    return answer, time.perf_counter() - begin


if __name__ == "__main__":
    main()
