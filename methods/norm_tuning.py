"""The gains, and where there are some the shifts, of all layer norms train (Zhao et al., 2023, arXiv:2312.11420)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

from peft import LNTuningConfig
from peft.tuners.ln_tuning.layer import LNTuningLayer
from torch import nn

from methods.base import peft_adapter
from methods.base.architecture import chosen, pattern
from methods.base.spec import Attached, Category, Context, Hyperparameters, MethodError, MethodSpec
from methods.base.trainable import compute_in_float32


@dataclass(frozen=True, kw_only=True)
class NormTuningParams(Hyperparameters):
    """Parameters of norm tuning: a rate and what goes with it."""

    learning_rate: float = 1e-3


def attach(view: nn.Module, params: NormTuningParams, context: Context) -> Attached:
    """Put a trainable copy over every norm.

    Raises:
        MethodError: if the architecture has no norms with weights.
    """
    names = _norms(view, context)
    if not names:
        raise MethodError(f"{type(view).__name__} has no norms with weights, which are all that norm_tuning trains")
    config = LNTuningConfig(target_modules=pattern(names))
    with warnings.catch_warnings():  # peft asks every layer for its width and knows linear ones alone; nothing reads it
        warnings.filterwarnings("ignore", "Unsupported layer type .*Norm", UserWarning)
        attached = peft_adapter.attached(view, config, "norm_tuning", params, context, merges=True)
    for module in attached.module.modules():
        if isinstance(module, LNTuningLayer):
            compute_in_float32(module)
    return attached


def _norms(view: nn.Module, context: Context) -> list[str]:
    """Full names of the norms, known by their class: nearly every architecture has one of its own, named so."""
    norms = (name for name, module in view.named_modules() if "Norm" in type(module).__name__ and module._parameters)
    return chosen(view, norms, context)


SPEC = MethodSpec(
    name="norm_tuning",
    category=Category.SELECTIVE,
    reference="Zhao et al. (2023), arXiv:2312.11420",
    params_type=NormTuningParams,
    attach=attach,
    supports_merge=True,
    peft=True,
)
