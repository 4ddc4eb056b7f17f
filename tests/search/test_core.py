from __future__ import annotations

import math
import random
import statistics
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from optuna.distributions import CategoricalDistribution, IntDistribution

from orchestrator.common.trial_types import TrialKey
from orchestrator.search.core import Search
from orchestrator.search.early_stopping import Halving
from orchestrator.search.plans import Decision, Proposal
from search_spaces._base import SearchSpace

RUNGS = (25, 50, 100)
STUDIES = ("mail/lora", "mail/ia3", "news/lora", "news/ia3")

SMALL = SearchSpace(
    distributions={"rank": CategoricalDistribution([4, 8]), "layers": IntDistribution(1, 3)},
    default={"rank": 8, "layers": 2},
    sources={},
)


@pytest.fixture
def score(request: pytest.FixtureRequest) -> Callable[[dict[str, Any], int], float]:
    def score(params: dict[str, Any], step: int) -> float:
        distance = abs(math.log10(params["learning_rate"]) + 3)
        return (1 - math.exp(-step / 40)) / (1 + distance)

    return score


def run(sweep: Any, score: Callable[[dict[str, Any], int], float], *, lanes: int, until: float = math.inf) -> None:
    """Run a search on lanes that take turns in a random but fixed order; each rung takes ten seconds."""
    order = random.Random(0)
    running: list[tuple[Proposal, list[int]]] = []
    while sweep.clock.now < until:
        while len(running) < lanes and (proposal := sweep.search.ask()):
            running.append((proposal, list(RUNGS)))
        if not running:
            return
        proposal, steps = running.pop(order.randrange(len(running)))
        sweep.clock.now += 10
        step = next(step for step in steps if step > proposal.start)
        steps = steps[steps.index(step) + 1 :]
        decision = sweep.search.report(proposal.key, step, score(proposal.params, step), lane_seconds=10)
        if decision is Decision.CONTINUE:
            running.append((proposal, steps))


def start(search: Search, count: int = 1) -> list[TrialKey]:
    proposals = [search.ask() for _ in range(count)]
    assert all(proposals)
    return [proposal.key for proposal in proposals if proposal]


def test_search_ends_each_of_many_trials_once(make_sweep: Any, score: Any) -> None:
    sweep = make_sweep(STUDIES, trials=160)
    run(sweep, score, lanes=5)
    sweep.search.close("finished")
    states = Counter(sweep.ended().values())
    assert set(states) == {"complete", "pruned"}
    assert sum(states.values()) == 160
    assert states["pruned"] > states["complete"]  # halving twice leaves about a quarter
    sweep.assert_optuna_agrees()
    for study in STUDIES:
        records = [record for record in sweep.search.trials() if record.key.study == study]
        best = max(records, key=lambda record: record.rank(higher_is_better=True))
        assert abs(math.log10(best.params["learning_rate"]) + 3) < 0.3
        assert best.state == "complete"
        distance = [abs(math.log10(record.params["learning_rate"]) + 3) for record in records]
        assert statistics.median(distance[20:]) < 0.85  # random draws would have 1


def test_search_takes_turns_over_tasks_and_methods(make_sweep: Any, score: Any) -> None:
    sweep = make_sweep(STUDIES, trials=40)
    run(sweep, score, lanes=3)
    started = [event["trial"].rpartition("/")[0] for event in sweep.events("trial")]
    for turn in range(0, 40, 4):
        assert set(started[turn : turn + 4]) == set(STUDIES)
    assert [name.partition("/")[0] for name in started[:4]] == ["mail", "news", "mail", "news"]


def test_search_tries_the_default_first(make_sweep: Any) -> None:
    sweep = make_sweep(STUDIES)
    for _ in STUDIES:
        assert sweep.search.ask().params == {"learning_rate": 1e-3, "dropout": 0.1}
    assert sweep.search.ask().params != {"learning_rate": 1e-3, "dropout": 0.1}


def test_halving_waits_for_enough_results(make_sweep: Any) -> None:
    search = make_sweep().search
    keys = start(search, 5)
    decisions = [search.report(key, 25, 0.5 + 0.1 * i) for i, key in enumerate(keys)]
    assert decisions == [
        Decision.CONTINUE,  # the default goes through
        Decision.PAUSE,
        Decision.PAUSE,
        Decision.CONTINUE,
        Decision.CONTINUE,
    ]
    assert search.report(keys[0], 50, 0.1) is Decision.CONTINUE
    assert search.report(keys[3], 50, 0.9) is Decision.PAUSE


def test_halving_promotes_paused_trial_among_the_best(make_sweep: Any) -> None:
    sweep = make_sweep()
    keys = start(sweep.search, 4)
    for key, value in zip(keys, [0.1, 0.8, 0.9, 0.2], strict=True):
        sweep.search.report(key, 25, value)
    again = [sweep.search.ask() for _ in range(3)]
    assert [(proposal.key, proposal.start) for proposal in again[:2]] == [(keys[2], 25), (keys[1], 25)]
    assert again[0].params == sweep.search.trials()[2].params
    assert (again[2].key.number, again[2].start) == (4, 0)  # no other trial among the best waits
    assert [event["trial"] for event in sweep.events("promote")] == [str(keys[2]), str(keys[1])]
    assert sweep.search.report(keys[2], 50, 0.9) is Decision.PAUSE
    assert sweep.search.report(keys[2], 50, 0.9) is Decision.PAUSE  # reported twice


def test_close_prunes_trials_that_wait(make_sweep: Any) -> None:
    sweep = make_sweep()
    for key in start(sweep.search, 2):
        sweep.search.report(key, 25, 0.5)
    sweep.search.finish(TrialKey("mail/lora", 1), "complete")  # Tune calls its piece complete
    assert [record.state for record in sweep.search.trials()] == ["running", "paused"]
    sweep.search.close("finished")
    assert sweep.ended() == {"mail/lora/0": "killed", "mail/lora/1": "pruned"}
    assert sweep.search.trials()[1].reason == "behind the others of its method at step 25"
    sweep.assert_optuna_agrees()


def test_halving_promotes_all_once_no_result_can_follow(make_sweep: Any) -> None:
    search = make_sweep(trials=3).search
    keys = start(search, 3)
    assert search.report(keys[1], 25, 0.5) is Decision.PAUSE
    assert search.ask() is None
    assert not search.exhausted
    assert search.report(keys[0], 25, 0.5) is Decision.CONTINUE
    assert search.report(keys[2], 25, 0.1) is Decision.CONTINUE
    again = search.ask()
    assert again is not None
    assert (again.key, again.start) == (keys[1], 25)


def test_search_without_halving_pauses_no_trial(make_sweep: Any) -> None:
    search = make_sweep(halving=None).search
    for i, key in enumerate(start(search, 6)):
        assert [search.report(key, step, -float(i)) for step in RUNGS] == [Decision.CONTINUE] * 2 + [Decision.STOP]


def test_halving_compares_within_a_study_only(make_sweep: Any) -> None:
    search = make_sweep(STUDIES).search
    for i, key in enumerate(start(search, 12)):
        expected = Decision.CONTINUE if key.number == 0 else Decision.PAUSE
        assert search.report(key, 25, -float(i)) is expected


def test_halving_pauses_large_values_of_minimized_metric(make_sweep: Any) -> None:
    sweep = make_sweep(higher_is_better=False)
    keys = start(sweep.search, 5)
    decisions = [sweep.search.report(key, 25, value) for key, value in zip(keys, [5.0, 3.0, 2.0, 4.0, 1], strict=True)]
    assert decisions[3:] == [Decision.PAUSE, Decision.CONTINUE]
    assert sweep.search.ask().key == keys[2]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("step", RUNGS)
def test_diverged_trial_is_pruned_at_any_rung(make_sweep: Any, value: float, step: int) -> None:
    sweep = make_sweep()
    (key,) = start(sweep.search)
    for rung in RUNGS[: RUNGS.index(step)]:
        assert sweep.search.report(key, rung, 0.5) is Decision.CONTINUE
    assert sweep.search.report(key, step, value) is Decision.STOP
    assert sweep.ended() == {"mail/lora/0": "pruned"}
    assert sweep.events("rung")[-1]["value"] is None
    sweep.assert_optuna_agrees()
    assert start(sweep.search)  # the sampler is not confused by it


def test_journal_gets_all_fields_of_a_rung(make_sweep: Any) -> None:
    sweep = make_sweep()
    (key,) = start(sweep.search)
    sweep.search.report(key, 25, 0.5, 3.0, {"macro_f1": 0.5, "loss": 1.0}, {"trainable": 64.0})
    assert sweep.events("trial") == [
        {"time": 1000.0, "event": "trial", "trial": "mail/lora/0", "seed": 7, "params": sweep.search.trials()[0].params}
    ]
    assert sweep.events("rung") == [
        {
            "time": 1000.0,
            "event": "rung",
            "trial": "mail/lora/0",
            "step": 25,
            "value": 0.5,
            "metrics": {"macro_f1": 0.5, "loss": 1.0},
            "measurements": {"trainable": 64.0},
            "lane_seconds": 3.0,
        }
    ]


def test_budget_limits_the_number_of_trials(make_sweep: Any) -> None:
    search = make_sweep(trials=2).search
    assert not search.exhausted
    keys = start(search, 2)
    assert search.ask() is None
    assert not search.exhausted  # those that run may continue
    for key in keys:
        for step in RUNGS:
            search.report(key, step, 0.5)
    assert search.ask() is None
    assert search.exhausted


def test_most_at_once_is_known_once_no_trial_can_start(make_sweep: Any) -> None:
    search = make_sweep(trials=3).search
    most = [search.most_at_once]  # new ones may start
    first, second = start(search, 2)
    most.append(search.most_at_once)
    start(search, 1)
    most.append(search.most_at_once)
    search.report(first, 25, 0.1)
    most.append(search.most_at_once)  # one that waits may be promoted
    search.finish(second, "failed", "out of luck")
    most.append(search.most_at_once)
    search.close("budget")
    assert [*most, search.most_at_once] == [None, None, 3, 3, 2, 0]


def test_wall_time_ends_running_trials_at_their_next_result(make_sweep: Any, score: Any) -> None:
    sweep = make_sweep(STUDIES, wall_seconds=1000)
    run(sweep, score, lanes=6, until=3000)
    assert {record.state for record in sweep.search.trials()} <= {"complete", "pruned", "paused"}
    sweep.search.close("budget")
    ended = sweep.ended()
    assert len(ended) > 30
    assert Counter(event["reason"] for event in sweep.events("end"))["budget"] >= 1
    assert max(event["time"] for event in sweep.events("trial")) < 2000
    assert sweep.search.wall_time_over
    assert sweep.search.exhausted
    sweep.assert_optuna_agrees()


def test_wall_time_is_over_at_its_last_second(make_sweep: Any) -> None:
    sweep = make_sweep(wall_seconds=10)
    sweep.clock.now += 9.5
    assert not sweep.search.wall_time_over
    assert sweep.search.ask()
    sweep.clock.now += 0.5
    assert sweep.search.wall_time_over
    assert sweep.search.ask() is None


def test_wall_time_leaves_trial_at_last_rung_complete(make_sweep: Any) -> None:
    sweep = make_sweep(wall_seconds=10)
    (key,) = start(sweep.search)
    sweep.search.report(key, 25, 0.5)
    sweep.search.report(key, 50, 0.5)
    sweep.clock.now += 10
    sweep.search.report(key, 100, 0.5)
    assert sweep.ended() == {"mail/lora/0": "complete"}


def test_lane_time_includes_failed_trials(make_sweep: Any) -> None:
    sweep = make_sweep(lane_seconds=30)
    first, second, third = start(sweep.search, 3)
    assert sweep.search.report(first, 25, 0.5, lane_seconds=10) is Decision.CONTINUE
    sweep.search.finish(second, "failed", "out of memory", lane_seconds=15)
    assert not sweep.search.exhausted
    assert sweep.search.report(third, 25, 0.5, lane_seconds=5) is Decision.STOP
    assert sweep.search.ask() is None
    assert sweep.search.lane_seconds == 30
    assert [record.lane_seconds for record in sweep.search.trials()] == [10, 15, 5]
    assert sweep.search.trials()[2].reason == "budget"


@pytest.mark.parametrize(("reason", "state"), [("finished", "killed"), ("budget", "pruned")])
def test_close_ends_every_open_trial(make_sweep: Any, score: Any, reason: str, state: str) -> None:
    sweep = make_sweep(STUDIES)
    run(sweep, score, lanes=6, until=2000)
    search = sweep.search
    waiting = {str(record.key) for record in search.trials() if record.state == "paused"}
    open_before = search.open()
    assert len(open_before) - len(waiting) >= 5
    assert search.close(reason) == open_before
    assert search.close(reason) == ()
    assert search.open() == ()
    assert search.ask() is None
    assert search.exhausted
    ended = sweep.ended()
    assert {ended[str(key)] for key in open_before if str(key) not in waiting} == {state}
    assert {ended[key] for key in waiting} == {"pruned"}
    sweep.assert_optuna_agrees()


@pytest.mark.parametrize("reason", ["interrupted", "failed"])
def test_close_of_interrupted_search_leaves_trials_open(make_sweep: Any, score: Any, reason: str) -> None:
    sweep = make_sweep(STUDIES)
    run(sweep, score, lanes=6, until=2000)
    before = sweep.search.trials()
    assert sweep.search.close(reason) == sweep.search.open()
    running = next(record for record in before if record.state == "running")
    sweep.search.finish(running.key, "killed", "cancelled")  # as its lane says
    assert sweep.search.trials() == before
    assert sweep.search.ask() is None
    assert sweep.search.exhausted


def test_result_after_interruption_still_counts(make_sweep: Any) -> None:
    sweep = make_sweep()
    (key,) = start(sweep.search)
    sweep.search.close("interrupted")
    assert sweep.search.report(key, 25, 0.9) is Decision.STOP
    assert sweep.search.trials()[0].values == {25: 0.9}
    assert sweep.search.open() == (key,)


def test_result_after_the_end_changes_nothing(make_sweep: Any) -> None:
    sweep = make_sweep()
    (key,) = start(sweep.search)
    sweep.search.report(key, 25, 0.5)
    sweep.search.close("finished")
    before = sweep.search.trials()
    assert sweep.search.report(key, 50, 0.9) is Decision.STOP
    sweep.search.finish(key, "failed", "late")
    assert sweep.search.trials() == before
    assert sweep.ended() == {"mail/lora/0": "killed"}
    assert len(sweep.events("rung")) == 1
    assert sweep.optuna("mail/lora")[0].user_attrs == {"killed": "finished"}


def test_repeated_step_counts_once(make_sweep: Any) -> None:
    sweep = make_sweep()
    (key,) = start(sweep.search)
    for value in (0.5, 0.9):
        assert sweep.search.report(key, 25, value, lane_seconds=1) is Decision.CONTINUE
    assert sweep.search.trials()[0].values == {25: 0.5}
    assert sweep.search.lane_seconds == 1


def test_report_refuses_step_that_is_no_rung(make_sweep: Any) -> None:
    (key,) = start(search := make_sweep().search)
    with pytest.raises(ValueError, match=r"mail/lora/0 reported step 30; the rungs are 25, 50, 100"):
        search.report(key, 30, 0.5)


@pytest.mark.parametrize(
    ("steps", "reported_state", "state"),
    [
        ((), "failed", "failed"),
        ((25,), "killed", "killed"),
        ((25,), "complete", "pruned"),  # it says so, but has no result at the last rung
        ((), "complete", "failed"),
    ],
)
def test_finish_records_how_a_trial_ended(
    make_sweep: Any, steps: tuple[int, ...], reported_state: Any, state: str
) -> None:
    sweep = make_sweep()
    (key,) = start(sweep.search)
    for step in steps:
        sweep.search.report(key, step, 0.5)
    for _ in range(2):
        sweep.search.finish(key, reported_state, "a reason")
    assert sweep.ended() == {"mail/lora/0": state}
    assert sweep.events("end")[0]["reason"] == "a reason"
    sweep.assert_optuna_agrees()


def test_optuna_file_has_no_value_for_pruned_trials(make_sweep: Any) -> None:
    sweep = make_sweep()
    keys = start(sweep.search, 2)
    sweep.search.report(keys[0], 25, 0.5)
    sweep.search.close("budget")
    reported, silent = sweep.optuna("mail/lora")
    assert reported.intermediate_values == {0: 0.5}
    assert silent.intermediate_values == {}
    assert silent.value is None


def test_search_tries_each_point_of_small_space_once(make_sweep: Any) -> None:
    sweep = make_sweep(("mail/small", "mail/other"), space=SMALL, trials=100)
    points_by_study: dict[str, list[tuple[int, int]]] = {}
    while proposal := sweep.search.ask():
        points_by_study.setdefault(proposal.key.study, []).append((proposal.params["rank"], proposal.params["layers"]))
        sweep.search.finish(proposal.key, "killed", "no matter")
    assert sweep.search.exhausted
    for points in points_by_study.values():
        assert points[0] == (8, 2)
        assert sorted(points) == [(rank, layers) for rank in (4, 8) for layers in (1, 2, 3)]
    assert points_by_study["mail/small"] != points_by_study["mail/other"]


def test_proposals_follow_from_seed_study_and_number(make_sweep: Any, score: Any) -> None:
    def proposed(*studies: str, folder: str) -> list[dict[str, Any]]:
        sweep = make_sweep(studies, folder=folder)
        run(sweep, score, lanes=1, until=1000 + 500 * len(studies))
        return [record.params for record in sweep.search.trials() if record.key.study == "mail/lora"][:20]

    alone, again = proposed("mail/lora", folder="a"), proposed("mail/lora", folder="b")
    assert alone == again
    assert proposed("mail/lora", "news/ia3", folder="c") == alone  # others draw from other numbers
    other = make_sweep(("mail/ia3",), folder="d", trials=3)
    run(other, score, lanes=1)
    assert [r.params for r in other.search.trials()][1:] != alone[1:3]


def test_search_is_safe_for_threads(make_sweep: Any, score: Any) -> None:
    sweep = make_sweep(STUDIES, trials=60)

    def lane() -> None:
        while proposal := sweep.search.ask():
            for step in RUNGS[RUNGS.index(proposal.start) + 1 if proposal.start else 0 :]:
                if sweep.search.report(proposal.key, step, score(proposal.params, step)) is not Decision.CONTINUE:
                    break
            sweep.search.trials()

    threads = [threading.Thread(target=lane) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sweep.search.close("finished")
    assert len(sweep.ended()) == 60
    sweep.assert_optuna_agrees()


def test_search_gives_up_method_whose_first_trials_fail(make_sweep: Any) -> None:
    """A failure costs no lane time: without this, a budget in lane-hours would never end."""
    sweep = make_sweep(("mail/lora", "mail/ia3"), lane_seconds=1e9)
    while len(failed := [r for r in sweep.search.trials() if r.state == "failed"]) < 3:
        proposal = sweep.search.ask()
        assert proposal is not None
        if proposal.key.method == "lora":
            sweep.search.finish(proposal.key, "failed", "it never works")
    later = [sweep.search.ask().key.method for _ in range(6)]
    assert {record.key.method for record in failed} == {"lora"}
    assert set(later) == {"ia3"}


def test_search_ends_if_every_method_fails(make_sweep: Any) -> None:
    sweep = make_sweep(("mail/lora",), lane_seconds=1e9)
    for _ in range(3):
        proposal = sweep.search.ask()
        assert proposal is not None
        sweep.search.finish(proposal.key, "failed", "it never works")
    assert sweep.search.ask() is None
    assert sweep.search.exhausted


def test_early_stopping_within_noise_promotes_once_noise_is_known(make_sweep: Any) -> None:
    """The default goes on with 0.294, and the next pauses with 0.276; the default's end tells the noise."""
    sweep = make_sweep(halving=Halving())
    search = sweep.search
    default, other = search.ask().key, search.ask().key
    assert search.report(default, 25, 0.294) is Decision.CONTINUE
    assert search.report(other, 25, 0.276) is Decision.PAUSE
    search.report(default, 50, 0.45)
    search.report(default, 100, 0.656, measurements={"validation_standard_error": 0.0213})
    proposal = search.ask()
    assert (proposal.key, proposal.start) == (other, 25)
