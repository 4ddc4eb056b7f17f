"""Only the head trains, on the frozen backbone's features: the floor that a deployment must beat.

The features are what the model reads itself, through its own pooler or at its own token, or the mean over the tokens
of a row. Then the head's last linear layer reads the mean, and nothing else of the head has a part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from methods.base.spec import Attached, Category, Context, Hyperparameters, MethodError, MethodSpec
from methods.base.trainable import attached, train_head, widen_head


@dataclass(frozen=True, kw_only=True)
class LinearProbeParams(Hyperparameters):
    """Parameters of a linear probe.

    Args:
        pooling: ``head`` leaves the features to the model's own head, ``mean`` takes the mean of the last hidden states
            over the tokens of a row, the encoder's in an encoder-decoder (arXiv:2108.08877).
        dropout: of the features that the head reads.
    """

    learning_rate: float = 1e-2
    pooling: Literal["head", "mean"] = "head"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.pooling in ("head", "mean"), "pooling", "head or mean")
        self.require(0 <= self.dropout < 1, "dropout", "in 0..1, below 1")


def attach(view: nn.Module, params: LinearProbeParams, context: Context) -> Attached:
    """Let the head train, behind its own dropout.

    Raises:
        MethodError: if the task has no head of its own, or it cannot read the mean.
    """
    if not context.head:
        raise MethodError("linear_probe needs a head that the checkpoint does not hold; a language model has none")
    dropout = nn.Dropout(params.dropout)
    if params.pooling == "mean":
        last = _last_linear(view, context)
        widen_head(view, context)
        last.requires_grad_(True)
        _read_the_mean(view, last, dropout)
        return attached(view, "linear_probe", params, context, active=[dropout])
    heads = train_head(view, context)
    heads[0].register_forward_pre_hook(lambda _, args: (dropout(args[0]), *args[1:]))
    active = [dropout, *(part for head in heads for part in head.modules())]
    return attached(view, "linear_probe", params, context, active=active, merge=lambda: view)


def _last_linear(view: nn.Module, context: Context) -> nn.Linear:
    """The layer of the head that gives the logits, if it reads features as wide as the hidden states."""
    config: Any = view.config
    parts = [part for name in context.head for part in view.get_submodule(name).modules()]
    linears = [part for part in parts if isinstance(part, nn.Linear) and part.out_features == config.num_labels]
    width = config.get_text_config().hidden_size
    if not linears or linears[-1].in_features != width:
        reason = f"no linear layer from {width} features to {config.num_labels} classes"
        raise MethodError(f"pooling is 'mean', but the head of {type(view).__name__} has {reason}")
    return linears[-1]


def _read_the_mean(view: nn.Module, last: nn.Linear, dropout: nn.Module) -> None:
    """Put the mean in the place of what ``last`` reads, at every token where it reads tokens."""
    mean: list[Tensor] = []

    def keep(_: nn.Module, __: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        encoded = getattr(output, "encoder_last_hidden_state", None)
        mean[:] = [_mean(output[0] if encoded is None else encoded, kwargs.get("attention_mask"))]

    def read(_: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
        features: Tensor = dropout(mean.pop())
        return (features if args[0].dim() == 2 else features[:, None].expand(-1, args[0].shape[1], -1),)

    backbone: nn.Module = view.base_model  # type: ignore[assignment]
    backbone.register_forward_hook(keep, with_kwargs=True)
    last.register_forward_pre_hook(read)


def _mean(states: Tensor, mask: Tensor | None) -> Tensor:
    """Of shape ``(rows, tokens, width)`` to ``(rows, width)``, in float32, over the tokens that the mask keeps."""
    if mask is None:
        return states.float().mean(dim=1)
    kept = mask[:, :, None].to(states.device)
    return (states.float() * kept).sum(dim=1) / kept.sum(dim=1).clamp_min(1)


SPEC = MethodSpec(
    name="linear_probe",
    category=Category.SELECTIVE,
    reference="Alain & Bengio (2016), arXiv:1610.01644",
    params_type=LinearProbeParams,
    attach=attach,
    tasks=frozenset({"classification"}),
    supports_merge=True,
)
