"""Where any transformer keeps its blocks and, in each, attention and feed-forward: found by walking its modules."""

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


def blocks(model: nn.Module, layers: frozenset[int] | None = None) -> tuple[Block, ...]:
    """The blocks in the model's order, a decoder's after its encoder's.

    Args:
        model: any transformer.
        layers: which of all its blocks, counted from 0; ``None`` for all.

    Raises:
        MethodError: if the model has none with attention in it, or has no such layers.
    """
    found: list[Block] = []
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and not any(name.startswith(f"{block.name}.") for block in found):
            inside = [_block(f"{name}.{index}", item) for index, item in enumerate(module)]
            found += inside if any(set(block.linears) - {"feed_forward"} for block in inside) else []
    if not found:
        raise MethodError(f"no transformer blocks were found in {type(model).__name__}")
    if layers is None:
        return tuple(found)
    if not layers or not layers <= set(range(len(found))):
        asked = ", ".join(map(str, sorted(layers))) or "empty"
        raise MethodError(f"layers is {asked}; {type(model).__name__} has 0 to {len(found) - 1}")
    return tuple(block for index, block in enumerate(found) if index in layers)


def targets(model: nn.Module, roles: Iterable[Role], layers: frozenset[int] | None = None) -> list[str]:
    """Full names of the linear layers that play any of ``roles``, in all blocks or in those of ``layers``.

    Raises:
        MethodError: if none does.
    """
    wanted = tuple(roles)
    names = [name for block in blocks(model, layers) for role in wanted for name in block.linears.get(role, ())]
    if not names:
        raise MethodError(f"{type(model).__name__} has no linear layer for {', '.join(wanted)}")
    return names


def chosen(model: nn.Module, names: Iterable[str], context: Context) -> list[str]:
    """Those of ``names`` that stand outside the head and, where the context chooses layers, within them.

    Raises:
        MethodError: if the model has no such layers.
    """
    outside = [name for name in names if not _within(name, context.head)]
    if context.layers is None:
        return outside
    within = [block.name for block in blocks(model, context.layers)]
    return [name for name in outside if _within(name, within)]


def pattern(names: Iterable[str]) -> str:
    """A regular expression for these names and no others; those that differ in their block's number share a part."""
    alike: dict[tuple[str, str], list[str]] = {}
    for name in dict.fromkeys(names):
        before, *rest = _NUMBER.split(name, maxsplit=1)
        number, after = rest or ("", "")
        alike.setdefault((before, after), []).append(number)
    parts = (re.escape(before) + _either(numbers) + re.escape(after) for (before, after), numbers in alike.items())
    return "|".join(sorted(parts))


def _within(name: str, modules: Iterable[str]) -> bool:
    return any(f"{name}.".startswith(f"{module}.") for module in modules)


def _either(numbers: list[str]) -> str:
    return numbers[0] if len(numbers) == 1 else f"({'|'.join(numbers)})"


def innermost(module: nn.Module) -> nn.Module:
    """The backbone's own module inside whatever methods have wrapped around it, as ``base_layer`` each."""
    while "base_layer" in module._modules:
        module = module.get_submodule("base_layer")
    return module


def _block(name: str, module: nn.Module) -> Block:
    linears: dict[Role, tuple[str, ...]] = {}
    for path in _linears(module, ""):
        role = _role(path)
        linears[role] = (*linears.get(role, ()), f"{name}.{path}")
    return Block(name, module, linears)


def _linears(module: nn.Module, inside: str) -> Iterator[str]:
    """Paths of the backbone's own linear layers; one that a method has wrapped keeps its path."""
    for name, child in module.named_children():
        if name != "base_layer" and innermost(module) is not module:
            continue  # a method's own layers, beside what it has wrapped
        if isinstance(innermost(child), (nn.Linear, Conv1D)):
            yield f"{inside}{name}"
        else:
            yield from _linears(child, f"{inside}{name}.")


def _role(path: str) -> Role:
    if not _ATTENTION.search(path):
        return "feed_forward"
    leaf = path.rpartition(".")[2]
    return next((role for role, known in _ROLES if known.fullmatch(leaf)), "attention_other")
