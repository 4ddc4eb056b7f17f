"""The types that the installed `peft` declares, and the reasons why some are refused; nothing here imports torch.

A type of a newer `peft` is a method without a change here: only the types in the tables below are refused.
"""

from __future__ import annotations

import ast
from functools import cache
from importlib.util import find_spec
from pathlib import Path

FIRST_CLASS = {
    "adalora": "adalora",
    "ia3": "ia3",
    "ln_tuning": "norm_tuning",
    "lora": "lora",
    "multitask_prompt_tuning": "multitask_prompt",
    "p_tuning": "p_tuning",
    "prefix_tuning": "prefix",
    "prompt_tuning": "prompt",
}
_REFUSED = {
    "adaption_prompt": "looks for a parameter in attention modules, and those of the shared backbone need not have any",
    "cpt": "starts from the tokens of chosen examples; use hard_prompt or prompt",
    "glora": "accepts plain torch.nn.Linear layers alone, and the shared backbone has a class of its own",
    "lily": "routes by the average over a batch, so that a row's result depends on the other rows of its batch",
    "poly": "learns a mixture over several tasks, and a trial has one task",
    "shadow": "trains a second transformer beside the backbone, and a part of it never gets a gradient",
    "trainable_tokens": "trains the embeddings of tokens that have to be named one by one",
    "xlora": "mixes LoRA adapters that were trained before",
}


@cache
def types() -> tuple[str, ...]:
    """Return every type of the installed `peft`, in lower case and sorted."""
    members = next(n for n in ast.parse(_source()).body if isinstance(n, ast.ClassDef) and n.name == "PeftType")
    values = [member.value for member in members.body if isinstance(member, ast.Assign)]
    return tuple(sorted(v.value.lower() for v in values if isinstance(v, ast.Constant) and isinstance(v.value, str)))


def trainable_types() -> tuple[str, ...]:
    """Return the types that are methods as ``peft:TYPE``."""
    return tuple(kind for kind in types() if kind not in refused())


def refused() -> dict[str, str]:
    """Return the reason why each other type is not a method as ``peft:TYPE``, one line."""
    reasons = {kind: f"is the method {name}; write {name}" for kind, name in FIRST_CLASS.items()} | _REFUSED
    return {kind: reasons[kind] for kind in types() if kind in reasons}


def _source() -> str:
    package = find_spec("peft")  # does not import the package
    if package is None or package.origin is None:
        raise ModuleNotFoundError("peft is not installed")
    return (Path(package.origin).parent / "utils" / "peft_types.py").read_text(encoding="utf-8")
