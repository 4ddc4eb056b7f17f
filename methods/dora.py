"""Magnitude and direction trained separately: ``m (W + s B A) / |W + s B A|`` (Liu et al., 2024, arXiv:2402.09353).

``m``, of shape ``(out,)``, starts as the norm of each row of ``W`` and trains beside ``A`` and ``B``. The norm in the
denominator follows them without a gradient, as the paper proposes.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from methods.base.peft_adapter import ADAPTER
from methods.base.spec import Attached, Category, Context, MethodSpec
from methods.parts import low_rank
from methods.parts.dora_layer import FrozenDora
from methods.parts.low_rank import TargetedParams, updated_layers


@dataclass(frozen=True, kw_only=True)
class DoraParams(TargetedParams):
    """Parameters of DoRA: those of a low-rank update of some layers."""


def attach(view: nn.Module, params: DoraParams, context: Context) -> Attached:
    """Put a magnitude and a low-rank update beside every target."""
    attached = low_rank.attach(view, params.targets, "dora", params, context, use_dora=True)
    for _, layer in updated_layers(attached.module):
        layer.lora_variant[ADAPTER] = FrozenDora()
    return attached


SPEC = MethodSpec(
    name="dora",
    category=Category.REPARAMETERIZATION,
    reference="Liu et al. (2024), arXiv:2402.09353",
    params_type=DoraParams,
    attach=attach,
    supports_merge=True,
    peft=True,
)
