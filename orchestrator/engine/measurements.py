"""What a trial costs beside its score: the time that it adds to answers, and how sure its score is."""

from __future__ import annotations

import dataclasses
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from methods.base.spec import Attached, Hyperparameters
from methods.base.trainable import widen_head
from orchestrator.backbone.shared import SharedBackbone
from orchestrator.common.trial_types import Job
from orchestrator.engine.task_dataset import TaskDataset
from orchestrator.tasks import Evaluation
from orchestrator.tasks.tokens import device_of

BATCHES = (1, 32)
SECONDS, PAIRS = 0.25, 9
RESAMPLES = 200
TRAINING = frozenset(field.name for field in dataclasses.fields(Hyperparameters))
"""Parameters that say how an adapter is trained, and nothing of its form."""


class Latencies:
    """Measured once for all trials of the same form, however they were trained."""

    def __init__(self) -> None:
        self._known: dict[str, dict[str, float]] = {}

    def measurements(
        self, attached: Attached, job: Job, backbone: SharedBackbone, rows: TaskDataset
    ) -> dict[str, float]:
        """As :func:`latency_facts`, of a trial's adapter."""
        form = {name: value for name, value in job.params.items() if name not in TRAINING}
        key = json.dumps([job.trial.study, form], sort_keys=True)
        if key not in self._known:
            self._known[key] = latency_facts(attached, backbone, rows)
        return self._known[key]


def latency_facts(attached: Attached, backbone: SharedBackbone, rows: TaskDataset) -> dict[str, float]:
    """``latency_overhead_1`` and ``latency_overhead_32``: what the adapter adds to a forward pass, as a fraction.

    0.05 is 5 % slower than the bare backbone with its head, below 0 is faster. The adapter is timed as it was
    trained, not merged: one that merges (``mergeable``) has no overhead once it is. Both are timed alone, in turn, in
    evaluation mode, on rows of the task of middling length, for half a second in all, or in two passes each where
    passes take longer. A lane of one thread is timed in its own processor time, which its neighbours do not disturb.

    Args:
        attached: the trained adapter on its view; left in evaluation mode.
        backbone: that it is attached to.
        rows: the task's.
    """
    attached.train(False)
    bare = backbone.view(0)
    widen_head(bare, backbone.context)  # as every method does
    found = {}
    with torch.random.fork_rng(), torch.no_grad():
        for size in BATCHES:
            batch = rows.typical(size)
            passing = (_passing(bare, batch), _passing(attached.module, batch))
            found[f"latency_overhead_{size}"] = overhead(*passing, clock=_clock(device_of(bare)))
    return found


def standard_error_measurement(rows: TaskDataset, evaluation: Evaluation) -> dict[str, float]:
    """``validation_standard_error``: how far the score would move on other validation rows, by resampling them."""
    predictions = evaluation.predictions
    draws = np.random.default_rng(0).integers(predictions.num_rows, size=(RESAMPLES, predictions.num_rows))
    return {"validation_standard_error": float(rows.type.score_many(rows.metric, predictions, draws).std(ddof=1))}


def overhead(
    bare: Callable[[], Any],
    adapted: Callable[[], Any],
    *,
    clock: Callable[[], float] = time.perf_counter,
    seconds: float = SECONDS,
    pairs: int = PAIRS,
) -> float:
    """How much longer one call takes than another, as a fraction; the median over interleaved pairs.

    A call that is not timed warms memory up. Who goes first alternates, and two pairs are timed in any case, so that
    going first is no burden.

    Args:
        bare: what is compared with.
        adapted: what is measured.
        clock: seconds, of any origin.
        seconds: no third or further pair begins after so many.
        pairs: how many are timed at most.
    """
    ratios: list[float] = []
    bare()
    begin = clock()
    while len(ratios) < 2 or (len(ratios) < pairs and clock() - begin < seconds):
        first, second = (bare, adapted) if len(ratios) % 2 else (adapted, bare)
        one, other = _timed(first, clock), _timed(second, clock)
        ratios.append(other / one if first is bare else one / other)
    return statistics.median(ratios) - 1


def _timed(call: Callable[[], Any], clock: Callable[[], float]) -> float:
    begin = clock()
    call()
    return clock() - begin


def _passing(model: nn.Module, batch: dict[str, Tensor]) -> Callable[[], None]:
    device = device_of(model)
    inputs = {name: batch[name].to(device) for name in ("input_ids", "attention_mask")}

    def once() -> None:
        model(**inputs)
        if device.type == "cuda":
            torch.cuda.synchronize()

    return once


def _clock(device: torch.device) -> Callable[[], float]:
    return time.thread_time if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
