"""What an adapter makes a language model forget: its loss on neutral text, which belongs to no task."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from methods.base.spec import Attached
from orchestrator.backbone.shared import SharedBackbone
from orchestrator.engine.random_stream import restored_generators
from orchestrator.engine.task_dataset import TaskDataset
from orchestrator.tasks.token_losses import next_token_losses
from orchestrator.tasks.tokens import IGNORED_LABEL, device_of

NEUTRAL = Path(__file__).with_name("neutral.txt")
BATCH_ROWS = 8


@dataclass(frozen=True)
class NeutralText:
    """Plain text in the backbone's tokens, and the bare backbone's loss on it.

    Args:
        batches: collated batches in which every token but a line's first has a label.
        backbone_loss: mean loss of the bare backbone, in nats per token.
    """

    batches: tuple[dict[str, Tensor], ...]
    backbone_loss: float

    @classmethod
    def for_backbone(cls, backbone: SharedBackbone, dataset: TaskDataset) -> Self | None:
        """Tokenize the text for a task's backbone; ``None`` without a language-model head or a tokenizer."""
        if not dataset.type.predicts_next_token or dataset.text is None:
            return None
        lines = [line.strip() for line in NEUTRAL.read_text(encoding="utf-8").splitlines() if line.strip()]
        ids = [dataset.text.tokenizer(line)["input_ids"][: dataset.max_length] for line in lines]
        batches = tuple(_batches([line_ids for line_ids in ids if len(line_ids) > 1], dataset.pad))
        return cls(batches, _mean_loss(backbone.view(0), batches)) if batches else None

    def forgetting(self, attached: Attached) -> float:
        """Return how much higher the loss is with the adapter, in nats per token; below 0, it is lower."""
        attached.train(False)
        return _mean_loss(attached.module, self.batches) - self.backbone_loss


def _batches(ids: list[list[int]], pad: int) -> Iterator[dict[str, Tensor]]:
    for first in range(0, len(ids), BATCH_ROWS):
        lines = ids[first : first + BATCH_ROWS]
        width = max(map(len, lines))
        tokens = torch.tensor([line + [pad] * (width - len(line)) for line in lines])
        mask = torch.tensor([[1] * len(line) + [0] * (width - len(line)) for line in lines])
        labels = tokens.masked_fill(mask == 0, IGNORED_LABEL)
        yield {"input_ids": tokens, "attention_mask": mask, "labels": labels}


def _mean_loss(model: nn.Module, batches: tuple[dict[str, Tensor], ...]) -> float:
    """Return the mean over all tokens but each line's first; no random stream is changed."""
    with restored_generators(device_of(model)), torch.no_grad():
        losses = [next_token_losses(model, batch)[0] for batch in batches]
    return float(torch.cat(losses).double().mean())
