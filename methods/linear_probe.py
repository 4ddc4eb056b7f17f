"""Training of the head alone, on the frozen backbone's features: the baseline that other methods must beat.

The features are either those that the model's own head reads (its pooler's output, or the state at one token), or the
mean of the last hidden states. The mean is read by the head's last linear layer alone; the head's other layers are
unused then.
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
    if context.task_type == "TOKEN_CLS" and params.pooling == "mean":
        raise MethodError("pooling is 'mean', which would give all tokens of a row the same tag; it must be head here")
    if not context.head:
        raise MethodError("linear_probe needs a head that the checkpoint does not hold; a language model has none")
    dropout = nn.Dropout(params.dropout)
    if params.pooling == "mean":
        last = _last_linear(view, context)
        widen_head(view, context)
        last.requires_grad_(True)
        _feed_mean(view, last, dropout)
        return attached(view, "linear_probe", params, context, active=[dropout])
    heads = train_head(view, context)
    heads[0].register_forward_pre_hook(lambda _, args: (dropout(args[0]), *args[1:]))
    active = [dropout, *(part for head in heads for part in head.modules())]
    return attached(view, "linear_probe", params, context, active=active, merge=lambda: view)


def _last_linear(view: nn.Module, context: Context) -> nn.Linear:
    """Return the layer of the head that computes the logits.

    Raises:
        MethodError: if it reads features of another width than the hidden states'.
    """
    config: Any = view.config
    parts = [part for name in context.head for part in view.get_submodule(name).modules()]
    linears = [part for part in parts if isinstance(part, nn.Linear) and part.out_features == config.num_labels]
    width = config.get_text_config().hidden_size
    if not linears or linears[-1].in_features != width:
        reason = f"no linear layer from {width} features to {config.num_labels} classes"
        raise MethodError(f"pooling is 'mean', but the head of {type(view).__name__} has {reason}")
    return linears[-1]


def _feed_mean(view: nn.Module, last: nn.Linear, dropout: nn.Module) -> None:
    """Replace the input of ``last`` by the mean, at every token where that input has tokens."""
    means: list[Tensor] = []

    def store_mean(_: nn.Module, __: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        encoded = getattr(output, "encoder_last_hidden_state", None)
        means[:] = [_mean(output[0] if encoded is None else encoded, kwargs.get("attention_mask"))]

    def replace_input(_: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
        features: Tensor = dropout(means.pop())
        return (features if args[0].dim() == 2 else features[:, None].expand(-1, args[0].shape[1], -1),)

    backbone: nn.Module = view.base_model  # type: ignore[assignment]
    backbone.register_forward_hook(store_mean, with_kwargs=True)
    last.register_forward_pre_hook(replace_input)


def _mean(states: Tensor, mask: Tensor | None) -> Tensor:
    """Map ``(rows, tokens, width)`` to the float32 mean over the tokens inside the mask, ``(rows, width)``."""
    if mask is None:
        return states.float().mean(dim=1)
    weights = mask[:, :, None].to(states.device)
    return (states.float() * weights).sum(dim=1) / weights.sum(dim=1).clamp_min(1)


SPEC = MethodSpec(
    name="linear_probe",
    category=Category.SELECTIVE,
    reference="Alain & Bengio (2016), arXiv:1610.01644",
    params_type=LinearProbeParams,
    attach=attach,
    tasks=frozenset({"SEQ_CLS", "TOKEN_CLS"}),
    supports_merge=True,
)
