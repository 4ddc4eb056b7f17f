"""Key-value pairs of a method's own inside any attention that goes through transformers' attention interface.

Importing this registers one attention function per implementation that can be extended. A view whose configuration
names it behaves as before, except in the modules that carry something under :data:`EXTENSION`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedConfig

EXTENSION = "learned_pairs"
"""An attention module's attribute: called as ``extend(query, key, value)``, it returns longer keys and values.

All three have shape ``(batch, heads, tokens, width)``, as the attention function gets them: positions are in them
already, and keys and values have their own number of heads. What is added stands before the rest and is visible to
every query, sliding window or not.
"""

_NAMES = {original: f"learned_pairs_{original}" for original in ("sdpa", "eager")}


def extend_attention(view: nn.Module) -> None:
    """Let every attention of ``view`` that is computed by sdpa or eager look for an extension."""
    for config in {id(c): c for module in view.modules() for c in _configs(module)}.values():
        config._attn_implementation = _NAMES.get(config._attn_implementation, config._attn_implementation)


def implementation(view: nn.Module) -> str:
    """The attention function that a view is configured with, by the name that users know."""
    config = next(_configs(view))
    return str(config._attn_implementation).removeprefix("learned_pairs_")


Pairs = tuple[Tensor, Tensor]
"""Keys and values."""


@torch.no_grad()
def self_attentions(view: nn.Module, inside: Iterable[nn.Module], inputs: Tensor) -> dict[nn.Module, Pairs]:
    """What the self-attention modules among ``inside`` attend to when the bare backbone reads ``inputs``.

    Args:
        view: one that :func:`extend_attention` was called with.
        inside: any modules; those that reach the attention function are found by running it.
        inputs: embeddings of one row, of shape ``(tokens, width)``. Where :func:`reads_twice` holds, the decoder
            reads all but the last, by which its cross-attention is told from its self-attention.

    Returns:
        keys and values, of shape ``(heads, tokens, width)``, by module.
    """
    found: dict[nn.Module, Pairs] = {}
    listeners = list(inside)
    for module in listeners:
        setattr(module, EXTENSION, partial(_listen, found, module))
    try:
        _base(view)(**_rows(view, inputs))
    finally:
        for module in listeners:
            delattr(module, EXTENSION)
    return found


@contextmanager
def without_products(view: nn.Module) -> Iterator[None]:
    """While inside, packed linear layers answer zeros of the right shape: enough to learn shapes, and nearly free."""
    packed = [m for m in view.modules() if isinstance(m, nn.Linear) and "weight" not in m._parameters]
    for layer in packed:
        layer.forward = partial(_zeros, layer.out_features)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for layer in packed:
            del layer.forward


def _attend(
    original: str, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any
) -> tuple[Tensor, Tensor | None]:
    """An attention function of transformers: the original one, with more keys and values where there are some."""
    extend = getattr(module, EXTENSION, None)
    if extend is not None:
        if mask is None and original == "sdpa":
            mask = _causal(module, query, key, options)
        before = key.shape[2]
        key, value = extend(query, key, value)
        more = key.shape[2] - before
        mask = _widen(mask, more)
        if options.get("position_bias") is not None:
            options["position_bias"] = _widen(options["position_bias"], more)
    modeling = _modeling(module)
    function = modeling.ALL_ATTENTION_FUNCTIONS.get_interface(original, modeling.eager_attention_forward)
    output: tuple[Tensor, Tensor | None] = function(module, query, key, value, mask, **options)
    return output


def _causal(module: nn.Module, query: Tensor, key: Tensor, options: dict[str, Any]) -> Tensor | None:
    """The mask that sdpa leaves to a flag, which counts keys from the left and so would hide what is put there."""
    flag = options.get("is_causal")
    causal = getattr(module, "is_causal", True) if flag is None else flag
    if not causal or query.shape[2] == 1:
        return None
    mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=key.device)
    return mask.tril()[None, None]


def _widen(mask: Tensor | None, more: int) -> Tensor | None:
    """Show ``more`` keys on the left to every query: true in a mask of booleans, 0 in one that is added."""
    return None if mask is None else F.pad(mask, (more, 0), value=float(mask.dtype == torch.bool))


def _modeling(module: nn.Module) -> Any:
    """The file of transformers that a module's class is from, or the class that it derives from."""
    files = (sys.modules[kind.__module__] for kind in type(module).__mro__)
    return next(file for file in files if hasattr(file, "eager_attention_forward"))


def _listen(
    found: dict[nn.Module, Pairs], module: nn.Module, query: Tensor, key: Tensor, value: Tensor
) -> tuple[Tensor, Tensor]:
    if query.shape[2] == key.shape[2]:
        found[module] = (key[0], value[0])
    return key, value


def _base(view: nn.Module) -> nn.Module:
    """The backbone without its head."""
    bare = view.get_base_model() if isinstance(view, PeftModel) else view
    base: nn.Module = getattr(bare, getattr(bare, "base_model_prefix", ""), bare)
    return base


def _rows(view: nn.Module, inputs: Tensor) -> dict[str, Tensor]:
    rows = {"inputs_embeds": inputs[None]}
    if reads_twice(view):
        rows["decoder_inputs_embeds"] = inputs[None, :-1]
    return rows


def reads_twice(view: nn.Module) -> bool:
    """Whether there is a decoder beside the encoder."""
    return any(config.is_encoder_decoder for config in _configs(view))


def _configs(module: nn.Module) -> Iterator[PreTrainedConfig]:
    config = getattr(module, "config", None)
    if isinstance(config, PreTrainedConfig):
        yield config


def _zeros(width: int, x: Tensor) -> Tensor:
    return x.new_zeros(*x.shape[:-1], width)


def _whole_mask(make: Callable[..., Tensor | None], *args: Any, **options: Any) -> Tensor | None:
    """A causal mask made once for all layers, where the original would leave it to sdpa's flag if it can."""
    return make(*args, **{**options, "allow_is_causal_skip": False})


for _original, _name in _NAMES.items():
    AttentionInterface.register(_name, partial(_attend, _original))
    AttentionMaskInterface.register(_name, partial(_whole_mask, AttentionMaskInterface()[_original]))
