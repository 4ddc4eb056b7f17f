"""Additional key-value pairs in any attention that goes through transformers' attention interface.

Importing this module registers one attention function for each implementation that can be extended. A view whose
configuration names it behaves as before, except in modules with an attribute :data:`EXTENSION`.
"""

from __future__ import annotations

import inspect
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

from methods.base.spec import MethodError

EXTENSION = "learned_pairs"
"""Attribute of an attention module: a function that is called as ``extend(query, key, value)`` and returns longer keys
and values.

All three have shape ``(batch, heads, tokens, width)``, as the attention function receives them: rotary positions are
applied already, and keys and values have their own number of heads. The added pairs come first and are visible to
every query, with and without a sliding window.
"""

_NAMES = {original: f"learned_pairs_{original}" for original in ("sdpa", "eager")}


def extend_attention(view: nn.Module) -> None:
    """Let every attention of ``view`` that sdpa or eager attention computes use its module's extension.

    Raises:
        MethodError: if another implementation computes attention, which would ignore the extension.
    """
    for config in {id(c): c for module in view.modules() for c in _configs(module)}.values():
        chosen = config._attn_implementation
        if chosen is not None and chosen not in (*_NAMES, *_NAMES.values()):
            raise MethodError(f"{chosen} takes no additional keys; write backbone.attention: sdpa, or eager")
        config._attn_implementation = _NAMES.get(chosen, chosen)


def implementation(view: nn.Module) -> str:
    """Return the name of the attention function that a view is configured with, as users write it."""
    config = next(_configs(view))
    return str(config._attn_implementation).removeprefix("learned_pairs_")


Pairs = tuple[Tensor, Tensor]
"""Keys and values."""


@torch.no_grad()
def self_attention_pairs(view: nn.Module, modules: Iterable[nn.Module], inputs: Tensor) -> dict[nn.Module, Pairs]:
    """Return the keys and values of the self-attention modules among ``modules`` when the backbone reads ``inputs``.

    Args:
        view: view that :func:`extend_attention` was called with.
        modules: any modules; a forward pass shows which of them call the attention function.
        inputs: embeddings of one row, of shape ``(tokens, width)``. In an encoder-decoder, the decoder reads all but
            the last one, so that keys and queries differ in number in its cross-attention alone.

    Returns:
        keys and values, of shape ``(heads, tokens, width)``, by module.
    """
    pairs: dict[nn.Module, Pairs] = {}
    recorders = list(modules)
    for module in recorders:
        setattr(module, EXTENSION, partial(_record, pairs, module))
    try:
        _base(view)(**_rows(view, inputs))
    finally:
        for module in recorders:
            delattr(module, EXTENSION)
    return pairs


@contextmanager
def without_matmul(view: nn.Module) -> Iterator[None]:
    """Make packed linear layers return zeros inside the context: enough to learn shapes, at almost no cost."""
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
    """Compute the original attention, with the module's additional keys and values if it has an extension."""
    extend = getattr(module, EXTENSION, None)
    if extend is not None:
        if mask is None and original == "sdpa":
            mask = _causal_mask(module, query, key, options)
        length = key.shape[2]
        key, value = extend(query, key, value)
        added = key.shape[2] - length
        mask = _widen(mask, added)
        if options.get("position_bias") is not None:
            options["position_bias"] = _widen(options["position_bias"], added)
    modeling = _modeling(module)
    function = modeling.ALL_ATTENTION_FUNCTIONS.get_interface(original, modeling.eager_attention_forward)
    output: tuple[Tensor, Tensor | None] = function(module, query, key, value, mask, **options)
    return output


def _causal_mask(module: nn.Module, query: Tensor, key: Tensor, options: dict[str, Any]) -> Tensor | None:
    """Return the mask in place of sdpa's ``is_causal``, which counts keys from the left and would hide added ones."""
    flag = options.get("is_causal")
    causal = getattr(module, "is_causal", True) if flag is None else flag
    if not causal or query.shape[2] == 1:
        return None
    mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=key.device)
    return mask.tril()[None, None]


def _widen(mask: Tensor | None, added: int) -> Tensor | None:
    """Make ``added`` keys on the left visible to every query: true in a boolean mask, 0 in an additive one."""
    return None if mask is None else F.pad(mask, (added, 0), value=float(mask.dtype == torch.bool))


def _modeling(module: nn.Module) -> Any:
    """Return the modeling file of transformers that defines the module's class, or a base class of it."""
    files = (sys.modules[kind.__module__] for kind in type(module).__mro__)
    return next(file for file in files if hasattr(file, "eager_attention_forward"))


def _record(
    pairs: dict[nn.Module, Pairs], module: nn.Module, query: Tensor, key: Tensor, value: Tensor
) -> tuple[Tensor, Tensor]:
    if query.shape[2] == key.shape[2]:  # not cross-attention
        pairs[module] = (key[0], value[0])
    return key, value


def _base(view: nn.Module) -> nn.Module:
    """Return the backbone without its head."""
    bare = view.get_base_model() if isinstance(view, PeftModel) else view
    base: nn.Module = getattr(bare, getattr(bare, "base_model_prefix", ""), bare)
    return base


def _rows(view: nn.Module, inputs: Tensor) -> dict[str, Any]:
    rows: dict[str, Any] = {"inputs_embeds": inputs[None]}
    if "use_cache" in inspect.signature(_base(view).forward).parameters:
        # Without one, transformers looks for packed rows in the numbers of the positions, which a skeleton lacks.
        rows["use_cache"] = True
    if is_encoder_decoder(view):
        rows["decoder_inputs_embeds"] = inputs[None, :-1]
    return rows


def is_encoder_decoder(view: nn.Module) -> bool:
    """Return whether there is a decoder beside the encoder."""
    return any(config.is_encoder_decoder for config in _configs(view))


def _configs(module: nn.Module) -> Iterator[PreTrainedConfig]:
    config = getattr(module, "config", None)
    if isinstance(config, PreTrainedConfig):
        yield config


def _zeros(width: int, x: Tensor) -> Tensor:
    return x.new_zeros(*x.shape[:-1], width)


def _explicit_mask(make_mask: Callable[..., Tensor | None], *args: Any, **options: Any) -> Tensor | None:
    """Make a causal mask once for all layers, also where the original would rely on sdpa's ``is_causal``."""
    return make_mask(*args, **{**options, "allow_is_causal_skip": False})


for _original, _name in _NAMES.items():
    AttentionInterface.register(_name, partial(_attend, _original))
    AttentionMaskInterface.register(_name, partial(_explicit_mask, AttentionMaskInterface()[_original]))
