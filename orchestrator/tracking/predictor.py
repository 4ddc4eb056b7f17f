"""A registered adapter at work: texts in, labels and probabilities (or completions) out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import nn

from methods import load_adapter
from orchestrator.common.storage import Storage
from orchestrator.tasks import TASK_TYPES, CausalLM, Evaluation, TaskType
from orchestrator.tasks.batches import evaluation_batches
from orchestrator.tasks.classification import probabilities
from orchestrator.tasks.tokens import lengths, ragged
from orchestrator.tracking.backbone import attachable, backbone_file
from orchestrator.tracking.bundle import ADAPTER, CARRIED, TOKENIZER, Bundle

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Predictor:
    """An adapter on its backbone, computing as when it was scored: same dtype, threads and batches.

    Args:
        bundle: what it is.
        model: backbone and adapter, in evaluation mode.
        tokenizer: its own.
        decoder: pads on the left.
    """

    def __init__(self, bundle: Bundle, model: nn.Module, tokenizer: PreTrainedTokenizerBase, decoder: bool) -> None:
        self.bundle, self.model = bundle, model
        self._tokenizer, self._decoder = tokenizer, decoder
        self._pad: int = tokenizer.pad_token_id

    @classmethod
    def load(cls, folder: Path, storage: Storage | None = None) -> Predictor:
        """Attach a bundle's adapter to its backbone.

        Args:
            folder: the bundle's.
            storage: where its quantized backbone may be found, before it is made again.

        Raises:
            SweepError: if the backbone cannot be had here, or is not the one that the adapter was trained on.
        """
        from transformers import AutoTokenizer

        bundle = Bundle.read(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder / TOKENIZER)
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        file = backbone_file(bundle.backbone, bundle.type, carried=folder / CARRIED, storage=storage)
        device = "cuda" if bundle.environment.device.startswith("cuda") and torch.cuda.is_available() else "cpu"
        dtype = DTYPES[bundle.backbone.compute_dtype]
        shared = attachable(bundle.backbone, bundle.type, len(bundle.labels), file, dtype, device)
        attached = load_adapter(shared.view(0), folder / ADAPTER, shared.context)
        attached.train(False)
        return cls(bundle, attached.module.requires_grad_(False), tokenizer, shared.decoder)

    def predict(self, texts: Sequence[str]) -> tuple[list[str], NDArray[np.float64]]:
        """Label texts, or complete prompts.

        Returns:
            The label or completion of each text, and the probabilities of shape ``(rows, labels)``; there are no
            labels, and no columns, where text is generated.

        Raises:
            ValueError: if one of them is no text.
        """
        _check_texts(texts)
        if self.bundle.type == "causal-lm":
            return self._complete(texts), np.empty((len(texts), 0))
        if not texts:
            return [], np.empty((0, len(self.bundle.labels)))
        unknown = pa.array(np.zeros(len(texts), np.int32))
        rows = pa.table({"row": pa.array(range(len(texts))), "text": pa.array(texts, pa.string()), "label": unknown})
        found = probabilities(self.evaluate(rows).predictions)
        return [self.bundle.labels[best] for best in found.argmax(axis=1)], found

    def evaluate(self, rows: pa.Table) -> Evaluation:
        """Score rows as a sweep does.

        Args:
            rows: with the columns of a split of the task's type.
        """
        with self._as_recorded():
            tokens = self.type.tokenize(rows, self._tokenizer, self.bundle.max_length)
            batches = evaluation_batches(lengths(tokens), self.bundle.evaluation_batch)
            return self.type.evaluate(self.model, tokens, batches, self._pad, self._decoder)

    @cached_property
    def type(self) -> TaskType:
        """What the task's type does with rows."""
        if self.bundle.type == "causal-lm":
            generates = self.bundle.metric == "exact_match"
            return CausalLM(generates, self.bundle.max_new_tokens, self._tokenizer)
        return TASK_TYPES[self.bundle.type]

    def _complete(self, prompts: Sequence[str]) -> list[str]:
        if not prompts:
            return []
        assert isinstance(self.type, CausalLM)
        nothing = pa.array([""] * len(prompts))
        rows = pa.table({"row": pa.array(range(len(prompts))), "prompt": pa.array(prompts), "completion": nothing})
        written = [""] * len(prompts)
        with self._as_recorded():
            tokens = self.type.tokenize(rows, self._tokenizer, self.bundle.max_length)
            starts = _prompts(tokens)
            for batch in evaluation_batches(lengths(tokens), self.bundle.evaluation_batch):
                completions = self.type.generate(self.model, [starts[i] for i in batch], self._pad)
                for index, completion in zip(batch, completions, strict=True):
                    written[index] = completion
        return written

    @contextmanager
    def _as_recorded(self) -> Iterator[None]:
        """As many threads as then: how a sum is split over them decides its last digits."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.bundle.environment.threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def _check_texts(texts: Sequence[object]) -> None:
    for number, text in enumerate(texts, 1):
        if not isinstance(text, str):
            raise ValueError(f"row {number} is {text!r}; a text is wanted")


def _prompts(tokens: pa.Table) -> list[NDArray[np.int32]]:
    ids, starts = ragged(tokens)
    sizes = tokens["prompt_length"].to_numpy()
    return [ids[start : start + size] for start, size in zip(starts[:-1], sizes, strict=True)]
