"""What an adapter makes a language model forget: its loss on text that has nothing to do with any task."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from methods.base.spec import Attached
from orchestrator.backbone.shared import SharedBackbone
from orchestrator.engine.task_dataset import TaskDataset
from orchestrator.tasks import CausalLM

NEUTRAL = Path(__file__).with_name("neutral.txt")
SIZE = 8


@dataclass(frozen=True)
class NeutralText:
    """Plain text in the backbone's tokens, and how well the bare backbone predicts it.

    Args:
        type: of the task, which knows the loss of a token.
        batches: as a causal language model takes them, with every token but the first to be predicted.
        bare: mean loss of the backbone alone, in nats per token.
    """

    type: CausalLM
    batches: tuple[dict[str, Tensor], ...]
    bare: float

    @classmethod
    def of(cls, backbone: SharedBackbone, rows: TaskDataset) -> Self | None:
        """The text as a task's backbone reads it; ``None`` where that has no language-model head, or no tokenizer."""
        if not isinstance(rows.type, CausalLM) or rows.text is None:
            return None
        lines = [line.strip() for line in NEUTRAL.read_text(encoding="utf-8").splitlines() if line.strip()]
        ids = [rows.text.tokenizer(line)["input_ids"][: rows.max_length] for line in lines]
        batches = tuple(_batches([own for own in ids if len(own) > 1], rows.pad))
        return cls(rows.type, batches, _loss(rows.type, backbone.view(0), batches)) if batches else None

    def forgetting(self, attached: Attached) -> float:
        """How much worse the text is predicted with the adapter, in nats per token; below 0 it is better."""
        attached.train(False)
        return _loss(self.type, attached.module, self.batches) - self.bare


def _batches(ids: list[list[int]], pad: int) -> Iterator[dict[str, Tensor]]:
    for first in range(0, len(ids), SIZE):
        part = ids[first : first + SIZE]
        width = max(map(len, part))
        tokens = torch.tensor([own + [pad] * (width - len(own)) for own in part])
        mask = torch.tensor([[1] * len(own) + [0] * (width - len(own)) for own in part])
        labels = tokens.masked_fill(mask == 0, -100)
        yield {"input_ids": tokens, "attention_mask": mask, "labels": labels}


def _loss(type_: CausalLM, model: nn.Module, batches: tuple[dict[str, Tensor], ...]) -> float:
    """Mean over all tokens but each line's first, without gradients and without touching anyone's random stream."""
    with torch.random.fork_rng(), torch.no_grad():
        losses = [type_.token_losses(model, batch) for batch in batches]
    return float(torch.cat(losses).double().mean())
