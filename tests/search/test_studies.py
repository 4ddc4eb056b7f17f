from __future__ import annotations

import statistics
from pathlib import Path

import optuna
from optuna.distributions import FloatDistribution

from orchestrator.search.studies import Study, open_storage
from search_spaces._base import SearchSpace

SPACE = SearchSpace(distributions={"x": FloatDistribution(0.0, 1.0)}, default={"x": 0.5}, sources={})


def study(path: Path, seed: int = 0) -> Study:
    return Study("mail/lora", SPACE, higher_is_better=True, storage=open_storage(path), seed=seed)


def test_a_torn_line_and_a_lock_left_behind_are_cleared(tmp_path: Path) -> None:
    path = tmp_path / "optuna.log"
    before = study(path)
    before.ask()
    before.tell(0, "complete", 0.5, "")
    with path.open("a") as file:
        file.write('{"op_code": 4, "stu')
    path.with_name("optuna.log.lock").symlink_to(path)
    after = study(path)
    assert after.asked == 1
    number, _ = after.ask()
    assert number == 1


def test_a_study_that_is_opened_again_asks_what_it_would_have_asked(tmp_path: Path) -> None:
    through, broken = study(tmp_path / "a.log"), study(tmp_path / "b.log")
    for number in range(15):
        if number in (5, 12):
            broken = study(tmp_path / "b.log")
        expected = through.ask()
        assert broken.ask() == expected
        for each in (through, broken):
            each.tell(number, "complete", expected[1]["x"], "")


def test_another_seed_asks_otherwise(tmp_path: Path) -> None:
    asked = []
    for seed in (0, 1):
        each = study(tmp_path / f"{seed}.log", seed)
        asked.append([each.ask()[1]["x"] for _ in range(3)])
    assert asked[0][0] == asked[1][0] == 0.5
    assert asked[0][1:] != asked[1][1:]


def test_a_default_that_is_never_asked_waits_nowhere(tmp_path: Path) -> None:
    path = tmp_path / "optuna.log"
    study(path)
    assert optuna.load_study(study_name="mail/lora", storage=open_storage(path)).get_trials() == []


def test_the_sampler_goes_where_the_values_are_good(tmp_path: Path) -> None:
    each = study(tmp_path / "optuna.log")
    distances = []
    for _ in range(40):
        number, params = each.ask()
        distances.append(abs(params["x"] - 0.9))
        each.tell(number, "complete", -distances[-1], "")
    assert statistics.median(distances[20:]) < statistics.median(distances[:10]) / 2
