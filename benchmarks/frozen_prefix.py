"""Speed-up of trials above a cached frozen prefix, over the same trials that compute all blocks at every step.

    python -m benchmarks.frozen_prefix

NF4 MiniLM on one core, in batches of 8 x 32 tokens: ``last_layers`` and LoRA (``compose:lora``) train the last two of
six blocks, ``linear_probe`` none. Several trials of each method run one after another, each once without a cache and
once with a cache that all trials of the method share, alternating step by step. Every trial trains some epochs and is
scored on the validation rows at half of its steps and at the end. Times are CPU seconds of this thread. A line per
method, with speed-ups (seconds without the cache over seconds with it; above 1 is faster):

- ``speedup_first_epoch``: median step of the first trial's first epoch, when the cache is empty.
- ``speedup_later_steps``: median step of all later epochs and trials.
- ``speedup_scoring``: median scoring of the validation rows when they are in the cache.
- ``speedup``: all steps and scorings of all trials.
- ``largest_relative_loss_difference``: between the same step with and without the cache, as a fraction of its loss.

The last line has ``speedup`` of ``last_layers`` and of LoRA (``lora_speedup``).
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks._common import (
    MINILM,
    argument_parser,
    emit,
    load_shared_backbone,
    restart_with_lane_heap,
    scratch_folder,
)
from benchmarks._random_trials import cpu_seconds, random_dataset, start_run, step_all
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
    parser = argument_parser(__doc__)
    parser.add_argument("--epochs", type=int, default=4, help="epochs of every trial (default: %(default)s)")
    parser.add_argument("--trials", type=int, default=4, help="trials of every method (default: %(default)s)")
    arguments = parser.parse_args()
    restart_with_lane_heap()
    torch.set_num_threads(1)
    with scratch_folder() as folder:
        backbone = load_shared_backbone(MINILM, "classification", folder)
        speedups = {
            method: measure_speedup(method, backbone, arguments.trials, arguments.epochs, folder) for method in METHODS
        }
    emit(benchmark="frozen_prefix", speedup=speedups["last_layers"], lora_speedup=speedups["compose:lora"])


def measure_speedup(method: str, backbone: SharedBackbone, trials: int, epochs: int, folder: Path) -> float:
    """Run the trials of a method with and without the cache, print their line, and return the total speed-up."""
    dataset, prefix, steps_per_epoch = random_dataset(TOKENS, ROWS, folder), FrozenPrefix(backbone), ROWS // BATCH
    pairs = [_run_pair(method, number, backbone, dataset, prefix, epochs * steps_per_epoch) for number in range(trials)]
    uncached, cached = zip(*pairs, strict=True)
    speedup: float = sum(trial.seconds for trial in uncached) / sum(trial.seconds for trial in cached)
    first_epoch = slice(steps_per_epoch)
    emit(
        benchmark="frozen_prefix",
        method=method,
        largest_relative_loss_difference=max(_loss_difference(*pair) for pair in pairs),
        speedup_first_epoch=_median_ratio(uncached[0].step_seconds[first_epoch], cached[0].step_seconds[first_epoch]),
        speedup_later_steps=_median_ratio(
            *([time for trial in side for time in trial.step_seconds][steps_per_epoch:] for side in (uncached, cached))
        ),
        speedup_scoring=_median_ratio(
            *([time for trial in side for time in trial.scoring_seconds][1:] for side in (uncached, cached))
        ),
        speedup=speedup,
    )
    return speedup


def _run_pair(
    method: str, number: int, backbone: SharedBackbone, dataset: TaskDataset, prefix: FrozenPrefix, steps: int
) -> tuple[_TimedTrial, _TimedTrial]:
    """Run a trial without a cached prefix and the same trial with one, alternating step by step."""
    uncached = _TimedTrial(start_run(method, number, BATCH, backbone, dataset, METHODS[method]))
    cached = _TimedTrial(start_run(method, number, BATCH, backbone, dataset, METHODS[method], prefix))
    for half in (steps // 2, steps - steps // 2):
        for _ in range(half):
            uncached.step()
            cached.step()
        uncached.score()
        cached.score()
    return uncached, cached


class _TimedTrial:
    """A trial with its losses and the CPU seconds of its steps and scorings."""

    def __init__(self, run: TrialRun) -> None:
        self._run = run
        self.step_seconds: list[float] = []
        self.scoring_seconds: list[float] = []
        self.losses: list[float] = []
        finish_step = run.finish_step

        def record_loss(loss: torch.Tensor, norm: torch.Tensor | None = None) -> None:
            self.losses.append(loss.item())
            finish_step(loss, norm)

        run.finish_step = record_loss  # type: ignore[method-assign]

    @property
    def seconds(self) -> float:
        return sum(self.step_seconds) + sum(self.scoring_seconds)

    def step(self) -> None:
        self.step_seconds.append(cpu_seconds(lambda: step_all([self._run], 1)))

    def score(self) -> None:
        self._run._evaluations.clear()  # else the second scoring returns the result of the first
        self.scoring_seconds.append(cpu_seconds(lambda: self._run.evaluate("validation")))


def _loss_difference(uncached: _TimedTrial, cached: _TimedTrial) -> float:
    """Return the largest difference between the losses of a step, as a fraction of the uncached loss."""
    return max(
        abs(loss - cached_loss) / abs(loss) for loss, cached_loss in zip(uncached.losses, cached.losses, strict=True)
    )


def _median_ratio(numerators: list[float], denominators: list[float]) -> float:
    return statistics.median(numerators) / statistics.median(denominators)


if __name__ == "__main__":
    main()
