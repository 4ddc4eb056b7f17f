"""Trials that train upper layers only, with and without the lane's memory of what the lower ones make of rows.

NF4 MiniLM on one core, 8 x 32 tokens: ``last_layers`` and LoRA in the last two of six blocks, and ``linear_probe``.
Two trials of each method take the same steps in turn, one of them above a trunk; then both are scored. ``first`` is
the ratio of seconds in the first epoch, when the trunk knows no row, ``steps`` that of the epochs after it,
``evaluation`` that of scoring a split that the trunk knows, and ``ratio`` that of the whole trial: the steps of all
epochs and two scorings, the first of them of a split that is new. ``difference`` is the largest relative one between
their losses. The last line has the smallest ratio of ``last_layers`` and LoRA.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks._common import MINILM, attached_backbone, emit, scratch
from benchmarks._pack_trials import begin, rows_of, seconds_of, stepped
from orchestrator.backbone.shared import SharedBackbone
from orchestrator.lanes.run import TrialRun
from orchestrator.lanes.trunk import Trunk

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
    epochs = parser.parse_args().epochs
    torch.set_num_threads(1)
    with scratch() as folder:
        backbone = attached_backbone(MINILM, "classification", folder)
        ratios = [compare(method, backbone, epochs, folder) for method in METHODS]
    emit(benchmark="trunk", ratio=min(ratios[:2]))


def compare(method: str, backbone: SharedBackbone, epochs: int, folder: Path) -> float:
    """How many times faster the whole trial is above a trunk."""
    rows, params = rows_of(TOKENS, ROWS, folder), METHODS[method]
    whole = _Timed(begin(method, 0, BATCH, backbone, rows, params))
    above = _Timed(begin(method, 0, BATCH, backbone, rows, params, Trunk(backbone)))
    epoch = ROWS // BATCH
    for _ in range(epochs * epoch):
        whole.step()
        above.step()
    for _ in range(2):
        whole.score()
        above.score()
    parts = {
        "first": _ratio(whole.steps[:epoch], above.steps[:epoch]),
        "steps": _ratio(whole.steps[epoch:], above.steps[epoch:]),
        "evaluation": whole.scores[-1] / above.scores[-1],
        "ratio": whole.seconds / above.seconds,
    }
    difference = max(abs(a - b) / abs(a) for a, b in zip(whole.losses, above.losses, strict=True))
    emit(benchmark="trunk", method=method, difference=difference, **parts)
    return parts["ratio"]


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
        self._run._scored.clear()
        self.scores.append(seconds_of(lambda: self._run.evaluate("validation")))


def _ratio(one: list[float], other: list[float]) -> float:
    return statistics.median(one) / statistics.median(other)


if __name__ == "__main__":
    main()
