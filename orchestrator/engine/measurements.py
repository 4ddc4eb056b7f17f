"""What a trial costs beside its score: the latency that its adapter adds, and the standard error of its score."""

from __future__ import annotations

import dataclasses
import json
import logging
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from methods.base.spec import Attached, Hyperparameters
from methods.base.trainable import widen_head
from orchestrator.backbone.shared import SharedBackbone
from orchestrator.common.errors import describe_error
from orchestrator.common.trial_types import Job, TrialKey
from orchestrator.engine.device_errors import breaks_device
from orchestrator.engine.out_of_memory import drop_frames, no_memory_to_free, release_memory
from orchestrator.engine.random_stream import restored_generators
from orchestrator.engine.task_dataset import TaskDataset
from orchestrator.selection.clusters import Clusters
from orchestrator.tasks import Evaluation, TaskType
from orchestrator.tasks.token_losses import compute_logits
from orchestrator.tasks.tokens import device_of

log = logging.getLogger(__name__)
LATENCY_BATCH_ROWS = (1, 32)
TIMING_LIMIT_S = 0.25
MAX_TIMED_PAIRS = 9
RESAMPLES = 200
TRAINING_PARAMETERS = frozenset(field.name for field in dataclasses.fields(Hyperparameters))
"""Parameters that change how an adapter is trained, and not what it computes."""


class LatencyCache:
    """Latency overheads, measured once for all trials whose adapters compute the same, however they were trained."""

    def __init__(self, on_pass: Callable[[], None] | None = None) -> None:
        """Create an empty cache; ``on_pass`` is as in :func:`latency_overheads`."""
        self._overheads: dict[str, dict[str, float]] = {}
        self._on_pass = on_pass

    def measure(self, attached: Attached, job: Job, backbone: SharedBackbone, dataset: TaskDataset) -> dict[str, float]:
        """Return :func:`latency_overheads` of a trial's adapter."""
        form = {name: value for name, value in job.params.items() if name not in TRAINING_PARAMETERS}
        key = json.dumps([job.trial.study, form], sort_keys=True)
        if key not in self._overheads:
            self._overheads[key] = latency_overheads(attached, backbone, dataset, self._on_pass)
        return self._overheads[key]


def latency_overheads(
    attached: Attached, backbone: SharedBackbone, dataset: TaskDataset, on_pass: Callable[[], None] | None = None
) -> dict[str, float]:
    """Return ``latency_overhead_1`` and ``latency_overhead_32``: what the adapter adds to a forward pass.

    Each is a fraction of the time of the bare backbone with its head, on a batch of 1 or 32 rows: 0.05 is 5 % slower,
    below 0 is faster. The adapter is timed unmerged; one that can be merged (``mergeable``) has no overhead once it
    is. Adapter and backbone are timed in turn, in evaluation mode, on rows of median length, for half a second in all,
    or twice each where a pass takes longer. A lane of one thread is timed in its own processor time, which does not
    count what its neighbours do.

    Args:
        attached: trained adapter on its view; left in evaluation mode.
        backbone: backbone that it is attached to.
        dataset: rows of the task.
        on_pass: function that is called before each pass of the bare backbone, as a trial's passes call theirs.
    """
    attached.train(False)
    bare = backbone.view(0)
    if on_pass:
        bare.register_forward_pre_hook(lambda *_: on_pass())
    widen_head(bare, backbone.context)  # as every method does
    overheads = {}
    with restored_generators(backbone.device), torch.no_grad():
        for count in LATENCY_BATCH_ROWS:
            batch = dataset.median_length_batch(count)
            passes = (_forward_call(model, batch, dataset.type) for model in (bare, attached.module))
            overheads[f"latency_overhead_{count}"] = overhead(*passes, clock=_clock(device_of(bare)))
    return overheads


def measure_if_possible(
    name: str, measure: Callable[[], dict[str, float]], trial: TrialKey, device: torch.device
) -> dict[str, float]:
    """Return a measurement beside a trial's score; nothing, with one line in the log, if it fails.

    Raises:
        Exception: If the error has left the device unusable.
    """
    try:
        return measure()
    except Exception as error:
        if breaks_device(error, device):
            raise
        log.warning("trial %s has no %s, which could not be measured: %s", trial, name, describe_error(error))
        drop_frames(error)
    release_memory(no_memory_to_free, device)
    return {}


def standard_error_measurement(dataset: TaskDataset, evaluation: Evaluation) -> dict[str, float]:
    """Return ``validation_standard_error``: the score's standard deviation over resampled validation rows."""
    predictions = evaluation.predictions
    clusters = Clusters.of(predictions["row"].to_numpy())
    statistic = clusters.statistic(partial(dataset.type.score_many, dataset.metric, predictions))
    scores = statistic(np.random.default_rng(0).integers(clusters.count, size=(RESAMPLES, clusters.count)))
    return {"validation_standard_error": float(np.nanstd(scores, ddof=1))}


def overhead(
    bare: Callable[[], Any],
    adapted: Callable[[], Any],
    *,
    clock: Callable[[], float] = time.perf_counter,
    seconds: float = TIMING_LIMIT_S,
    pairs: int = MAX_TIMED_PAIRS,
) -> float:
    """Return how much longer one call takes than another, as a fraction; the median over interleaved pairs.

    An untimed call warms up memory first. The calls take turns in going first, and at least two pairs are timed, so
    that neither call is always the first.

    Args:
        bare: call to compare with.
        adapted: call to measure.
        clock: function that returns seconds from any origin.
        seconds: time after which no third or later pair begins.
        pairs: most pairs to time.
    """
    ratios: list[float] = []
    bare()
    begin = clock()
    while len(ratios) < 2 or (len(ratios) < pairs and clock() - begin < seconds):
        first, second = (bare, adapted) if len(ratios) % 2 else (adapted, bare)
        first_s, second_s = _seconds_of(first, clock), _seconds_of(second, clock)
        ratios.append(second_s / first_s if first is bare else first_s / second_s)
    return statistics.median(ratios) - 1


def _seconds_of(call: Callable[[], Any], clock: Callable[[], float]) -> float:
    begin = clock()
    call()
    return clock() - begin


def _forward_call(model: nn.Module, batch: dict[str, Tensor], kind: TaskType) -> Callable[[], None]:
    device, inputs = device_of(model), kind.inputs(model, batch)

    def call() -> None:
        if kind.scores_tokens:
            compute_logits(model, inputs)
        else:
            model(**inputs)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return call


def _clock(device: torch.device) -> Callable[[], float]:
    return time.thread_time if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
