"""Any type of the installed `peft` that can train from scratch on one task, as ``peft:TYPE``."""

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
from methods.base.architecture import innermost, pattern, targets
from methods.base.spec import Attached, Category, Context, MethodError, MethodSpec
from methods.families.peft_type_sizes import fitted, shape
from methods.families.peft_type_names import refused, trainable_types, types
from methods.families.peft_type_params import PeftTypeParams, config_class, has_targets, params_type
from methods.parts.low_rank import TARGETS
from methods.parts.soft_prompt import number_positions, require_prompts, require_room
from methods.prefix import require_cache

__all__ = ["attach", "refused", "spec", "trainable_types", "types"]

# what starts elsewhere than at the backbone, by what peft's defaults draw or compute
_NO_IDENTITY = {
    "c3a": "draws its circulant kernels",
    "cartridge": "draws its key-value pairs",
    "frod": "rebuilds each weight from a shared basis, with rounding",
    "unilora": "draws its vector",
    "vblora": "draws its bank of vectors",
}
_NO_MERGE = {
    "beft": "needs a bias in every layer to merge into",
    "randlora": "sums a base of full rank times a large scale, and loses three digits on T5 when that is done once",
}
_KNOWN = (
    "Detected that the base layer has no bias term",  # beft, which is not merged
    "Failed to load the CUDA extension",  # boft, which then computes the same in torch
    "Setting boft_n_butterfly_factor to 1 to speed up",
)
# clusters, rebuilds or picks out the entries of weights, and has shapes by what it finds
_READS_NUMBERS = frozenset({"adamss", "frod", "shira"})
_SELECTIVE = frozenset({"beft", "shira", "supertuning"})
_PAPER = re.compile(r"(?:arxiv\.org/(?:abs|pdf)/|huggingface\.co/papers/|arxiv:\s*)(\d{4}\.\d{4,5})", re.IGNORECASE)


def spec(member: str) -> MethodSpec[PeftTypeParams]:
    """The method of a type.

    Args:
        member: the type's name in lower case, ``boft``.

    Raises:
        KeyError: if the installed `peft` has no such type.
        MethodError: if the type cannot train by itself on one task.
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
    """Put the adapter of a type into its targets.

    Raises:
        MethodError: if `peft` refuses the architecture.
    """
    config = _config(view, params, context)
    method = f"peft:{params.kind}"
    with _quiet():
        try:
            attached = peft_adapter.attached(
                view,
                config,
                method,
                params,
                context,
                merges=_merges(params.kind),
                reads_numbers=params.kind in _READS_NUMBERS,
            )
        except (TypeError, IndexError, RuntimeError, ImportError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise MethodError(f"peft cannot attach {method} to {type(view).__name__}: {reason}") from error
    model: PeftModel = attached.module
    if config.is_prompt_learning:
        number_positions(model)
    return replace(attached, on_step=_schedule(model))


def _config(view: nn.Module, params: PeftTypeParams, context: Context) -> PeftConfig:
    if not has_targets(params.kind):
        _require_place(view, params, context)
        return params.config()
    names = targets(view, TARGETS[params.to_dict()["targets"]], context.layers)
    sizes = fitted(params, {shape(innermost(view.get_submodule(name))) for name in names})
    return params.config(**sizes, target_modules=pattern(names))


def _require_place(view: nn.Module, params: PeftTypeParams, context: Context) -> None:
    """Raise the one-line error of an architecture without a place for virtual tokens."""
    require_prompts(view)
    require_cache(view)
    require_room(view, params.to_dict()["num_virtual_tokens"], context)
    if context.layers is not None:
        raise MethodError(f"peft:{params.kind} sits in every block; deep_prompt can be given some of them")


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what `peft` has to say of things that are as they should be here."""
    # frod's matrices are sparse, and torch wants to be told that nobody checks them
    torch.sparse.check_sparse_tensor_invariants.disable()
    with warnings.catch_warnings():
        for message in _KNOWN:
            warnings.filterwarnings("ignore", message)
        yield


def _schedule(model: PeftModel) -> Callable[[int, int], None] | None:
    """What `peft` asks to be called after each step, where it does."""
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
    """The paper that `peft` names for a type, where it does."""
    documented = [config_class(kind), _tuner(kind), inspect.getmodule(_tuner(kind))]
    text = " ".join(inspect.getdoc(part) or "" for part in documented)
    paper = _PAPER.search(text)
    return f"arXiv:{paper[1]}, as in peft" if paper else f"peft's own documentation of {kind.upper()}"
