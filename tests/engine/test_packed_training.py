"""Fifty steps in a pack against fifty alone, on the real encoder in what the processor multiplies fast."""

import pytest
import torch

from benchmarks._common import MINILM, attached_backbone, scratch
from benchmarks._pack_trials import begin, rows_of
from orchestrator.engine.step import step
from orchestrator.engine.trial_run import TrialRun

STEPS = 50
METHODS = ("lora", "ia3", "adapter", "linear_probe")


def losses(packs: list[list[TrialRun]]) -> list[list[float]]:
    """Of every trial in the order of the packs."""
    runs = [run for pack in packs for run in pack]
    found: list[list[float]] = [[] for _ in runs]
    for run, own in zip(runs, found, strict=True):
        _note(run, own)
    for _ in range(STEPS):
        for pack in packs:
            assert step(pack) == []
    return found


def _note(run: TrialRun, own: list[float]) -> None:
    finish = run.finish_step

    def noting(loss: torch.Tensor) -> None:
        own.append(loss.item())
        finish(loss)

    run.finish_step = noting  # type: ignore[method-assign]


@pytest.mark.slow
def test_losses_of_packed_trials_are_those_of_each_alone() -> None:
    with scratch() as folder:
        backbone, rows = attached_backbone(MINILM, "classification", folder), rows_of(16, 64, folder)
        alone, packed = ([begin(method, k, 2, backbone, rows) for k, method in enumerate(METHODS)] for _ in range(2))
        expected, found = losses([[run] for run in alone]), losses([packed])
    for method, one, other in zip(METHODS, expected, found, strict=True):
        assert other == pytest.approx(one, rel=1e-5), method
        assert one[-1] != one[0]
