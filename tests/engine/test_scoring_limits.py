"""Scoring where memory is short: real errors of torch, raised in the forward pass."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from orchestrator.engine.micro_batch_memory import MicroBatchMemory
from orchestrator.engine.step import score_trials
from orchestrator.engine.trial_run import TrialRun
from orchestrator.tasks.batches import EVALUATION_TOKENS

from .conftest import Lab
from .second_worker_of_scoring import score_together
from .two_workers import second_worker


@pytest.fixture
def memory() -> MicroBatchMemory:
    return MicroBatchMemory()


@pytest.fixture
def start(lab: Lab, memory: MicroBatchMemory) -> Callable[..., tuple[TrialRun, list[int]]]:
    """Start a trial whose forward passes have a limit; also return the tokens of every pass that was tried."""

    def start(method: str, limit: int, number: int = 0, **changes: object) -> tuple[TrialRun, list[int]]:
        job = lab.job(method, number, **changes)
        run, passes = TrialRun(job, lab.backbone, lab.dataset, lab.training, micro_batch_memory=memory), []

        def check(_: object, __: object, kwargs: dict[str, torch.Tensor]) -> None:
            passes.append(kwargs["input_ids"].numel())
            if passes[-1] > limit:
                raise torch.OutOfMemoryError("no room")

        run.attached.module.register_forward_pre_hook(check, with_kwargs=True)
        return run, passes

    return start


def test_scoring_halves_batches_that_do_not_fit(lab: Lab, start: Callable[..., tuple[TrialRun, list[int]]]) -> None:
    run, passes = start("lora", limit=100)
    whole = lab.run("lora").evaluate("validation")
    evaluation = run.evaluate("validation")
    assert evaluation.metrics == pytest.approx(whole.metrics)
    assert evaluation.predictions["row"].equals(whole.predictions["row"])
    assert passes[0] == passes[1] > 100, "tried again with released memory before anything is halved"
    assert max(passes[4:]) <= 100


def test_scoring_releases_memory_once_before_halving(start: Callable[..., tuple[TrialRun, list[int]]]) -> None:
    run, passes = start("lora", limit=100)
    released: list[int] = []
    run.free_memory = lambda: released.append(len(passes))
    run.evaluate("validation")
    assert released[0] == 1


def test_scoring_limit_holds_for_the_method_and_split(
    start: Callable[..., tuple[TrialRun, list[int]]], memory: MicroBatchMemory
) -> None:
    start("lora", limit=100)[0].evaluate("validation")
    run, passes = start("lora", limit=100, number=1)
    run.evaluate("validation")
    assert max(passes) <= 100
    assert memory.scoring.tokens("lora", "validation") <= 100
    assert memory.scoring.tokens("lora", "test") == memory.scoring.tokens("ia3", "validation") == EVALUATION_TOKENS


def test_scoring_fails_where_single_rows_do_not_fit(start: Callable[..., tuple[TrialRun, list[int]]]) -> None:
    run, passes = start("lora", limit=0)
    with pytest.raises(torch.OutOfMemoryError):
        run.evaluate("validation")
    assert passes[-1] < 12


def test_scoring_raises_other_errors_at_once(lab: Lab) -> None:
    run, calls = lab.run("lora"), []

    def fail(*_: object) -> None:
        calls.append(1)
        raise ValueError("its own")

    run.attached.module.register_forward_pre_hook(fail)
    with pytest.raises(ValueError, match="its own"):
        run.evaluate("validation")
    assert calls == [1]


def test_packed_scoring_out_of_memory_sets_no_limit(
    start: Callable[..., tuple[TrialRun, list[int]]], memory: MicroBatchMemory
) -> None:
    runs = [start("lora", limit=0, number=number, split="validation")[0] for number in range(2)]
    score_trials(runs)
    assert memory.scoring.tokens("lora", "validation") == EVALUATION_TOKENS


def test_scoring_workers_halve_batches_together(tmp_path: Path) -> None:
    with second_worker("tests.engine.second_worker_of_scoring", tmp_path) as ranks:
        first, second = ranks.all_gather_object(score_together(ranks))
    assert first == second == [16384, 16384, 8192, 4096, 4096]
