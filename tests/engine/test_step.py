"""Packed scoring: several trials are evaluated in one pass, with the results of each alone."""

from typing import Any

import pytest
import torch
from torch import Tensor

from orchestrator.engine import matmul, packing
from orchestrator.engine.matmul import shared_matmul
from orchestrator.engine.step import can_be_packed, score_trials, train_step
from orchestrator.engine.task_dataset import TaskDataset
from orchestrator.engine.trial_run import TrialRun

from .conftest import Lab

METHODS = ("lora", "ia3", "adapter")


def trained_runs(lab: Lab) -> list[TrialRun]:
    """Return a trial of each method after two steps, so that their adapters compute different things."""
    runs = [lab.run(method, number) for number, method in enumerate(METHODS)]
    for _ in range(2):
        assert train_step(runs) == []
    return runs


@pytest.fixture
def trials_per_product(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of trials in every product of a packed pass."""
    counts: list[int] = []
    matmul = shared_matmul

    def counting(weight: Any, dtype: torch.dtype, inputs: list[Tensor], biases: list[Any]) -> tuple[Tensor, ...]:
        counts.append(len(inputs))
        return matmul(weight, dtype, inputs, biases)

    monkeypatch.setattr(packing, "shared_matmul", counting)
    return counts


@pytest.fixture
def evaluations(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The splits that were really evaluated."""
    splits: list[str] = []
    evaluate = TaskDataset.evaluate

    def counting(dataset: TaskDataset, model: Any, split: str, tokens: int) -> Any:
        splits.append(split)
        return evaluate(dataset, model, split, tokens)

    monkeypatch.setattr(TaskDataset, "evaluate", counting)
    return splits


def test_score_trials_evaluates_several_trials_in_one_pass(
    lab: Lab, trials_per_product: list[int], evaluations: list[str]
) -> None:
    runs, alone = trained_runs(lab), trained_runs(lab)
    expected = [run.evaluate("validation") for run in alone]
    trials_per_product.clear()
    evaluations.clear()
    score_trials(runs)
    assert trials_per_product == [len(runs)] * 12, "six frozen layers in each of two blocks, each computed once"
    for run, evaluation in zip(runs, expected, strict=True):
        packed = run.evaluate("validation")
        assert packed.predictions.equals(evaluation.predictions)
        assert packed.metrics == evaluation.metrics
    assert evaluations == ["validation"] * len(runs), "the trials' own calls find the results"
    assert len({str(evaluation.predictions["probabilities"]) for evaluation in expected}) == len(runs)


def test_score_trials_leaves_an_error_to_the_trial_that_raised(lab: Lab, evaluations: list[str]) -> None:
    runs, alone = trained_runs(lab), trained_runs(lab)

    def fail(*_: object) -> None:
        raise RuntimeError("out of luck")

    broken = runs[1].attached.module.get_submodule("base_model.model.bert.encoder.layer.1.intermediate")
    handle = broken.register_forward_pre_hook(fail)
    score_trials(runs)
    assert evaluations == ["validation"] * 3
    for k in (0, 2):
        assert runs[k].evaluate("validation").predictions.equals(alone[k].evaluate("validation").predictions)
    with pytest.raises(RuntimeError, match="out of luck"):
        runs[1].evaluate("validation")
    handle.remove()
    assert runs[1].evaluate("validation").predictions.equals(alone[1].evaluate("validation").predictions)


def test_score_trials_evaluates_large_batches_alone(
    lab: Lab, trials_per_product: list[int], evaluations: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = trained_runs(lab)
    trials_per_product.clear()
    monkeypatch.setattr(matmul, "CHUNK_ROWS", 1)
    score_trials(runs)
    assert trials_per_product == []
    assert evaluations == ["validation"] * len(runs)


def test_score_trials_skips_jobs_without_a_split(lab: Lab, evaluations: list[str]) -> None:
    score_trials([lab.run("lora", split=None), lab.run("ia3", 1, split="test")])
    assert evaluations == ["test"]


@pytest.mark.parametrize(
    ("split", "device", "packed"),
    [("validation", "cpu", True), ("test", "cpu", True), ("validation", "cuda", True), ("test", "cuda", False)],
)
def test_score_trials_scores_the_test_split_alone_on_a_gpu(split: str, device: str, packed: bool) -> None:
    assert can_be_packed(split, torch.device(device)) is packed
