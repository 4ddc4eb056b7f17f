"""Smaller versions of an architecture, which differ from it in sizes alone and train in milliseconds."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PretrainedConfig

WIDTH, POSITIONS, VOCABULARY = 128, 256, 512
Keys = tuple[str, ...]
DEPTHS = (2, 4, 6)
"""Numbers of layers to try: architectures that mix kinds of layers show all kinds within six."""

_DEPTH: Keys = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_decoder_layers")
_DEPTH += ("encoder_layers", "decoder_layers")
_WIDTH: Keys = (
    "hidden_size",
    "n_embd",
    "d_model",
    "dim",
    "embedding_size",
    "word_embed_proj_dim",
    "pooler_hidden_size",
)
_INNER: Keys = ("intermediate_size", "n_inner", "d_ff", "ffn_dim", "hidden_dim", "encoder_ffn_dim", "decoder_ffn_dim")
_INNER += ("moe_intermediate_size", "shared_expert_intermediate_size")
_HEADS: Keys = ("num_attention_heads", "n_head", "n_heads", "num_heads", "num_key_value_heads")
_HEADS += ("encoder_attention_heads", "decoder_attention_heads")
_HEAD_WIDTH: Keys = ("head_dim", "d_kv")
_POSITIONS = ("max_position_embeddings", "n_positions", "n_ctx")
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")
_ROTARY = ("long_factor", "short_factor")


def shallow(config: PretrainedConfig, depths: tuple[int, ...] = (1, *DEPTHS)) -> Iterator[PretrainedConfig]:
    """Yield the architecture with its own widths and few layers, the fewest first.

    Args:
        config: architecture, which stays unchanged.
        depths: numbers of layers to try.
    """
    for depth in depths:
        values = copy.deepcopy(config.to_dict())
        _cut_layers(values, depth)
        if (candidate := _config_from(config, values)) is not None:
            yield candidate


def shrunk(config: PretrainedConfig) -> Iterator[PretrainedConfig]:
    """Yield the architecture with small widths, few layers, a short vocabulary and context; the fewest layers first.

    Widths are divided by a power of two, so that their ratios stay whole numbers. The number of heads stays the same as
    long as heads are wide enough.

    Args:
        config: architecture, which stays unchanged.
    """
    for candidate in shallow(config, DEPTHS):
        values = candidate.to_dict()
        _narrow(values, candidate)
        _cap(values, _POSITIONS, POSITIONS)
        _cap(values, _EXPERTS, 4)
        _cut_vocabulary(values)
        if (small := _config_from(config, values)) is not None:
            yield small


def _config_from(config: PretrainedConfig, values: dict[str, Any]) -> PretrainedConfig | None:
    try:
        return type(config).from_dict(values)
    except Exception:  # each architecture validates in its own way; any error means that these sizes are invalid
        return None


def _cut_layers(values: dict[str, Any], depth: int) -> None:
    layers = max((values[key] for key in _DEPTH if isinstance(values.get(key), int)), default=0)
    indices = _layer_indices(values, layers, depth)
    _cap(values, _DEPTH, len(indices))
    for key, value in values.items():
        if isinstance(value, list) and len(value) == layers > len(indices):
            values[key] = [value[index] for index in indices]


def _layer_indices(values: dict[str, Any], layers: int, depth: int) -> list[int]:
    """Return the indices of the layers to keep: the first of every kind, filled up with the lowest."""
    kinds = values.get("layer_types") or []
    firsts = sorted({kinds.index(kind) for kind in kinds} if len(kinds) == layers else ())
    remaining = [index for index in range(layers) if index not in firsts]
    return sorted(firsts + remaining[: max(0, min(depth, layers) - len(firsts))])


def _narrow(values: dict[str, Any], config: PretrainedConfig) -> None:
    width = getattr(config, "hidden_size", 0)
    heads = getattr(config, "num_attention_heads", 0) or 1
    by_width, by_heads = _factors(width, getattr(config, "head_dim", None) or width // heads, values)
    for keys, factor in ((_WIDTH + _INNER, by_width), (_HEAD_WIDTH, by_width // by_heads), (_HEADS, by_heads)):
        for key in keys:
            if isinstance(values.get(key), int):
                values[key] = max(1, values[key] // factor)
    for rotary in (values.get("rope_parameters"), values.get("rope_scaling")):
        for key in _ROTARY:
            if isinstance(rotary, dict) and isinstance(rotary.get(key), list):
                rotary[key] = rotary[key][: max(1, len(rotary[key]) * by_heads // by_width)]


def _factors(width: int, head_width: int, values: dict[str, Any]) -> tuple[int, int]:
    """Return the divisor of widths, and the part of it that divides the number of heads and not their width."""
    by_width = by_heads = 1
    counts = [values[key] for key in _HEADS if isinstance(values.get(key), int)]
    while width // by_width > WIDTH and width % (2 * by_width) == 0:
        narrower = head_width * by_heads // by_width
        if narrower % 4 == 0 and narrower > 8:
            by_width *= 2
        elif all(count % (2 * by_heads) == 0 or count == 1 for count in counts):
            by_width, by_heads = 2 * by_width, 2 * by_heads
        else:
            break
    return by_width, by_heads


def _cut_vocabulary(values: dict[str, Any]) -> None:
    """Shorten the vocabulary; special tokens get low ids, different ones different ids."""
    _cap(values, ("vocab_size",), VOCABULARY)
    new_ids: dict[int, int] = {}
    for key in sorted(key for key in values if key.endswith("_token_id")):
        values[key] = _renumber(values[key], new_ids)


def _renumber(value: Any, new_ids: dict[int, int]) -> Any:
    if isinstance(value, list):
        return [_renumber(item, new_ids) for item in value]
    if not isinstance(value, int) or value < 0:
        return value
    return new_ids.setdefault(value, len(new_ids))


def _cap(values: dict[str, Any], keys: Keys, limit: int) -> None:
    for key in keys:
        if isinstance(values.get(key), int):
            values[key] = min(values[key], limit)
