"""Training of the biases and the head alone (Ben Zaken et al., 2022, arXiv:2106.10199).

``y = W x + b`` with a frozen ``W`` and a trainable float32 copy of ``b``; about 0.1 % of an encoder's parameters.
Architectures without biases cannot be trained this way.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from methods.base.architecture import blocks, names_in_scope
from methods.base.spec import Attached, Category, Context, Hyperparameters, MethodError, MethodSpec
from methods.base.trainable import attached, compute_in_float32, train_head


@dataclass(frozen=True, kw_only=True)
class BitFitParams(Hyperparameters):
    """Parameters of BitFit.

    Args:
        biases: ``all``, norms included, or ``query_mlp``, the biases of queries and of the feed-forward's first layer,
            which change most in the paper.
    """

    learning_rate: float = 1e-3
    biases: Literal["all", "query_mlp"] = "all"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.biases in ("all", "query_mlp"), "biases", "all or query_mlp")


def attach(view: nn.Module, params: BitFitParams, context: Context) -> Attached:
    """Replace the biases by trainable copies, and let the head train.

    Raises:
        MethodError: if the architecture has no such biases.
    """
    names = _all_biases(view, context)
    if not names:
        raise MethodError(f"{type(view).__name__} has no biases, which are all that bitfit trains")
    _train_copies(view, names if params.biases == "all" else _query_mlp_biases(view, context))
    heads = train_head(view, context)
    active = [part for head in heads for part in head.modules()]
    return attached(view, "bitfit", params, context, active=active, merge=lambda: view)


def _all_biases(view: nn.Module, context: Context) -> list[str]:
    parameters = (name for name, _ in view.named_parameters(remove_duplicate=False))
    return names_in_scope(view, (name for name in parameters if name.endswith("bias")), context)


def _query_mlp_biases(view: nn.Module, context: Context) -> list[str]:
    view_blocks = blocks(view, context.layers)
    layers = [name for block in view_blocks for name in (*block.linears.get("query", ()), *block.feed_forward_in)]
    names = [f"{name}.bias" for name in layers if view.get_submodule(name).bias is not None]
    if not names or not any("query" in block.linears for block in view_blocks):
        raise MethodError(f"{type(view).__name__} has no such layers with biases of their own; biases must be all")
    return names


def _train_copies(view: nn.Module, names: Iterable[str]) -> None:
    """Replace biases by trainable float32 copies; a bias that several modules share stays shared."""
    copies: dict[nn.Parameter, nn.Parameter] = {}
    for name in names:
        owner, _, key = name.rpartition(".")
        module = view.get_submodule(owner)
        bias: nn.Parameter = getattr(module, key)
        if bias not in copies:
            copies[bias] = nn.Parameter(bias.detach().to(torch.float32, copy=True))
        _widen(module, bias)
        setattr(module, key, copies[bias])


def _widen(module: nn.Module, bias: nn.Parameter) -> None:
    """Bring a small module to float32 as a whole; a packed layer adds its bias after its matrix product."""
    packed = isinstance(module, nn.Linear) and "weight" not in module._parameters
    if bias.dtype == torch.float32 or packed:
        return
    for key, parameter in list(module.named_parameters(recurse=False)):
        setattr(module, key, nn.Parameter(parameter.detach().float(), requires_grad=parameter.requires_grad))
    compute_in_float32(module)


SPEC = MethodSpec(
    name="bitfit",
    category=Category.SELECTIVE,
    reference="Ben Zaken et al. (2022), arXiv:2106.10199",
    params_type=BitFitParams,
    attach=attach,
    supports_merge=True,
)
