from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial

from orchestrator.common.trial_types import TrialKey, TrialRecord
from orchestrator.search.optuna_file import OptunaFile
from orchestrator.search.samplers import SAMPLERS
from orchestrator.search.studies import Study, open_storage
from search_spaces._base import SearchSpace

RUNGS = (25, 50, 100)
SPACE = SearchSpace(distributions={"x": FloatDistribution(0.0, 1.0)}, default={"x": 0.5}, sources={})
MIXED = SearchSpace(
    distributions={
        "rate": FloatDistribution(1e-5, 1e-1, log=True),
        "rank": IntDistribution(1, 64, log=True),
        "layers": IntDistribution(2, 12, step=2),
        "where": CategoricalDistribution(["all", "attention", "mlp"]),
    },
    default={"rate": 1e-3, "rank": 8, "layers": 12, "where": "all"},
    sources={},
)
STEPPED = SearchSpace(
    distributions={
        "rank": IntDistribution(1, 8),
        "dropout": FloatDistribution(0.0, 0.5, step=0.1),
        "where": CategoricalDistribution(["a", "b"]),
    },
    default={"rank": 4, "dropout": 0.1, "where": "a"},
    sources={},
)


def study(path: Path | None, seed: int = 0, space: SearchSpace = SPACE, **kwargs: Any) -> Study:
    return Study("mail/lora", space, higher_is_better=True, storage=open_storage(path), seed=seed, **kwargs)


def read(path: Path) -> list[FrozenTrial]:
    return optuna.load_study(study_name="mail/lora", storage=JournalStorage(JournalFileBackend(str(path)))).get_trials()


def score(params: Mapping[str, Any]) -> float:
    return -sum(value if isinstance(value, (int, float)) else len(value) for value in params.values())


class Driver:
    """Reports results to a study, and keeps records of them as the core does."""

    def __init__(self, each: Study) -> None:
        self.study = each
        self.records: list[TrialRecord] = []

    def ask(self) -> dict[str, Any]:
        number, params = self.study.ask()
        assert number == len(self.records)
        self.records.append(TrialRecord(key=TrialKey("mail/lora", number), params=params))
        return params

    def report(self, number: int, rung: int) -> None:
        record = self.records[number]
        value = score(record.params) + rung
        self.study.report(number, rung, value)
        self._keep(number, values={**record.values, RUNGS[rung]: value})

    def tell(self, number: int, state: Any) -> None:
        self.study.tell(number, state, self.records[number].value, "why")
        self._keep(number, state=state)

    def pause(self, number: int) -> None:
        self._keep(number, state="paused")

    def _keep(self, number: int, **changes: Any) -> None:
        self.records[number] = TrialRecord(**{**vars(self.records[number]), **changes})

    def run_many_trials(self, count: int) -> None:
        """Run trials that complete, are pruned, fail, wait, or run with and without a result, out of order.

        The first ten complete: samplers draw at random until then.
        """
        first = len(self.records)
        for number in range(first, first + count):
            self.ask()
            if number % 7 == 3:  # ends later than its successors
                continue
            for finished in (number - 2, number) if number % 7 == 5 else (number,):
                self.run_trial(finished)

    def run_trial(self, number: int) -> None:
        if number % 11 == 10:
            self.tell(number, "failed")
            return
        if number % 11 == 0 and number:
            return
        self.report(number, 0)
        if number < 10:
            self.report(number, 1)
            self.report(number, 2)
            self.tell(number, "complete")
        elif number % 10 == 1:
            self.tell(number, "pruned")
        elif number % 10 == 2:
            self.pause(number)
        elif number % 10 != 3:
            self.report(number, 1)
            self.report(number, 2)
            self.tell(number, "complete")


@pytest.mark.parametrize("sampler", [*SAMPLERS])
def test_study_goes_on_with_trials_from_before_a_parameter_was_searched(sampler: str, tmp_path: Path) -> None:
    earlier = SearchSpace(
        distributions={name: MIXED.distributions[name] for name in ("rate", "rank", "layers")},
        default={name: MIXED.default[name] for name in ("rate", "rank", "layers")},
        sources={},
    )
    before = Driver(study(None, space=earlier, sampler="random"))
    before.run_many_trials(20)
    before.records[3] = replace(before.records[3], params={**before.records[3].params, "removed": 1})
    now = study(tmp_path / "optuna.log", space=MIXED, sampler=sampler)
    now.restore(before.records, RUNGS)
    for _ in range(3):
        _, params = now.ask()
        assert params.keys() == MIXED.distributions.keys()
    kept = read(tmp_path / "optuna.log")
    assert [trial.params["where"] for trial in kept[:20]] == ["all"] * 20, "the default, which those trials ran with"


@pytest.mark.parametrize("sampler", [*SAMPLERS])
def test_restored_study_proposes_as_before(sampler: str, tmp_path: Path) -> None:
    space = {"grid": STEPPED, "gp": SPACE}.get(sampler, MIXED)  # in more dimensions a Gaussian process takes seconds
    prior = [{"rank": 1, "x": 0.3}, {"rank": 2}, {"rank": 999}]
    uninterrupted = Driver(study(None, space=space, sampler=sampler, prior=prior))
    proposals = []
    for count in (13,) if sampler == "gp" else (30, 1, 1):
        uninterrupted.run_many_trials(count)
        again = Driver(study(tmp_path / "optuna.log", space=space, sampler=sampler, prior=prior))
        again.records = list(uninterrupted.records)
        again.study.restore(uninterrupted.records, RUNGS)
        open_numbers = [
            r.key.number for r in uninterrupted.records if r.state in ("running", "paused") and r.step == 50
        ]
        for driver in (again, uninterrupted):
            for number in open_numbers:
                driver.tell(number, "pruned")
        proposals.append((again.ask(), uninterrupted.ask()))
        assert again.records == uninterrupted.records
    for resumed, expected in proposals:
        assert resumed == expected
    assert len({str(resumed) for resumed, _ in proposals}) == len(proposals)


@pytest.mark.parametrize("sampler", [*SAMPLERS])
def test_study_proposes_otherwise_with_another_seed(sampler: str) -> None:
    space = STEPPED if sampler == "grid" else MIXED
    first, second = (study(None, seed, space, sampler=sampler) for seed in (0, 1))
    assert first.ask() == second.ask() == (0, dict(space.default))
    assert [first.ask() for _ in range(3)] != [second.ask() for _ in range(3)]


@pytest.mark.parametrize(("sampler", "count"), [("tpe", 40), ("cmaes", 40), ("gp", 14)])
def test_sampler_converges_to_good_values(sampler: str, count: int) -> None:
    each = study(None, sampler=sampler)
    distances = []
    for number in range(count):
        _, params = each.ask()
        distances.append(abs(params["x"] - 0.9))
        each.tell(number, "complete", -distances[-1], "")
    assert statistics.median(distances[-count // 4 :]) < statistics.median(distances[:10]) / 2


def test_tpe_learns_from_trials_that_wait_at_a_rung() -> None:
    each = study(None)
    distances = []
    for number in range(40):
        _, params = each.ask()
        distances.append(abs(params["x"] - 0.9))
        each.report(number, 0, -distances[-1])
    assert statistics.median(distances[20:]) < statistics.median(distances[:10]) / 2


def test_optuna_file_has_states_values_and_constraints(tmp_path: Path) -> None:
    path = tmp_path / "optuna.log"
    driver = Driver(study(path, space=MIXED, constraints=lambda params: (params["rank"] - 64.0,)))
    driver.run_many_trials(20)
    driver.tell(11, "killed")
    driver.study.restore([], RUNGS)  # writes
    names = {"complete": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL", "killed": "FAIL"}
    for record, trial in zip(driver.records, read(path), strict=True):
        assert (trial.number, trial.params) == (record.key.number, record.params)
        assert trial.state.name == names.get(record.state, "RUNNING")
        assert trial.intermediate_values == {RUNGS.index(step): value for step, value in record.values.items()}
        assert trial.value == (record.value if record.state == "complete" else None)
        assert list(trial.constraints.values()) == [record.params["rank"] - 64]
    assert read(path)[11].user_attrs == {"killed": "why"}


def test_optuna_file_is_complete_whenever_no_trial_is_open(tmp_path: Path) -> None:
    path = tmp_path / "optuna.log"
    each = study(path)
    assert read(path) == []
    for number in range(3):
        each.ask()
        each.tell(number, "complete", 0.5, "")
        assert [trial.value for trial in read(path)] == [0.5] * (number + 1)


def test_optuna_file_is_written_anew_by_a_resumed_sweep(tmp_path: Path) -> None:
    path = tmp_path / "optuna.log"
    driver = Driver(study(path))
    driver.ask()
    driver.report(0, 0)
    driver.tell(0, "pruned")
    with path.open("a") as file:
        file.write('{"op_code": 4, "stu')
    path.with_name("optuna.log.lock").symlink_to(path)
    again = study(path)
    again.restore(driver.records, RUNGS)
    assert again.ask()[0] == 1
    again.tell(1, "complete", 0.5, "")
    assert [(trial.state.name, trial.value) for trial in read(path)] == [("PRUNED", None), ("COMPLETE", 0.5)]


def test_optuna_file_of_a_killed_driver_is_readable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "optuna.log"
    driver = Driver(study(path))
    monkeypatch.setattr("orchestrator.search.optuna_file.BATCH_INTERVAL_S", 0.0)
    driver.ask()
    driver.ask()
    driver.report(1, 0)
    content = path.read_bytes()
    for torn in (content, content[:-3]):
        path.write_bytes(torn)
        assert [trial.state.name for trial in read(path)] == ["RUNNING", "RUNNING"]


def test_history_shows_a_bounded_number_of_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    each = study(None, sampler="tpe")
    limit = SAMPLERS["tpe"].best + 2 * SAMPLERS["tpe"].recent
    monkeypatch.setattr("orchestrator.search.studies.propose", lambda *_, **__: {"x": 0.1})
    best = set(range(30, 80))
    for number in range(1000):
        each.ask()
        if number < 600:
            each.report(number, 0, 1.0 if number in best else 0.0)
    shown = each._history.shown()
    numbers = [trial.number - 1 for trial in shown]
    assert len(shown) == limit
    assert numbers == sorted(numbers)
    assert best <= set(numbers)
    assert set(range(600 - SAMPLERS["tpe"].recent, 600)) <= set(numbers)
    assert set(range(1000 - SAMPLERS["tpe"].recent, 1000)) <= set(numbers)


def small(params: Mapping[str, Any]) -> tuple[float, ...]:
    return (params["rank"] / 3 - 1, params["layers"] / 8 - 1)


SMALL_START = SearchSpace(
    distributions=MIXED.distributions, default={"rate": 1e-3, "rank": 2, "layers": 4, "where": "all"}, sources={}
)


@pytest.mark.parametrize("sampler", ["tpe", "cmaes", "random"])
def test_constraints_hold_for_every_proposal(sampler: str) -> None:
    each = study(None, space=SMALL_START, sampler=sampler, constraints=small, prior=[{"rank": 64}, {"rank": 3}])
    proposals = []
    for number in range(40):
        proposals.append(each.ask()[1])
        each.tell(number, "complete", score(proposals[-1]), "")
    assert all(max(small(params)) <= 0 for params in proposals)
    assert proposals[1]["rank"] == 3
    assert len({str(params) for params in proposals}) > 30


def test_constraints_move_refused_proposals_to_the_default() -> None:
    def narrow(params: Mapping[str, Any]) -> tuple[float, ...]:
        return (abs(params["rank"] - 2) - 0.5, abs(params["rate"] - 1e-3) - 1e-9)

    each = study(None, space=SMALL_START, sampler="random", constraints=narrow)
    proposals = [each.ask()[1] for _ in range(5)]
    assert {(params["rank"], params["rate"]) for params in proposals} == {(2, 1e-3)}
    assert len({(params["layers"], params["where"]) for params in proposals}) > 1


def test_constraints_show_refused_proposals_to_the_sampler(monkeypatch: pytest.MonkeyPatch) -> None:
    shown_constraints: list[list[dict[str, float]]] = []

    def propose(sampler: Any, seed: int, space: SearchSpace, shown: list[FrozenTrial], **_: Any) -> dict[str, Any]:
        shown_constraints.append([trial.constraints for trial in shown])
        return {**space.default, "rank": 5 - len(shown_constraints)}

    monkeypatch.setattr("orchestrator.search.studies.propose", propose)
    each = study(None, space=SMALL_START, constraints=small)
    each.ask()
    assert each.ask()[1]["rank"] == 3
    assert [len(shown) for shown in shown_constraints] == [1, 2]
    assert [max(trial.values()) > 0 for trial in shown_constraints[1]] == [False, True]


def test_constraints_refuse_default_that_exceeds_them() -> None:
    with pytest.raises(ValueError, match="the default configuration of mail/lora exceeds a constraint"):
        study(None, space=MIXED, constraints=small)


def test_optuna_file_names_objective_task_and_method(tmp_path: Path) -> None:
    path = tmp_path / "optuna.log"
    OptunaFile(path).create("mail/peft:LOKR", higher_is_better=False, metric="perplexity")
    storage = JournalStorage(JournalFileBackend(str(path)))
    shown = optuna.load_study(study_name="mail/peft:LOKR", storage=storage)
    assert shown.metric_names == ["perplexity"]
    assert shown.user_attrs == {"task": "mail", "method": "peft:LOKR", "metric": "perplexity"}
