"""Trials that train upper layers only, with and without the lane's memory of what the lower ones make of rows.

NF4 MiniLM on one core, 8 x 32 tokens: ``last_layers`` and LoRA in the last two of six blocks, and ``linear_probe``.
Several trials of each method follow one another twice, in turns: on a lane without a trunk, and on one whose trunk they
share. Each takes the steps of some epochs and is scored twice, as at two rungs. ``first`` is the ratio of seconds in
the first trial's first epoch, when the trunk knows no row, ``steps`` that of all epochs after it, ``evaluation`` that
of scoring a split that the trunk knows, and ``ratio`` that of everything. ``difference`` is the largest relative one
between their losses. The last line has the ratios of ``last_layers`` and LoRA.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks._common import MINILM, as_a_lane, attached_backbone, emit, scratch
from benchmarks._pack_trials import begin, rows_of, seconds_of, stepped
from orchestrator.backbone.shared import SharedBackbone
from orchestrator.engine.frozen_prefix import FrozenPrefix
from orchestrator.engine.task_dataset import TaskDataset
from orchestrator.engine.trial_run import TrialRun

BATCH, TOKENS, ROWS = 8, 32, 96
METHODS: dict[str, Mapping[str, Any]] = {
    "last_layers": {"fraction": 1 / 3},
    "compose:lora": {f"layer_{block}": False for block in range(4)},
    "linear_probe": {},
}


def main() -> None:
    """Measure every method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--trials", type=int, default=4)
    asked = parser.parse_args()
    as_a_lane()
    torch.set_num_threads(1)
    with scratch() as folder:
        backbone = attached_backbone(MINILM, "classification", folder)
        ratios = {method: compare(method, backbone, asked.trials, asked.epochs, folder) for method in METHODS}
    emit(benchmark="trunk", ratio=ratios["last_layers"], lora_ratio=ratios["compose:lora"])


def compare(method: str, backbone: SharedBackbone, trials: int, epochs: int, folder: Path) -> float:
    """How many times faster all trials are above a trunk."""
    rows, prefix, epoch = rows_of(TOKENS, ROWS, folder), FrozenPrefix(backbone), ROWS // BATCH
    pairs = [_pair(method, number, backbone, rows, prefix, epochs * epoch) for number in range(trials)]
    whole, above = zip(*pairs, strict=True)
    parts = {
        "first": _ratio(whole[0].steps[:epoch], above[0].steps[:epoch]),
        "steps": _ratio(*([s for one in side for s in one.steps][epoch:] for side in (whole, above))),
        "evaluation": _ratio(*([s for one in side for s in one.scores][1:] for side in (whole, above))),
        "ratio": sum(one.seconds for one in whole) / sum(one.seconds for one in above),
    }
    difference = max(abs(a - b) / abs(a) for one, other in pairs for a, b in zip(one.losses, other.losses, strict=True))
    emit(benchmark="trunk", method=method, difference=difference, **parts)
    ratio: float = parts["ratio"]
    return ratio


def _pair(
    method: str, number: int, backbone: SharedBackbone, rows: TaskDataset, prefix: FrozenPrefix, steps: int
) -> tuple[_Timed, _Timed]:
    """A trial without a trunk and the same above one, step by step in turn."""
    whole = _Timed(begin(method, number, BATCH, backbone, rows, METHODS[method]))
    above = _Timed(begin(method, number, BATCH, backbone, rows, METHODS[method], prefix))
    for half in (steps // 2, steps - steps // 2):
        for _ in range(half):
            whole.step()
            above.step()
        whole.score()
        above.score()
    return whole, above


class _Timed:
    """A trial, and the seconds of what it did."""

    def __init__(self, run: TrialRun) -> None:
        self._run = run
        self.steps: list[float] = []
        self.scores: list[float] = []
        self.losses: list[float] = []
        finish = run.finish_step

        def noting(loss: torch.Tensor) -> None:
            self.losses.append(loss.item())
            finish(loss)

        run.finish_step = noting  # type: ignore[method-assign]

    @property
    def seconds(self) -> float:
        return sum(self.steps) + sum(self.scores)

    def step(self) -> None:
        self.steps.append(seconds_of(lambda: stepped([self._run], 1)))

    def score(self) -> None:
        self._run._evaluations.clear()
        self.scores.append(seconds_of(lambda: self._run.evaluate("validation")))


def _ratio(one: list[float], other: list[float]) -> float:
    return statistics.median(one) / statistics.median(other)


if __name__ == "__main__":
    main()
