"""The blocks of any transformer and, in each, its attention and feed-forward layers, recognized by their names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from torch import nn
from transformers.pytorch_utils import Conv1D

from methods.base.spec import Context, MethodError

Role = Literal["query", "key", "value", "fused", "attention_output", "attention_other", "feed_forward"]

_NUMBER = re.compile(r"(?<=\.)(\d+)(?=\.)")
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
        name: full name of the block in the model.
        module: the block itself.
        linears: full names of the block's linear layers, by role and in the model's order.
    """

    name: str
    module: nn.Module
    linears: dict[Role, tuple[str, ...]]

    @property
    def feed_forward_in(self) -> tuple[str, ...]:
        """The layers that widen the residual stream; a gated feed-forward has two."""
        return self.linears.get("feed_forward", ())[:-1]

    @property
    def feed_forward_out(self) -> tuple[str, ...]:
        """The layer that narrows back to the residual stream's width: every architecture defines it last."""
        names = self.linears.get("feed_forward", ())
        return names[-1:] if len(names) > 1 else ()


def blocks(model: nn.Module, layers: frozenset[int] | None = None) -> tuple[Block, ...]:
    """Return the blocks in the model's order, a decoder's after its encoder's.

    Args:
        model: any transformer.
        layers: positions of the blocks to return among all blocks, counted from 0; ``None`` for all.

    Raises:
        MethodError: if the model has no blocks with attention, or none at one of these positions.
    """
    every: list[Block] = []
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and not any(name.startswith(f"{block.name}.") for block in every):
            listed = [_block(f"{name}.{index}", item) for index, item in enumerate(module)]
            every += listed if any(set(block.linears) - {"feed_forward"} for block in listed) else []
    if not every:
        raise MethodError(f"no transformer blocks were found in {type(model).__name__}")
    if layers is None:
        return tuple(every)
    if not layers or not layers <= set(range(len(every))):
        listing = ", ".join(map(str, sorted(layers))) or "empty"
        raise MethodError(f"layers is {listing}; {type(model).__name__} has 0 to {len(every) - 1}")
    return tuple(block for index, block in enumerate(every) if index in layers)


def targets(model: nn.Module, roles: Iterable[Role], layers: frozenset[int] | None = None) -> list[str]:
    """Return the full names of the linear layers that have one of ``roles``, in all blocks or in those of ``layers``.

    Raises:
        MethodError: if the model has no such layer.
    """
    roles = tuple(roles)
    names = [name for block in blocks(model, layers) for role in roles for name in block.linears.get(role, ())]
    if not names:
        raise MethodError(f"{type(model).__name__} has no linear layer for {', '.join(roles)}")
    return names


def names_in_scope(model: nn.Module, names: Iterable[str], context: Context) -> list[str]:
    """Return the ``names`` outside the head and, where the context limits the layers, inside those blocks.

    Raises:
        MethodError: if the model lacks one of the context's layers.
    """
    outside_head = [name for name in names if not _is_inside(name, context.head)]
    if context.layers is None:
        return outside_head
    scope = [block.name for block in blocks(model, context.layers)]
    return [name for name in outside_head if _is_inside(name, scope)]


def name_pattern(names: Iterable[str]) -> str:
    """Return a regular expression that matches exactly these names; names that differ in a number share a branch."""
    numbers_by_frame: dict[tuple[str, str], list[str]] = {}
    for name in dict.fromkeys(names):
        before, *rest = _NUMBER.split(name, maxsplit=1)
        number, after = rest or ("", "")
        numbers_by_frame.setdefault((before, after), []).append(number)
    branches = (
        re.escape(before) + _alternatives(numbers) + re.escape(after)
        for (before, after), numbers in numbers_by_frame.items()
    )
    return "|".join(sorted(branches))


def innermost(module: nn.Module) -> nn.Module:
    """Return the backbone's own module inside the wrappers that methods put around it, each as ``base_layer``."""
    while "base_layer" in module._modules:
        module = module.get_submodule("base_layer")
    return module


def _is_inside(name: str, modules: Iterable[str]) -> bool:
    return any(f"{name}.".startswith(f"{module}.") for module in modules)


def _alternatives(numbers: list[str]) -> str:
    return numbers[0] if len(numbers) == 1 else f"({'|'.join(numbers)})"


def _block(name: str, module: nn.Module) -> Block:
    linears: dict[Role, tuple[str, ...]] = {}
    for path in _linear_paths(module, ""):
        role = _role(path)
        linears[role] = (*linears.get(role, ()), f"{name}.{path}")
    return Block(name, module, linears)


def _linear_paths(module: nn.Module, prefix: str) -> Iterator[str]:
    """Yield the paths of the backbone's own linear layers; a layer that a method has wrapped keeps its path."""
    for name, child in module.named_children():
        if name != "base_layer" and innermost(module) is not module:
            continue  # a layer that a method added beside the wrapped one
        if isinstance(innermost(child), (nn.Linear, Conv1D)):
            yield f"{prefix}{name}"
        else:
            yield from _linear_paths(child, f"{prefix}{name}.")


def _role(path: str) -> Role:
    if not _ATTENTION.search(path):
        return "feed_forward"
    leaf = path.rpartition(".")[2]
    return next((role for role, leaf_pattern in _ROLES if leaf_pattern.fullmatch(leaf)), "attention_other")
