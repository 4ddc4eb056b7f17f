from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial

from orchestrator.common.trial_types import TrialKey, TrialRecord
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
    """Tells a study results, and keeps records of them as the core does."""

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

    def through_many_fates(self, count: int) -> None:
        """Trials that complete, are stopped, fail, wait, or run with and without a result, and not in their order.

        The first ten complete: samplers draw at random until then.
        """
        first = len(self.records)
        for number in range(first, first + count):
            self.ask()
            if number % 7 == 3:  # ends later than its successors
                continue
            for late in (number - 2, number) if number % 7 == 5 else (number,):
                self.fate(late)

    def fate(self, number: int) -> None:
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
def test_a_restored_study_asks_what_it_would_have_asked(sampler: str, tmp_path: Path) -> None:
    space = {"grid": STEPPED, "gp": SPACE}.get(sampler, MIXED)  # in more dimensions a process takes seconds
    prior = [{"rank": 1, "x": 0.3}, {"rank": 2}, {"rank": 999}]
    through = Driver(study(None, space=space, sampler=sampler, prior=prior))
    asked = []
    for count in (13,) if sampler == "gp" else (30, 1, 1):
        through.through_many_fates(count)
        again = Driver(study(tmp_path / "optuna.log", space=space, sampler=sampler, prior=prior))
        again.records = list(through.records)
        again.study.restore(through.records, RUNGS)
        open_ones = [r.key.number for r in through.records if r.state in ("running", "paused") and r.step == 50]
        for each in (again, through):
            for number in open_ones:
                each.tell(number, "pruned")
        asked.append((again.ask(), through.ask()))
        assert again.records == through.records
    for ours, theirs in asked:
        assert ours == theirs
    assert len({str(one) for one, _ in asked}) == len(asked)


@pytest.mark.parametrize("sampler", [*SAMPLERS])
def test_another_seed_asks_otherwise(sampler: str) -> None:
    space = STEPPED if sampler == "grid" else MIXED
    one, other = (study(None, seed, space, sampler=sampler) for seed in (0, 1))
    assert one.ask() == other.ask() == (0, dict(space.default))
    assert [one.ask() for _ in range(3)] != [other.ask() for _ in range(3)]


@pytest.mark.parametrize(("sampler", "count"), [("tpe", 40), ("cmaes", 40), ("gp", 14)])
def test_the_sampler_goes_where_the_values_are_good(sampler: str, count: int) -> None:
    each = study(None, sampler=sampler)
    distances = []
    for number in range(count):
        _, params = each.ask()
        distances.append(abs(params["x"] - 0.9))
        each.tell(number, "complete", -distances[-1], "")
    assert statistics.median(distances[-count // 4 :]) < statistics.median(distances[:10]) / 2


def test_a_sampler_learns_from_those_that_wait_at_a_rung() -> None:
    each = study(None)
    distances = []
    for number in range(40):
        _, params = each.ask()
        distances.append(abs(params["x"] - 0.9))
        each.report(number, 0, -distances[-1])
    assert statistics.median(distances[20:]) < statistics.median(distances[:10]) / 2


def test_optunas_file_says_what_happened(tmp_path: Path) -> None:
    path = tmp_path / "optuna.log"
    driver = Driver(study(path, space=MIXED, constraints=lambda params: (params["rank"] - 64.0,)))
    driver.through_many_fates(20)
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


def test_optunas_file_is_complete_whenever_no_trial_is_open(tmp_path: Path) -> None:
    path = tmp_path / "optuna.log"
    each = study(path)
    assert read(path) == []
    for number in range(3):
        each.ask()
        each.tell(number, "complete", 0.5, "")
        assert [trial.value for trial in read(path)] == [0.5] * (number + 1)


def test_a_resumed_sweep_begins_optunas_file_anew(tmp_path: Path) -> None:
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


def test_a_killed_driver_leaves_what_optuna_can_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "optuna.log"
    driver = Driver(study(path))
    monkeypatch.setattr("orchestrator.search.optuna_file.INTERVAL", 0.0)
    driver.ask()
    driver.ask()
    driver.report(1, 0)
    left = path.read_bytes()
    for torn in (left, left[:-3]):
        path.write_bytes(torn)
        assert [trial.state.name for trial in read(path)] == ["RUNNING", "RUNNING"]


def test_what_is_shown_to_a_sampler_does_not_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    each = study(None, sampler="tpe")
    most = SAMPLERS["tpe"].best + 2 * SAMPLERS["tpe"].recent
    monkeypatch.setattr("orchestrator.search.studies.propose", lambda *_, **__: {"x": 0.1})
    best = set(range(30, 80))
    for number in range(1000):
        each.ask()
        if number < 600:
            each.report(number, 0, 1.0 if number in best else 0.0)
    shown = each._history.shown()
    numbers = [trial.number - 1 for trial in shown]
    assert len(shown) == most
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
def test_nothing_that_breaks_a_constraint_is_proposed(sampler: str) -> None:
    each = study(None, space=SMALL_START, sampler=sampler, constraints=small, prior=[{"rank": 64}, {"rank": 3}])
    asked = []
    for number in range(40):
        asked.append(each.ask()[1])
        each.tell(number, "complete", score(asked[-1]), "")
    assert all(max(small(params)) <= 0 for params in asked)
    assert asked[1]["rank"] == 3
    assert len({str(params) for params in asked}) > 30


def test_where_hardly_anything_is_allowed_proposals_move_to_the_default() -> None:
    def narrow(params: Mapping[str, Any]) -> tuple[float, ...]:
        return (abs(params["rank"] - 2) - 0.5, abs(params["rate"] - 1e-3) - 1e-9)

    each = study(None, space=SMALL_START, sampler="random", constraints=narrow)
    asked = [each.ask()[1] for _ in range(5)]
    assert {(params["rank"], params["rate"]) for params in asked} == {(2, 1e-3)}
    assert len({(params["layers"], params["where"]) for params in asked}) > 1


def test_a_sampler_is_shown_what_it_proposed_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[dict[str, float]]] = []

    def propose(sampler: Any, seed: int, space: SearchSpace, shown: list[FrozenTrial], **_: Any) -> dict[str, Any]:
        seen.append([trial.constraints for trial in shown])
        return {**space.default, "rank": 5 - len(seen)}

    monkeypatch.setattr("orchestrator.search.studies.propose", propose)
    each = study(None, space=SMALL_START, constraints=small)
    each.ask()
    assert each.ask()[1]["rank"] == 3
    assert [len(shown) for shown in seen] == [1, 2]
    assert [max(trial.values()) > 0 for trial in seen[1]] == [False, True]


def test_a_default_that_breaks_a_constraint_is_refused() -> None:
    with pytest.raises(ValueError, match="the default configuration of mail/lora breaks a constraint"):
        study(None, space=MIXED, constraints=small)
