"""Where any transformer keeps its blocks and, in each, attention and feed-forward: found by walking its modules."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from torch import nn
from transformers.pytorch_utils import Conv1D

from methods._base import MethodError

Role = Literal["query", "key", "value", "fused", "attention_output", "attention_other", "feed_forward"]

_ATTENTION = re.compile(r"attn|attention", re.IGNORECASE)
_ROLES: tuple[tuple[Role, re.Pattern[str]], ...] = (
    ("query", re.compile(r"q|query|q_proj|q_lin|query_proj|wq")),
    ("key", re.compile(r"k|key|k_proj|k_lin|key_proj|wk")),
    ("value", re.compile(r"v|value|v_proj|v_lin|value_proj|wv")),
    ("fused", re.compile(r"query_key_value|qkv|qkv_proj|c_attn|Wqkv|in_proj|W_pack")),
    ("attention_output", re.compile(r"o|o_proj|out_proj|out_lin|dense|c_proj|Wo|wo")),
)


@dataclass(frozen=True)
class Block:
    """One layer of a transformer.

    Args:
        name: its full name in the model.
        module: the block itself.
        linears: the full names of its linear layers, by role and in the model's order.
    """

    name: str
    module: nn.Module
    linears: dict[Role, tuple[str, ...]]

    @property
    def feed_forward_in(self) -> tuple[str, ...]:
        """The layers that widen the stream; a gated feed-forward has two."""
        return self.linears.get("feed_forward", ())[:-1]

    @property
    def feed_forward_out(self) -> tuple[str, ...]:
        """The layer that brings the feed-forward back to the stream's width: every architecture defines it last."""
        names = self.linears.get("feed_forward", ())
        return names[-1:] if len(names) > 1 else ()


def blocks(model: nn.Module) -> tuple[Block, ...]:
    """All blocks in the model's order, a decoder's after its encoder's.

    Raises:
        MethodError: if the model has none with attention in it.
    """
    found: list[Block] = []
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and not any(name.startswith(f"{block.name}.") for block in found):
            inside = [_block(f"{name}.{index}", item) for index, item in enumerate(module)]
            found += inside if any(set(block.linears) - {"feed_forward"} for block in inside) else []
    if not found:
        raise MethodError(f"no transformer blocks were found in {type(model).__name__}")
    return tuple(found)


def targets(model: nn.Module, roles: Iterable[Role]) -> list[str]:
    """Full names of the linear layers that play any of ``roles``.

    Raises:
        MethodError: if none does.
    """
    wanted = tuple(roles)
    names = [name for block in blocks(model) for role in wanted for name in block.linears.get(role, ())]
    if not names:
        raise MethodError(f"{type(model).__name__} has no linear layer for {', '.join(wanted)}")
    return names


def pattern(names: Iterable[str]) -> str:
    """A regular expression for these names, with the numbers of the blocks folded away."""
    return "|".join(sorted({re.sub(r"\\\.\d+\\\.", r"\\.\\d+\\.", re.escape(name)) for name in names}))


def _block(name: str, module: nn.Module) -> Block:
    linears: dict[Role, tuple[str, ...]] = {}
    for path, layer in module.named_modules():
        if isinstance(layer, (nn.Linear, Conv1D)):
            role = _role(path)
            linears[role] = (*linears.get(role, ()), f"{name}.{path}")
    return Block(name, module, linears)


def _role(path: str) -> Role:
    if not _ATTENTION.search(path):
        return "feed_forward"
    leaf = path.rpartition(".")[2]
    return next((role for role, known in _ROLES if known.fullmatch(leaf)), "attention_other")
