"""Tiny models with random weights, on which a method is tried in a fraction of a second."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

from methods.base.spec import TASK_TYPES_OF_0_1, Context, PeftTaskType

_SIZES: dict[str, Any] = {"vocab_size": 20, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
_SIZES |= {"intermediate_size": 32, "max_position_embeddings": 64, "pad_token_id": 0}

TRIED_TYPES: tuple[PeftTaskType, ...] = ("SEQ_CLS", "CAUSAL_LM")
"""The task types that there is a tiny model for."""
_TASK_NAMES = {task_type: name for name, task_type in TASK_TYPES_OF_0_1.items()}


@dataclass(frozen=True)
class TinyModel:
    """A backbone of a few thousand parameters.

    Args:
        model: the model, frozen.
        context: the context of its views.
    """

    model: PreTrainedModel
    context: Context

    def view(self) -> PreTrainedModel:
        """Return a new module tree over the same frozen tensors, with a head of its own."""
        shared = set(self.shared())
        memo = {id(p): p for name, p in self.model.named_parameters() if name in shared}
        return copy.deepcopy(self.model, memo)

    def shared(self) -> dict[str, Tensor]:
        """Return the tensors that all views share, by name."""
        head = tuple(f"{name}." for name in self.context.head)
        named = self.model.named_parameters()
        return {name: p.detach() for name, p in named if not (head and name.startswith(head))}

    def logits(self, module: nn.Module) -> Tensor:
        """Return logits of shape ``(2, labels)`` or ``(2, tokens, vocabulary)``, without those of virtual tokens."""
        with torch.no_grad():
            logits: Tensor = module(**_batch()).logits
        return logits if logits.dim() == 2 else logits[:, -_batch()["input_ids"].shape[1] :]

    def loss(self, module: nn.Module) -> Tensor:
        """Return the loss, a scalar with gradient history."""
        labels = torch.tensor([0, 1]) if self.context.task_type == "SEQ_CLS" else _batch()["input_ids"]
        loss: Tensor = module(**_batch(), labels=labels).loss
        return loss


def tiny_models(task_types: Iterable[PeftTaskType]) -> Iterator[TinyModel]:
    """Yield an encoder with a head for classification and a decoder, as far as the task types include them.

    Models of the other task types have the same modules, with another head.
    """
    for task_type in TRIED_TYPES:
        if task_type not in task_types:
            continue
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)  # of the processor alone, as torch.manual_seed seeds all GPUs
            encodes = task_type == "SEQ_CLS"
            model = BertForSequenceClassification(BertConfig(**_SIZES)) if encodes else LlamaForCausalLM(_llama())
        head = ("bert.pooler", "classifier") if encodes else ()
        frozen: PreTrainedModel = model.requires_grad_(False).eval()
        originals = {name: p.detach() for name, p in frozen.named_parameters()}
        context = Context(
            task=_TASK_NAMES[task_type], task_type=task_type, backbone="tiny", head=head, original=originals.__getitem__
        )
        yield TinyModel(frozen, context)


def _llama() -> LlamaConfig:
    return LlamaConfig(**_SIZES, bos_token_id=1, eos_token_id=2)


def _batch() -> dict[str, Tensor]:
    tokens = torch.tensor([[3, 4, 5, 6], [7, 8, 9, 10]])
    return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
