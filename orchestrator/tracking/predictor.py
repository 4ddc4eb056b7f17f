"""Predict with a registered adapter on its backbone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import nn

from methods import load_adapter
from methods.base.spec import MethodError
from orchestrator.common.errors import InputError, SweepError, describe_error, one_line
from orchestrator.common.storage import Storage
from orchestrator.config import GpuSettings
from orchestrator.tasks import TASK_TYPES, Evaluation, TaskType
from orchestrator.tasks.batches import evaluation_batches
from orchestrator.tasks.inputs import to_arrow
from orchestrator.tasks.tokens import lengths
from orchestrator.tasks.user_metric import module_of
from orchestrator.tracking.backbone import attachable, backbone_file
from orchestrator.tracking.bundle import ADAPTER, BUNDLE, CARRIED, TOKENIZER, Bundle

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedTokenizerBase

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@contextmanager
def _reading(part: Path) -> Iterator[None]:
    """Name the part of a bundle that cannot be read.

    Libraries raise errors of any type over a damaged file: safetensors, tokenizers, pydantic, peft and torch do.

    Raises:
        SweepError: if anything goes wrong inside.
    """
    try:
        yield
    except (SweepError, InputError):
        raise
    except Exception as error:
        reason = str(error) if isinstance(error, MethodError) else describe_error(error)
        raise SweepError(f"{part} cannot be used: {one_line(reason)}") from error


class Predictor:
    """An adapter on its backbone, computing as when it was scored: same dtype, threads and batches.

    Args:
        bundle: Bundle of the adapter.
        model: Backbone with the adapter, in evaluation mode.
        tokenizer: Tokenizer of the bundle.
        decoder: Whether the backbone is a decoder, which may be padded on the left.
    """

    def __init__(self, bundle: Bundle, model: nn.Module, tokenizer: PreTrainedTokenizerBase, decoder: bool) -> None:
        self.bundle, self.model = bundle, model
        self._tokenizer, self._decoder = tokenizer, decoder
        self._pad_id: int = tokenizer.pad_token_id

    @classmethod
    def load(cls, folder: Path, storage: Storage | None = None) -> Predictor:
        """Attach a bundle's adapter to its backbone.

        Args:
            folder: The bundle's folder.
            storage: Storage that may hold the quantized backbone; without it there, the backbone is quantized again.

        Raises:
            SweepError: If a file of the bundle is damaged, the backbone cannot be loaded, or it is not the one that the
                adapter was trained on.
        """
        from transformers import AutoTokenizer

        bundle = Bundle.read(folder)
        with _reading(folder / TOKENIZER):
            tokenizer = AutoTokenizer.from_pretrained(folder / TOKENIZER)
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        if tokenizer.pad_token_id is None:
            raise SweepError(f"{folder / TOKENIZER} cannot be used: it has neither a padding nor an end-of-text token")
        file = backbone_file(bundle.backbone, bundle.type, carried=folder / CARRIED, storage=storage)
        device = "cuda" if bundle.environment.device.startswith("cuda") and torch.cuda.is_available() else "cpu"
        dtype = DTYPES[bundle.backbone.compute_dtype]
        gpu = GpuSettings(trainable_products=bundle.environment.trainable_products)
        labels = TASK_TYPES[bundle.type].head_size(len(bundle.labels))
        with _reading(file):
            backbone = attachable(bundle.backbone, bundle.type, labels, file, dtype, device, gpu)
        with _reading(folder / ADAPTER):
            attached = load_adapter(backbone.view(0), folder / ADAPTER, backbone.context)
        attached.train(False)
        predictor = cls(bundle, attached.module.requires_grad_(False), tokenizer, backbone.decoder)
        with _reading(folder / BUNDLE):  # its metrics may be none that the type has
            _ = predictor.type
        return predictor

    @cached_property
    def type(self) -> TaskType:
        """The type of the bundle's task, ready to score by its metrics and to generate."""
        type_ = TASK_TYPES[self.bundle.type]
        known = {metric.name for metric in type_.metrics}
        recorded = [name for name in self.bundle.metrics if name in known or module_of(name)]
        metrics = dict.fromkeys((self.bundle.metric, *recorded))
        bundle = self.bundle
        return type_.configured(
            tuple(metrics), bundle.max_new_tokens, self._tokenizer, bundle.labels, bundle.sampling, bundle.constants
        ).for_test()

    def predict(self, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
        """Return the answers to inputs.

        Args:
            rows: JSON values by column; columns that the model does not read are ignored.

        Returns:
            One row per input in their order, with the task type's columns: ``label`` and ``probability_LABEL`` of each
            label, or ``completion``.

        Raises:
            ValueError: If a row lacks a column, or a value is of another kind.
        """
        inputs = self.bundle.input_schema.to_table(rows)
        labels = self.bundle.labels
        if not rows:
            columns = self.type.answer_columns(labels)
            return pa.table({name: to_arrow([], kind) for name, kind in columns.items()})
        with self._recorded_threads():
            tokens, batches = self._tokenized(self.type.unanswered(inputs))
            return self.type.answer(self.model, tokens, batches, self._pad_id, self._decoder, labels)

    def evaluate(self, rows: pa.Table) -> Evaluation:
        """Score rows as a sweep does.

        Args:
            rows: Table with the columns of a split of the task's type.
        """
        with self._recorded_threads():
            tokens, batches = self._tokenized(rows)
            return self.type.evaluate(self.model, tokens, batches, self._pad_id, self._decoder)

    def _tokenized(self, rows: pa.Table) -> tuple[pa.Table, list[NDArray[np.int64]]]:
        """Return the rows as tokens, and the batches that scoring makes of them."""
        tokens = self.type.tokenize(rows, self._tokenizer, self.bundle.max_length)
        return tokens, evaluation_batches(lengths(tokens), self.bundle.evaluation_batch)

    @contextmanager
    def _recorded_threads(self) -> Iterator[None]:
        """Use as many threads as in the recorded scoring: how a sum is split over threads changes its last digits."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.bundle.environment.threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)
