"""Training of the head alone, on the frozen backbone's features: the baseline that other methods must beat.

The features are either those that the model's own head reads (its pooler's output, or the state at one token), or the
mean of the last hidden states. The mean is read by the head's last linear layer alone; the head's other layers are
unused then.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn

from methods.base.spec import Attached, Category, Context, Hyperparameters, MethodError, MethodSpec
from methods.base.trainable import attached, train_head, widen_head
from methods.parts.mean_pooling import feed_mean, last_linear


@dataclass(frozen=True, kw_only=True)
class LinearProbeParams(Hyperparameters):
    """Parameters of a linear probe.

    Args:
        pooling: ``head`` for the features of the model's own head; ``mean`` for the mean of the last hidden states over
            the tokens of a row, of the encoder in an encoder-decoder (arXiv:2108.08877), where a row has one label.
        dropout: dropout rate of the features.
    """

    learning_rate: float = 1e-2
    pooling: Literal["head", "mean"] = "head"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.pooling in ("head", "mean"), "pooling", "head or mean")
        self.require_in_range("dropout")


def attach(view: nn.Module, params: LinearProbeParams, context: Context) -> Attached:
    """Let the head train, with dropout of its features.

    Raises:
        MethodError: if the task has no head, or the head cannot read the mean.
    """
    if not context.head:
        raise MethodError("linear_probe needs a head that the checkpoint does not hold; a language model has none")
    dropout = nn.Dropout(params.dropout)
    if params.pooling == "mean":
        last = last_linear(view, context)
        widen_head(view, context)
        last.requires_grad_(True)
        feed_mean(view, last, dropout)
        return attached(view, "linear_probe", params, context, active=[dropout])
    heads = train_head(view, context)
    heads[0].register_forward_pre_hook(lambda _, args: (dropout(args[0]), *args[1:]))
    active = [dropout, *(part for head in heads for part in head.modules())]
    return attached(view, "linear_probe", params, context, active=active, merge=lambda: view)


SPEC = MethodSpec(
    name="linear_probe",
    category=Category.SELECTIVE,
    reference="Alain & Bengio (2016), arXiv:1610.01644",
    params_type=LinearProbeParams,
    attach=attach,
    tasks=frozenset({"SEQ_CLS", "TOKEN_CLS"}),
    supports_merge=True,
)
