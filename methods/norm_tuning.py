"""Training of the gains, and where present the shifts, of all layer norms (Zhao et al., 2023, arXiv:2312.11420)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

from peft import LNTuningConfig
from peft.tuners.ln_tuning.layer import LNTuningLayer
from torch import nn

from methods.base import peft_adapter
from methods.base.architecture import name_pattern, names_in_scope
from methods.base.spec import Attached, Category, Context, Hyperparameters, MethodError, MethodSpec
from methods.base.trainable import compute_in_float32


@dataclass(frozen=True, kw_only=True)
class NormTuningParams(Hyperparameters):
    """Parameters of norm tuning: those of every method."""

    learning_rate: float = 1e-3


def attach(view: nn.Module, params: NormTuningParams, context: Context) -> Attached:
    """Put a trainable copy over every norm.

    Raises:
        MethodError: if the architecture has no norms with weights.
    """
    names = _norms(view, context)
    if not names:
        raise MethodError(f"{type(view).__name__} has no norms with weights, which are all that norm_tuning trains")
    config = LNTuningConfig(target_modules=name_pattern(names))
    with warnings.catch_warnings():  # peft knows the width of linear layers alone, and does not use it for norms
        warnings.filterwarnings("ignore", "Unsupported layer type .*Norm", UserWarning)
        attached = peft_adapter.attach(view, config, "norm_tuning", params, context, merges=True)
    for module in attached.module.modules():
        if isinstance(module, LNTuningLayer):
            compute_in_float32(module)
    return attached


def _norms(view: nn.Module, context: Context) -> list[str]:
    """Return the full names of the norms, which are recognized by the name of their class."""
    norms = (name for name, module in view.named_modules() if "Norm" in type(module).__name__ and module._parameters)
    return names_in_scope(view, norms, context)


SPEC = MethodSpec(
    name="norm_tuning",
    category=Category.SELECTIVE,
    reference="Zhao et al. (2023), arXiv:2312.11420",
    params_type=NormTuningParams,
    attach=attach,
    supports_merge=True,
    peft=True,
)
