"""An adapter merged into a plain transformers checkpoint, with a check that both give the same results."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

import methods
from methods.base.spec import Attached, Category
from orchestrator.backbone import key_value_cache
from orchestrator.backbone.shared import SharedBackbone
from orchestrator.common.errors import InputError, Problem
from orchestrator.export.trained import Trained
from orchestrator.tasks import TASK_TYPES, TaskType
from orchestrator.tasks.tokens import IGNORED_LABEL
from orchestrator.tracking.backbone import attachable, backbone_file

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ROWS = 8
TOLERANCE = 1e-4
REASONS = {
    Category.SOFT_PROMPT: "it adds tokens to the input, which no weight of the backbone can replace",
    Category.ADDITIVE: "it adds layers, which no weight of the backbone can replace",
    Category.PROMPTING: "it trains no weights",
    Category.COMPOSITION: "one of its parts cannot be merged",
}
"""Why methods of a category cannot be merged."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class Merged:
    """A merged checkpoint.

    Args:
        auto_class: transformers class that loads it.
        dtype: data type of its weights.
        largest_difference: largest absolute difference between its results and the adapter's.
        rows: number of rows of random tokens that were compared.
    """

    auto_class: str
    dtype: str
    largest_difference: float
    rows: int


def write_merged(trained: Trained, folder: Path, dtype: str | None) -> Merged:
    """Merge an adapter into the dequantized weights that it was trained on, and save them as a plain checkpoint.

    Everything is computed in float32; weights are rounded to ``dtype`` when they are saved.

    Args:
        trained: the adapter.
        folder: folder of the checkpoint.
        dtype: data type of the saved weights; that of the backbone's checkpoint if left out.

    Raises:
        InputError: if it cannot be merged.
        SweepError: if its backbone cannot be downloaded.
    """
    from transformers import AutoTokenizer

    require_mergeable(trained)
    shared = _backbone(trained)
    attached = methods.load_adapter(shared.view(0), trained.adapter, shared.context)
    attached.train(False)
    kind = replace(TASK_TYPES[trained.type], labels=trained.labels, constants=trained.constants)
    tokens = sample(shared.model.config, AutoTokenizer.from_pretrained(trained.tokenizer))
    batch = kind.dummy_batch(tokens["input_ids"], tokens["attention_mask"], head_size(trained))
    expected = outputs(kind, attached.module, batch)
    model = plain_model(_merge(trained, attached), trained.labels if head_size(trained) else ())
    key_value_cache.set_default(model.config, shared.keeps_cache)
    if (error := difference(expected, outputs(kind, model, batch))) > TOLERANCE * max(1.0, float(expected.abs().max())):
        message = f"a plain {type(model).__name__} cannot represent it: its results differ by {error:.1g}"
        raise _refused(trained, message)
    dtype = dtype or _checkpoint_dtype(shared)
    with _no_progress_bars():
        model.to(DTYPES[dtype]).save_pretrained(folder)  # type: ignore[arg-type]
        for path, text in kind.merged_files(model).items():
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
        error = difference(expected, outputs(kind, type(model).from_pretrained(folder), batch))
    return Merged(auto_class=shared_auto_class(trained), dtype=dtype, largest_difference=error, rows=ROWS)


def require_mergeable(trained: Trained) -> None:
    """Refuse a method that can never be merged, before anything is loaded.

    Raises:
        InputError: if the method does not merge.
    """
    spec = trained.spec()
    if not spec.supports_merge:
        raise _refused(trained, REASONS.get(spec.category, "it does not change the backbone's weights"))


def plain_model(merged: nn.Module, labels: Sequence[str]) -> PreTrainedModel:
    """Return a model of transformers alone, in float32, with the weights of ``merged``.

    Quantized weights are dequantized, and layers that the architecture stores transposed (GPT-2's ``Conv1D``) are
    transposed back. Tied weights stay tied.

    Args:
        merged: result of ``Attached.merge``: a model of transformers with some linear layers of this project.
        labels: labels for ``id2label``.
    """
    from accelerate import init_empty_weights

    config: Any = copy.deepcopy(merged.config)
    config.dtype = torch.float32
    if labels:
        config.id2label, config.label2id = dict(enumerate(labels)), {name: i for i, name in enumerate(labels)}
    build: Any = type(merged)
    with init_empty_weights(include_buffers=False):
        plain: PreTrainedModel = build(config)
    if getattr(merged, "pooler", plain) is None:
        plain.pooler = None  # type: ignore[assignment]
    stored = plain.state_dict().keys() & {name for name, _ in (*plain.named_parameters(), *plain.named_buffers())}
    weights = {name: _like(plain, merged, name) for name in stored}
    plain.load_state_dict(weights, strict=False, assign=True)
    plain.tie_weights()
    plain.requires_grad_(False).eval()
    return plain


def _like(plain: nn.Module, merged: nn.Module, name: str) -> Tensor:
    """Return a tensor of the merged model in the layout of the plain one."""
    from transformers.pytorch_utils import Conv1D

    path, _, leaf = name.rpartition(".")
    owner = merged.get_submodule(path)
    tensor: Tensor = getattr(owner, leaf).detach()
    if tensor.is_floating_point():
        tensor = tensor.float()
    if leaf == "weight" and isinstance(plain.get_submodule(path), Conv1D) and isinstance(owner, nn.Linear):
        tensor = tensor.T
    return tensor.clone(memory_format=torch.contiguous_format)


def sample(config: Any, tokenizer: PreTrainedTokenizerBase) -> dict[str, Tensor]:
    """Return a few rows of random tokens, each of a different length.

    Args:
        config: configuration of the model.
        tokenizer: tokenizer of the model; its special tokens are not drawn.

    Returns:
        ``input_ids`` and ``attention_mask`` of shape ``(rows, tokens)``, padded on the right.
    """
    special = set(tokenizer.all_special_ids)
    words = [i for i in range(min(len(tokenizer), config.get_text_config().vocab_size)) if i not in special]
    end = [config.eos_token_id] if config.is_encoder_decoder else []
    pad = config.pad_token_id if config.pad_token_id is not None else tokenizer.pad_token_id or 0
    ids, mask = torch.full((ROWS, ROWS + 4), int(pad)), torch.zeros(ROWS, ROWS + 4, dtype=torch.long)
    draw = torch.Generator().manual_seed(0)
    for row in range(ROWS):
        tokens = [words[i] for i in torch.randint(len(words), (row + 3,), generator=draw).tolist()] + end
        ids[row, : len(tokens)], mask[row, : len(tokens)] = torch.tensor(tokens), 1
    return {"input_ids": ids, "attention_mask": mask}


def outputs(kind: TaskType, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Return what a model gives in float32: ``(rows, numbers)``, or ``(tokens, numbers)`` without the padding."""
    with torch.no_grad():
        numbers = kind.forward(model, batch).float()
    return numbers if numbers.dim() == 2 else numbers[batch["labels"] != IGNORED_LABEL]


def difference(first: Tensor, second: Tensor) -> float:
    """Return the largest absolute difference between two tensors of one shape."""
    return float((first - second).abs().max())


def shared_auto_class(trained: Trained) -> str:
    """Return the name of the transformers class that loads models of the task's type."""
    return TASK_TYPES[trained.type].auto_class


def head_size(trained: Trained) -> int:
    """Return how many outputs the adapter's head has; 0 for a language model."""
    return TASK_TYPES[trained.type].head_size(len(trained.labels))


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _backbone(trained: Trained) -> SharedBackbone:
    """Load the backbone with all its unquantized parts in float32, whatever the checkpoint's data type is."""
    file = backbone_file(trained.backbone, trained.type, carried=trained.carried, storage=trained.storage)
    shared = attachable(trained.backbone, trained.type, head_size(trained), file, torch.float32)
    checkpoint_dtype = shared.model.config.dtype
    shared.model.float()
    shared.model.config.dtype = checkpoint_dtype
    return shared


def _checkpoint_dtype(shared: SharedBackbone) -> str:
    name = str(shared.model.config.dtype or "float32").removeprefix("torch.")
    return name if name in DTYPES else "float32"


def _merge(trained: Trained, attached: Attached) -> nn.Module:
    if attached.merge is None:
        raise _refused(trained, "with these parameters it changes more than weights")
    return attached.merge()


def _refused(trained: Trained, reason: str) -> InputError:
    hint = "leave out --merged"
    return InputError(trained.reference, [Problem("--merged", f"{trained.method} cannot be merged: {reason}; {hint}")])
