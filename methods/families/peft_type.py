"""Methods ``peft:TYPE``: every type of the installed `peft` that trains from scratch on one task."""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from peft import PeftConfig, PeftModel, PeftType
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.tuners_utils import BaseTuner
from torch import nn

from methods.base import peft_adapter
from methods.base.architecture import innermost, name_pattern, targets
from methods.base.spec import Attached, Category, Context, MethodError, MethodSpec
from methods.families.peft_type_names import refused, trainable_types, types
from methods.families.peft_type_params import PeftTypeParams, config_class, has_targets, params_type
from methods.families.peft_type_sizes import fit_sizes, layer_shape
from methods.parts.low_rank import TARGETS
from methods.parts.soft_prompt import (
    derive_peft_position_ids_from_mask,
    require_cache,
    require_positions,
    require_virtual_tokens,
)

__all__ = ["attach", "refused", "spec", "trainable_types", "types"]

# types whose fresh adapters change the backbone's output, with the reason
_NO_IDENTITY = {
    "c3a": "draws its circulant kernels",
    "cartridge": "draws its key-value pairs",
    "frod": "rebuilds each weight from a shared basis, with rounding",
    "unilora": "draws its vector",
    "vblora": "draws its bank of vectors",
}
# types that are not merged, with the reason
_NO_MERGE = {
    "beft": "needs a bias in every layer to merge into",
    "randlora": "sums a base of full rank times a large scale, and loses three digits on T5 when that is done once",
}
_EXPECTED_WARNINGS = (
    "Detected that the base layer has no bias term",  # beft, which is not merged
    "Failed to load the CUDA extension",  # boft, which then computes the same in torch
    "Setting boft_n_butterfly_factor to 1 to speed up",
)
# types that cluster, rebuild or select the entries of weights, so that the shapes of the adapter depend on the numbers
_SHAPES_NEED_NUMBERS = frozenset({"adamss", "frod", "shira"})
_SELECTIVE = frozenset({"beft", "shira", "supertuning"})
_PAPER = re.compile(r"(?:arxiv\.org/(?:abs|pdf)/|huggingface\.co/papers/|arxiv:\s*)(\d{4}\.\d{4,5})", re.IGNORECASE)


def spec(member: str) -> MethodSpec[PeftTypeParams]:
    """Return the method of a type.

    Args:
        member: name of the type in lower case, as in ``boft``.

    Raises:
        KeyError: if the installed `peft` has no such type.
        MethodError: if the type is refused, or not implemented by the installed `peft`.
    """
    if member not in types():
        raise KeyError(f"peft:{member}")
    if member in refused():
        raise MethodError(f"peft:{member} {refused()[member]}")
    if PeftType(member.upper()) not in PEFT_TYPE_TO_CONFIG_MAPPING:
        raise MethodError(f"peft:{member} is declared by the installed peft and not implemented in it")
    return MethodSpec(
        name=f"peft:{member}",
        category=_category(member),
        reference=_reference(member),
        params_type=params_type(member),
        attach=attach,
        starts_as_identity=member not in _NO_IDENTITY,
        supports_merge=_merges(member),
        peft=True,
    )


def attach(view: nn.Module, params: PeftTypeParams, context: Context) -> Attached:
    """Put the adapter of a type into its target layers.

    Raises:
        MethodError: if `peft` refuses the architecture.
    """
    config = _config(view, params, context)
    method = f"peft:{params.kind}"
    with _without_expected_warnings():
        try:
            attached = peft_adapter.attach(
                view,
                config,
                method,
                params,
                context,
                merges=_merges(params.kind),
                shapes_need_numbers=params.kind in _SHAPES_NEED_NUMBERS,
            )
        except (TypeError, IndexError, RuntimeError, ImportError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise MethodError(f"peft cannot attach {method} to {type(view).__name__}: {reason}") from error
    model: PeftModel = attached.module
    if config.is_prompt_learning:
        derive_peft_position_ids_from_mask(model)
    return replace(attached, on_step=_schedule(model))


def _config(view: nn.Module, params: PeftTypeParams, context: Context) -> PeftConfig:
    if not has_targets(params.kind):
        _require_prefix_support(view, params, context)
        return params.config()
    names = targets(view, TARGETS[params.to_dict()["targets"]], context.layers)
    sizes = fit_sizes(params, {layer_shape(innermost(view.get_submodule(name))) for name in names})
    return params.config(**sizes, target_modules=name_pattern(names))


def _require_prefix_support(view: nn.Module, params: PeftTypeParams, context: Context) -> None:
    """Raise the one-line error of an architecture that takes no virtual tokens or too few."""
    require_virtual_tokens(view)
    require_cache(view)
    require_positions(view, params.to_dict()["num_virtual_tokens"], context)
    if context.layers is not None:
        raise MethodError(f"peft:{params.kind} sits in every block; deep_prompt can be given some of them")


@contextmanager
def _without_expected_warnings() -> Iterator[None]:
    """Suppress warnings of `peft` about things that are intended here."""
    # frod's matrices are sparse, and torch warns unless checking them is switched on or off explicitly
    torch.sparse.check_sparse_tensor_invariants.disable()
    with warnings.catch_warnings():
        for message in _EXPECTED_WARNINGS:
            warnings.filterwarnings("ignore", message)
        yield


def _schedule(model: PeftModel) -> Callable[[int, int], None] | None:
    """Return the function that `peft` expects to be called after each step, where the type has one."""
    update: Callable[[int], None] | None = getattr(model.base_model, "update_and_allocate", None)
    return update and (lambda step, total: update(step))


def _tuner(kind: str) -> Any:
    return PEFT_TYPE_TO_TUNER_MAPPING[PeftType(kind.upper())]


def _merges(kind: str) -> bool:
    return issubclass(_tuner(kind), BaseTuner) and kind not in _NO_MERGE


def _category(kind: str) -> Category:
    if not issubclass(_tuner(kind), BaseTuner):
        return Category.SOFT_PROMPT
    return Category.SELECTIVE if kind in _SELECTIVE else Category.REPARAMETERIZATION


def _reference(kind: str) -> str:
    """Return the paper that `peft`'s documentation of a type names, or a reference to that documentation."""
    documented = [config_class(kind), _tuner(kind), inspect.getmodule(_tuner(kind))]
    text = " ".join(inspect.getdoc(part) or "" for part in documented)
    paper = _PAPER.search(text)
    return f"arXiv:{paper[1]}, as in peft" if paper else f"peft's own documentation of {kind.upper()}"
