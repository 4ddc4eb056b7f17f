"""Sweeps on shuffled labels: a method is named better than the baselines in at most one of twenty."""

import numpy as np
import pytest

from orchestrator.simulation import shuffled_sweeps
from orchestrator.simulation.scored_sweeps import Shape
from orchestrator.simulation.shuffled_sweeps import named_share, names_a_method


def test_shuffled_labels_name_no_method_better_than_the_baselines() -> None:
    assert named_share(50) <= 0.05


def test_shuffled_labels_would_name_methods_without_drawn_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    shape, random = Shape(methods=3, seeds=3, rows=800, metric="macro_f1", seed_sd=0.0), np.random.default_rng(3)
    assert not any(names_a_method(shape, random, number) for number in range(10))
    monkeypatch.setattr(shuffled_sweeps, "COLLAPSED", 0.0)
    monkeypatch.setattr("orchestrator.tasks.classification.drawn", lambda name, answered, *_: _constant(answered))
    assert any(names_a_method(shape, random, number) for number in range(10)), "always answering one label is beaten"


def _constant(answered: object) -> object:
    from orchestrator.tasks.trivial import repeated

    return repeated("always answering 0", answered, 0, 800)  # type: ignore[arg-type]


def test_shuffled_labels_are_independent_of_answers() -> None:
    shape, random = Shape(methods=2, seeds=2, rows=5000, metric="accuracy", seed_sd=0.0), np.random.default_rng(1)
    answers = shuffled_sweeps._answers(shape, random)
    labels = shuffled_sweeps._labels(random, 5000)["label"].to_numpy()
    for given in answers.reshape(-1, 5000):
        if np.ptp(given):
            assert abs(np.corrcoef(given, labels)[0, 1]) < 0.05
