"""The mean of the last hidden states as the features that a head's last linear layer reads.

The head's other layers are unused then.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from methods.base.spec import Context, MethodError


def last_linear(view: nn.Module, context: Context) -> nn.Linear:
    """Return the layer of the head that computes the logits.

    Raises:
        MethodError: if a row has no features of its own to pool, or the layer reads features of another width than the
            hidden states'.
    """
    if context.task_type == "TOKEN_CLS":
        raise MethodError("pooling is 'mean', which would give all tokens of a row the same tag; it must be head here")
    if not context.head:
        raise MethodError(f"pooling is 'mean', but {type(view).__name__} has no head to read it; it must be head here")
    config: Any = view.config
    parts = [part for name in context.head for part in view.get_submodule(name).modules()]
    linears = [part for part in parts if isinstance(part, nn.Linear) and part.out_features == config.num_labels]
    width = config.get_text_config().hidden_size
    if not linears or linears[-1].in_features != width:
        reason = f"no linear layer from {width} features to {config.num_labels} classes"
        raise MethodError(f"pooling is 'mean', but the head of {type(view).__name__} has {reason}")
    return linears[-1]


def feed_mean(view: nn.Module, last: nn.Linear, dropout: nn.Module) -> None:
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
