"""Models of random weights, small enough to try a method on in no time."""

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

from methods.base.spec import Context, TaskType

_SIZES: dict[str, Any] = {"vocab_size": 20, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
_SIZES |= {"intermediate_size": 32, "max_position_embeddings": 64, "pad_token_id": 0}


@dataclass(frozen=True)
class TinyModel:
    """A backbone of a few thousand parameters.

    Args:
        model: frozen.
        context: of its views.
    """

    model: PreTrainedModel
    context: Context

    def view(self) -> PreTrainedModel:
        """A module tree of its own over the same frozen tensors; the head is its own too."""
        shared = set(self.shared())
        memo = {id(p): p for name, p in self.model.named_parameters() if name in shared}
        return copy.deepcopy(self.model, memo)

    def shared(self) -> dict[str, Tensor]:
        """What all views have in common, by name."""
        head = tuple(f"{name}." for name in self.context.head)
        named = self.model.named_parameters()
        return {name: p.detach() for name, p in named if not (head and name.startswith(head))}

    def logits(self, module: nn.Module) -> Tensor:
        """Of shape ``(2, labels)`` or ``(2, tokens, vocabulary)``, what virtual tokens give left out."""
        with torch.no_grad():
            found: Tensor = module(**_batch()).logits
        return found if found.dim() == 2 else found[:, -_batch()["input_ids"].shape[1] :]

    def loss(self, module: nn.Module) -> Tensor:
        """A scalar with gradient history."""
        labels = torch.tensor([0, 1]) if self.context.task == "classification" else _batch()["input_ids"]
        found: Tensor = module(**_batch(), labels=labels).loss
        return found


def tiny_models(tasks: Iterable[TaskType]) -> Iterator[TinyModel]:
    """An encoder with a head for classification, a decoder for language modelling."""
    for task in sorted(tasks, reverse=True):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            encodes = task == "classification"
            model = BertForSequenceClassification(BertConfig(**_SIZES)) if encodes else LlamaForCausalLM(_llama())
        head = ("bert.pooler", "classifier") if encodes else ()
        frozen: PreTrainedModel = model.requires_grad_(False).eval()
        originals = {name: p.detach() for name, p in frozen.named_parameters()}
        yield TinyModel(frozen, Context(task=task, backbone="tiny", head=head, original=originals.__getitem__))


def _llama() -> LlamaConfig:
    return LlamaConfig(**_SIZES, bos_token_id=1, eos_token_id=2)


def _batch() -> dict[str, Tensor]:
    tokens = torch.tensor([[3, 4, 5, 6], [7, 8, 9, 10]])
    return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
