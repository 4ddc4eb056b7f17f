"""The output embeddings of a language model in a packed pass: they are multiplied once for all trials that share them.

They are plain weights and no frozen layers, since they are often the input embeddings too. A step of generation spends
about a third of its time in them where the model is small and its vocabulary large.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from orchestrator.backbone.frozen import current_matmul
from orchestrator.backbone.weights import PlainWeight
from orchestrator.tasks.output_head import output_embeddings, replaced_forward


@dataclass(frozen=True, eq=False)
class SharedHead:
    """Output embeddings as the hub of a packed pass takes them: like a frozen layer, behind all others.

    Args:
        frozen: the weight, one object for all trials that share it.
    """

    frozen: PlainWeight
    position: int = sys.maxsize

    @property
    def compute_dtype(self) -> torch.dtype:
        """The weight's own dtype."""
        return self.frozen.weight.dtype

    def matmul(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Return ``x W^T``, plus the bias if there is one, for this layer alone."""
        return nn.functional.linear(x, self.frozen.weight, bias)


@contextmanager
def shared_heads(models: Sequence[nn.Module]) -> Iterator[None]:
    """Let the models' output embeddings wait for one another like frozen layers, where several have the same weight.

    For passes without gradients: a training step computes logits again in its backward pass.

    Args:
        models: language models with their methods, views of one backbone; others stay as they are.
    """
    layers = [layer for model in models if (layer := _plain_head(model)) is not None]
    weights = {id(layer.weight): layer.weight for layer in layers}
    heads = {key: SharedHead(PlainWeight(weight.detach())) for key, weight in weights.items()}
    with ExitStack() as stack:
        for layer in layers:
            if sum(other.weight is layer.weight for other in layers) > 1:
                head = heads[id(layer.weight)]
                stack.enter_context(replaced_forward(layer, partial(_forward, head, layer.bias)))
        yield


def _plain_head(model: nn.Module) -> nn.Linear | None:
    """Return the output embeddings, if no method has changed or trains them."""
    layer = output_embeddings(model)
    is_plain = type(layer) is nn.Linear and not any(parameter.requires_grad for parameter in layer.parameters())
    return layer if is_plain else None  # type: ignore[return-value]


def _forward(head: SharedHead, bias: Tensor | None, forward: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    matmul = current_matmul()
    return forward(x) if matmul is None or torch.is_grad_enabled() else matmul(head, x, bias)
