"""Only the head trains, on the frozen backbone's features: the floor that a deployment must beat."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from methods._base import Attached, Category, Context, Hyperparameters, MethodError, MethodSpec
from methods._trainable import attached, train_head


@dataclass(frozen=True, kw_only=True)
class LinearProbeParams(Hyperparameters):
    """Parameters of a linear probe.

    Args:
        dropout: of the features that the head reads.
    """

    learning_rate: float = 1e-2
    dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(0 <= self.dropout < 1, "dropout", "in 0..1, below 1")


def attach(view: nn.Module, params: LinearProbeParams, context: Context) -> Attached:
    """Let the head train, behind its own dropout.

    Raises:
        MethodError: if the task has no head of its own.
    """
    if not context.head:
        raise MethodError("linear_probe needs a head that the checkpoint does not hold; a language model has none")
    heads = train_head(view, context)
    dropout = nn.Dropout(params.dropout)
    heads[0].register_forward_pre_hook(lambda _, args: (dropout(args[0]), *args[1:]))
    active = [dropout, *(part for head in heads for part in head.modules())]
    return attached(view, "linear_probe", params, context, active=active, merge=lambda: view)


SPEC = MethodSpec(
    name="linear_probe",
    category=Category.SELECTIVE,
    reference="Alain & Bengio (2016), arXiv:1610.01644",
    params_type=LinearProbeParams,
    attach=attach,
    tasks=frozenset({"classification"}),
    supports_merge=True,
)
