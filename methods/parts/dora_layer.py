"""DoRA's forward pass over a frozen layer, without building the updated weight.

`peft` builds ``W + s B A`` and its row norms in every pass, and with dropout keeps an unpacked ``W`` for the backward
pass. The norms need neither, since for each row ``|w + s b A|^2 = |w|^2 + 2 s b . (A w) + s^2 b (A A^T) b``. The first
term never changes, and the others change with an optimizer step alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from peft.tuners.lora import Linear
from peft.tuners.lora.variants import DoraLinearVariant
from torch import Tensor, nn

MIN_SQUARED_NORM = 1e-12  # keeps the root's argument positive where rounding makes a zero row's sum negative


class FrozenDora(DoraLinearVariant):
    """DoRA's forward pass of one layer, in place of `peft`'s; `peft` merges."""

    def __init__(self) -> None:
        self._weight_squares: Tensor | None = None
        self._cached_norms: tuple[tuple[int, int], Tensor] | None = None

    def forward(self, module: Linear, active_adapter: str, x: Tensor, result: Tensor, **_: Any) -> Tensor:
        """Return the layer's output for ``x`` of shape ``(..., in)``; ``result`` is its frozen part's output.

        With an active dropout the update alone sees dropped inputs at their own scale, so the frozen part is multiplied
        a second time, as `peft` does.
        """
        base, dropout = module.get_base_layer(), module.lora_dropout[active_adapter]
        frozen_output = result
        if module.training and not isinstance(dropout, nn.Identity):
            x = dropout(x)
            frozen_output = base(x)
        if base.bias is not None:
            frozen_output = frozen_output - base.bias.to(frozen_output.dtype)
        ratio = self.ratio(module, active_adapter)
        update = module.lora_B[active_adapter](module.lora_A[active_adapter](x)) * module.scaling[active_adapter]
        output: Tensor = result + (ratio - 1) * frozen_output + ratio * update
        return output

    def ratio(self, module: Linear, adapter: str) -> Tensor:
        """Return ``m / |W + s B A|``, shape ``(out,)``, by which each output of ``W + s B A`` is multiplied."""
        magnitude: Tensor = module.lora_magnitude_vector[adapter].weight
        return magnitude / self._row_norms(module, adapter)

    @torch.no_grad()
    def _row_norms(self, module: Linear, adapter: str) -> Tensor:
        """Return the row norms of the updated weight, shape ``(out,)``."""
        norms = self._known_norms(module, adapter)
        return self._keep_norms(module, adapter, self._compute_row_norms(module, adapter)) if norms is None else norms

    def _known_norms(self, module: Linear, adapter: str) -> Tensor | None:
        """Return the norms if they are known, which they may be in evaluation mode.

        In training mode they are computed in every pass: an optimizer that writes to ``parameter.data`` leaves the
        version counters unchanged.
        """
        cached = self._cached_norms
        if module.training or cached is None or cached[0] != _versions(module, adapter):
            return None
        return cached[1]

    def _keep_norms(self, module: Linear, adapter: str, norms: Tensor) -> Tensor:
        self._cached_norms = None if module.training else (_versions(module, adapter), norms)
        return norms

    def _compute_row_norms(self, module: Linear, adapter: str) -> Tensor:
        a, b, scale = module.lora_A[adapter].weight, module.lora_B[adapter].weight, module.scaling[adapter]
        by_weight, weight_squares = self._products(module, a)
        by_b = torch.addmm(by_weight, b, a @ a.T, beta=2 * scale, alpha=scale * scale)
        return _root(weight_squares + (by_b * b).sum(dim=1))

    def _products(self, module: Linear, a: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``W A^T`` of shape ``(out, rank)`` and the squared row norms of ``W``, ``(out,)``."""
        weight = module.get_base_layer().weight.to(a.dtype)
        if self._weight_squares is None:
            self._weight_squares = weight.square().sum(dim=1)
        return weight @ a.T, self._weight_squares

    @classmethod
    @torch.no_grad()
    def norms_of_all(cls, layers: Sequence[tuple[Linear, str, FrozenDora]]) -> list[Tensor]:
        """Return the row norms of several layers, each of shape ``(out,)``, in few calls for layers of one shape.

        Args:
            layers: layers, each with the name of its adapter and its variant.
        """
        norms = [dora._known_norms(module, adapter) for module, adapter, dora in layers]
        by_shape: dict[tuple[Any, ...], list[int]] = defaultdict(list)
        for k, (module, adapter, _) in enumerate(layers):
            if norms[k] is None:
                a, b = module.lora_A[adapter].weight, module.lora_B[adapter].weight
                by_shape[a.shape, b.shape, a.dtype, a.device].append(k)
        for members in by_shape.values():
            for k, computed in zip(members, _norms_of_one_shape([layers[k] for k in members]), strict=True):
                norms[k] = layers[k][2]._keep_norms(*layers[k][:2], computed)
        return [each for each in norms if each is not None]


@dataclass(frozen=True)
class DoraScales:
    """What the outputs of stacked layers are multiplied with, before the magnitudes are known.

    Args:
        inverse_norms: one over the row norms of the updated weights, shape ``(layers, out)``; 1 without DoRA.
        plain: 1 for a layer without DoRA, else 0, shape ``(layers, 1)``.
    """

    inverse_norms: Tensor
    plain: Tensor

    def ratio(self, magnitudes: Tensor) -> Tensor:
        """Return the factor of each output, shape ``(layers, out)``.

        Args:
            magnitudes: shape ``(layers, out)``; 0 for a layer without DoRA.
        """
        return torch.addcmul(self.plain, magnitudes, self.inverse_norms)


@torch.no_grad()
def dora_scales(groups: Sequence[Sequence[tuple[Linear, str, FrozenDora | None]]]) -> list[DoraScales | None]:
    """Return the scales of each group of stacked layers; ``None`` where none has DoRA.

    Args:
        groups: layers, each with the name of its adapter and its variant.
    """
    with_dora = [(module, adapter, dora) for layers in groups for module, adapter, dora in layers if dora]
    norms = dict(zip((id(module) for module, *_ in with_dora), FrozenDora.norms_of_all(with_dora), strict=True))
    alike: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for k, layers in enumerate(groups):
        if any(dora for *_, dora in layers):
            module, adapter, _ = layers[0]
            a = module.lora_A[adapter].weight
            flags = tuple(dora is None for *_, dora in layers)
            alike[flags, module.out_features, a.dtype, a.device].append(k)
    scales: list[DoraScales | None] = [None] * len(groups)
    for (flags, out, dtype, device), members in alike.items():
        ones = torch.ones(out, dtype=dtype, device=device)
        rows = torch.stack([norms.get(id(module), ones) for k in members for module, *_ in groups[k]])
        inverse = rows.reciprocal_().view(len(members), len(flags), out).unbind(0)
        for k, own in zip(members, inverse, strict=True):
            scales[k] = DoraScales(own, _column(flags, dtype, device))
    return scales


def _norms_of_one_shape(layers: Sequence[tuple[Linear, str, FrozenDora]]) -> tuple[Tensor, ...]:
    products, squares = zip(*(d._products(m, m.lora_A[name].weight) for m, name, d in layers), strict=True)
    a = torch.stack([module.lora_A[name].weight for module, name, _ in layers])
    factors = [module.lora_B[name].weight for module, name, _ in layers]
    b = torch.stack(torch._foreach_mul(factors, [module.scaling[name] for module, name, _ in layers]))
    by_b = torch.baddbmm(torch.stack(products), b, a @ a.mT, beta=2)
    return _root(torch.stack(squares) + (by_b * b).sum(dim=2)).unbind(0)


def _root(squares: Tensor) -> Tensor:
    return squares.clamp_min_(MIN_SQUARED_NORM).sqrt_()


def _versions(module: Linear, adapter: str) -> tuple[int, int]:
    return module.lora_A[adapter].weight._version, module.lora_B[adapter].weight._version


@lru_cache(maxsize=64)
def _column(flags: tuple[bool, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(flags, dtype=dtype, device=device).unsqueeze(1)
