"""How far an adapter over the unquantized backbone, as peft loads it, predicts what the sweep recorded.

An adapter is trained and scored over a quantized backbone. What people then load with peft alone is another model, and
how far apart the two are can only be measured.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from orchestrator.backbone.shared import is_decoder
from orchestrator.planning.plan import SweepPlan, TaskPlan
from orchestrator.tasks import TaskType
from orchestrator.tasks.batches import evaluation_batches
from orchestrator.tasks.tokens import lengths
from orchestrator.tracking.bundle import PeftAgreement

if TYPE_CHECKING:
    from torch import nn

log = logging.getLogger(__name__)
MIN_ROWS, MAX_ROWS = 8, 200
PARAMETER_ROWS = 2e10
"""Parameters times rows that are compared at most, which bounds the time to about a minute on a few cores."""


def peft_agreement(plan: SweepPlan, task: TaskPlan, adapter: Path, predictions: pa.Table) -> PeftAgreement | None:
    """Predict the first test rows with transformers and peft alone, and compare with what was recorded.

    Args:
        plan: plan of the sweep.
        task: plan of the task.
        adapter: folder that the method saved; peft must be able to load it.
        predictions: recorded predictions of the test split.

    Returns:
        The agreement; ``None`` where the checkpoint's weights are not on this machine, or it cannot be loaded.
    """
    if not _has_weights(plan.source.path):
        return None
    rows = int(min(max(PARAMETER_ROWS / max(plan.parameters, 1), MIN_ROWS), MAX_ROWS))
    try:
        with _quiet():
            model = _model(plan, task, adapter)
            return compare(plan, task, model, predictions.slice(0, rows))
    except Exception as error:  # of any library: the score stands, and the card says that this was not measured
        log.warning("how far the adapter agrees over the unquantized backbone was not measured: %s", error)
        return None


def compare(plan: SweepPlan, task: TaskPlan, model: nn.Module, recorded: pa.Table) -> PeftAgreement:
    """Compare a model's predictions of the first test rows with the recorded ones.

    Args:
        plan: plan of the sweep.
        task: plan of the task.
        model: the model.
        recorded: recorded predictions of the first rows of the test split.
    """
    type_, training = replace(task.type, generates=False), plan.config.training
    rows = task.data.splits["test"].slice(0, recorded.num_rows)
    tokens = type_.tokenize(rows, plan.tokenizer, training.max_length)
    batches = evaluation_batches(lengths(tokens), training.evaluation_batch)
    pad_left = type_.pads_left and is_decoder(plan.source.config().to_dict())
    pad_id: Any = plan.tokenizer.pad_token_id
    predictions = type_.predictions(model, tokens, batches, int(pad_id), pad_left)
    before, after = type_.reproducible(recorded), type_.reproducible(predictions)
    return PeftAgreement(
        rows=recorded.num_rows,
        differing=_differing(type_, recorded, predictions),
        largest_difference=float(np.abs(before - after).max()),
        numbers=type_.reproducible_name,
    )


def _differing(type_: TaskType, recorded: pa.Table, predictions: pa.Table) -> int | None:
    """Return how many rows get another label; ``None`` where a type has none."""
    before, after = type_.answered(recorded), type_.answered(predictions)
    if before is None or after is None:
        return None
    return sum(bool(first != second) for first, second in zip(before, after, strict=True))


def _model(plan: SweepPlan, task: TaskPlan, adapter: Path) -> nn.Module:
    """Load as the code of an exported folder's README does."""
    import transformers
    from peft import PeftModel

    labels = task.type.head_size(len(task.data.labels))
    size = {"num_labels": labels} if labels else {}
    model = getattr(transformers, task.type.auto_class).from_pretrained(**plan.source.arguments(), **size)
    if model.config.pad_token_id is None:  # a head of transformers would refuse more than one row
        model.config.pad_token_id = plan.tokenizer.pad_token_id
    loaded: nn.Module = PeftModel.from_pretrained(model, str(adapter)).eval().requires_grad_(False)
    return loaded


def _has_weights(checkpoint: Path) -> bool:
    return checkpoint.is_file() or any(checkpoint.glob("*.safetensors"))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep progress bars and warnings of libraries from a sweep's lines and log.

    transformers warns that the head is not in the checkpoint, which peft then loads from the adapter.
    """
    from transformers.utils import logging as library

    shown, verbosity = library.is_progress_bar_enabled(), library.get_verbosity()
    library.disable_progress_bar()
    library.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        library.set_verbosity(verbosity)
        if shown:
            library.enable_progress_bar()
