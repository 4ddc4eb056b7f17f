from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from orchestrator.common.trial_types import Ending, TrialKey
from orchestrator.search.plans import Decision, Proposal
from orchestrator.simulation.curves import Curve
from orchestrator.simulation.fleet import Fleet
from orchestrator.simulation.recorded import Recorded
from orchestrator.simulation.sweep import Clock, Simulation
from orchestrator.simulation.synthetic import METHODS, Synthetic
from orchestrator.simulation.table import Table

RUNGS = (10, 20)


class Scripted:
    """Starts so many trials, pauses each at its first rung where started to, and writes down what it hears."""

    def __init__(self, trials: int, clock: Clock, *, pauses: bool = False) -> None:
        self._trials, self._clock, self._pauses = trials, clock, pauses
        self._paused: list[TrialKey] = []
        self.started = 0
        self.reports: list[tuple[float, str, int, float]] = []
        self.finished: dict[str, tuple[str, str]] = {}

    def ask(self) -> Proposal | None:
        if self.started < self._trials:
            self.started += 1
            return Proposal(TrialKey("mail/lora", self.started - 1), {}, 0)
        return Proposal(self._paused.pop(0), {}, 0, RUNGS[0]) if self._paused else None

    def report(
        self,
        key: TrialKey,
        step: int,
        value: float,
        lane_seconds: float = 0.0,
        metrics: Mapping[str, float] | None = None,
        measurements: Mapping[str, float] | None = None,
    ) -> Decision:
        self.reports.append((self._clock.now, str(key), step, lane_seconds))
        if step == RUNGS[-1]:
            return Decision.STOP
        if self._pauses:
            self._paused.append(key)
            return Decision.PAUSE
        return Decision.CONTINUE

    def finish(self, key: TrialKey, state: Ending, reason: str = "", lane_seconds: float = 0.0) -> None:
        self.finished[str(key)] = (state, reason)


class ConstantPace:
    """Every trial takes a second per step."""

    def of(self, key: TrialKey, params: Mapping[str, Any]) -> Curve:
        return Curve(
            method="lora",
            config_id=0,
            params=params,
            seconds={step: float(step) for step in RUNGS},
            scores=dict.fromkeys(RUNGS, 0.5),
        )


def run(fleet: Fleet, trials: int, *, pauses: bool = False) -> tuple[Scripted, Simulation]:
    clock = Clock()
    search, simulation = Scripted(trials, clock, pauses=pauses), Simulation(ConstantPace(), RUNGS, fleet, clock)
    simulation.run(search)
    return search, simulation


@pytest.mark.parametrize("pauses", [False, True])
def test_simulated_lanes_share_work_and_pauses_cost_nothing(pauses: bool) -> None:
    search, simulation = run(Fleet(lanes_per_node=2), 6, pauses=pauses)
    assert len(search.reports) == 12
    assert sum(seconds for *_, seconds in search.reports) == 6 * 20
    assert simulation.now == 6 * 20 / 2


def test_simulated_straggler_takes_longer_and_is_charged() -> None:
    search, _ = run(Fleet(straggling=1.0, slowness=4.0), 1)
    assert [(now, step, seconds) for now, _, step, seconds in search.reports] == [(40, 10, 40), (80, 20, 40)]
    slow = [Fleet(straggling=0.2, nodes=500).factor(lane) > 1 for lane in range(500)]
    assert 60 < sum(slow) < 140


def test_simulated_node_loss_repeats_work_from_last_rung() -> None:
    fleet = Fleet(nodes=2, lanes_per_node=2, seconds_between_losses=60.0, seconds_away=25.0, patience=10.0)
    search, simulation = run(fleet, 20)
    assert simulation.lost > 3
    done = [(trial, step) for _, trial, step, _ in search.reports]
    assert len(set(done)) == len(done)
    ended = {trial for trial, step in done if step == RUNGS[-1]} | set(search.finished)
    assert len(ended) == 20
    assert all(seconds == 10 for *_, seconds in search.reports)  # a piece is a rung long, however often it was begun


def test_simulated_job_whose_lanes_die_twice_fails() -> None:
    fleet = Fleet(seconds_between_losses=2.0, seconds_away=1.0, seed=1)
    search, _ = run(fleet, 3)
    failed = {trial for trial, (state, _) in search.finished.items() if state == "failed"}
    assert failed
    assert {reason for _, reason in search.finished.values()} == {"its lane died 2 times while it trained"}
    assert failed | {trial for _, trial, step, _ in search.reports if step == RUNGS[-1]} == {
        f"mail/lora/{number}" for number in range(3)
    }


def test_simulated_dead_lane_sends_no_answer() -> None:
    clock, fleet = Clock(), Fleet(seconds_between_losses=5.0, seconds_away=1000.0, patience=400.0)
    lost = fleet.next_loss(0, 0)
    assert lost < 10  # before the first rung
    search = Scripted(1, clock)
    Simulation(ConstantPace(), RUNGS, fleet, clock).run(search)
    assert all(now >= lost + 1000 for now, *_ in search.reports)


def test_simulation_of_same_fleet_is_reproducible() -> None:
    fleet = Fleet(nodes=3, lanes_per_node=2, straggling=0.5, seconds_between_losses=50.0, seconds_away=5.0)
    assert run(fleet, 15)[0].reports == run(fleet, 15)[0].reports


def test_recorded_table_answers_with_nearest_unused_row(make_table: Callable[..., Table]) -> None:
    table = make_table({"lora": [[0.1] * 4, [0.2] * 4, [0.3] * 4, [0.4] * 4]})
    recorded = Recorded(table)  # rates 0.1, 0.01, 0.001, 0.0001 and ranks 1, 2, 4, 8
    near = {"learning_rate": 0.004}
    order = [recorded.of(TrialKey("mail/lora", number), near).config_id for number in range(5)]
    assert order == [1, 2, 0, 3, 1]  # on a log scale 0.004 is nearer to 0.01 than to 0.001
    assert recorded.of(TrialKey("mail/lora", 1), near).config_id == 2


def test_synthetic_curves_have_their_shapes() -> None:
    curves = Synthetic()
    params = {"rank": 8, "dropout": 0.0}
    shown = {}
    for method in METHODS:
        key = TrialKey(f"mail/{method.name}", 0)
        curve = curves.of(key, {**params, "learning_rate": method.rate})
        assert curve == curves.of(key, {**params, "learning_rate": method.rate})
        shown[method.name] = curve.scores
    assert shown["prompt"][10] < 0.4 < 0.6 < shown["linear_probe"][10]
    assert shown["prompt"][80] > 0.7
    far = [curves.of(TrialKey("mail/lora", n), {**params, "learning_rate": 0.1}).scores[80] for n in range(40)]
    assert 5 < sum(map(math.isnan, far)) < 35
    assert max(score for score in far if math.isfinite(score)) < shown["lora"][80] - 0.1
