"""The search space of ``peft:TYPE``, read off the configuration of the type in the installed `peft`.

Nothing here imports `peft`: its source is parsed, which is fast enough for a configuration that is being checked, and
knows the types of any version. What is searched are the sizes, found by their names in the field, over a quarter to
four times the default; where a layer is too small for a size, the method takes the nearest below that fits.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from search_spaces._base import SearchSpace
from search_spaces._training import DEFAULT, SOURCES, training

_COUNT = re.compile(r"r|u|rank|\w+_rank|n_frequency|num_(vectors|subspaces|virtual_tokens)")
_BLOCK = re.compile(r"(\w+_)?block_size|group_size|vector_length|\w+_d_length")
_FRACTION = re.compile(r"spars\w+")
# what peft wants to be told, and has no default for
_REQUIRED = {"num_virtual_tokens": 20}


def space(member: str) -> SearchSpace:
    """The search space of a type.

    Args:
        member: the type's name in lower case, ``boft``.

    Raises:
        KeyError: if the installed `peft` has no configuration for it.
    """
    if member not in _configurations():
        raise KeyError(f"peft:{member}")
    sizes = {name: default for name, default in _numbers(member).items() if _searched(name, default)}
    own: dict[str, BaseDistribution] = {name: _around(name, default) for name, default in sizes.items()}
    targets = {} if _is_prompt(member) else {"targets": "all_linear"}
    if targets:
        own["targets"] = CategoricalDistribution(["attention_qv", "attention", "feed_forward", "all_linear"])
    return SearchSpace(
        distributions={**training(1e-4, 1e-1), **own},
        default={**DEFAULT, "learning_rate": 2e-3, "weight_decay": 0.0, **sizes, **targets},
        sources={
            **SOURCES,
            "learning_rate": "from LoRA's (arXiv:2106.09685) to those of VeRA and FourierFT, some hundred times higher",
            **dict.fromkeys(sizes, "a quarter to four times peft's default"),
            **dict.fromkeys(targets, "query and value in arXiv:2106.09685; all linear layers in arXiv:2305.14314"),
        },
    )


def _searched(name: str, default: float) -> bool:
    if 0 < default < 1:
        return _FRACTION.fullmatch(name) is not None
    return default >= 1 and bool(_COUNT.fullmatch(name) or _BLOCK.fullmatch(name))


def _around(name: str, default: float) -> BaseDistribution:
    if default < 1:  # the share of what trains or, above a half, of what does not
        few = default if default < 0.5 else 1 - default
        return _shares(few / 4, min(0.5, 4 * few), default)
    lowest = 2 if _BLOCK.fullmatch(name) else 1
    sizes = {max(lowest, int(default // 4)), max(lowest, int(default // 2)), default, 2 * default, 4 * default}
    return CategoricalDistribution(sorted(sizes))


def _shares(low: float, high: float, default: float) -> BaseDistribution:
    return FloatDistribution(low, high, log=True) if default < 0.5 else FloatDistribution(1 - high, 1 - low)


@cache
def _configurations() -> dict[str, ast.ClassDef]:
    """The configuration class of every type: the one that gives itself that type."""
    found: dict[str, ast.ClassDef] = {}
    for file in sorted(_tuners().glob("*/config.py")):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and (declared := _declared(node)):
                found[declared] = node
    return found


def _declared(node: ast.ClassDef) -> str | None:
    """The type that a class assigns to ``self.peft_type``."""
    for part in ast.walk(node):
        if isinstance(part, ast.Assign) and ast.unparse(part.targets[0]) == "self.peft_type":
            return ast.unparse(part.value).removeprefix("PeftType.").lower()
    return None


def _numbers(member: str) -> dict[str, float]:
    """The fields of a type whose default is a number, in the order of its configuration."""
    found: dict[str, float] = {}
    for part in _configurations()[member].body:
        if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
            default = _default(part.value)
            if isinstance(default, (int, float)) and not isinstance(default, bool):
                found[part.target.id] = default
    return found | (_REQUIRED if _is_prompt(member) else {})


def _is_prompt(member: str) -> bool:
    """Whether a type stands before the input, and not in layers that could be chosen."""
    return any(ast.unparse(base) == "PromptLearningConfig" for base in _configurations()[member].bases)


def _default(value: ast.expr | None) -> object:
    """What a field starts with: a literal, or the ``default`` of a ``field(...)``."""
    if isinstance(value, ast.Call):
        value = next((keyword.value for keyword in value.keywords if keyword.arg == "default"), None)
    try:
        return ast.literal_eval(value) if value is not None else None
    except ValueError:
        return None


def _tuners() -> Path:
    found = find_spec("peft")  # finds the package without importing it
    if found is None or found.origin is None:
        raise ModuleNotFoundError("peft is not installed")
    return Path(found.origin).parent / "tuners"
