"""The search space of ``peft:TYPE``, read off the configuration of the type in the installed `peft`.

`peft` is not imported, since that takes seconds while a configuration is checked: its source is parsed, whatever its
version. The sizes are searched, which are recognized by the names that the field gives them, over a quarter to four
times the default; where a layer is too small for a size, the method takes the nearest smaller size that fits.
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
# required by peft, without a default there
_REQUIRED = {"num_virtual_tokens": 20}


def space(member: str) -> SearchSpace:
    """Return the search space of a type.

    Args:
        member: The type's name in lower case, as in ``boft``.

    Raises:
        KeyError: If the installed `peft` has no configuration for it.
    """
    if member not in _configurations():
        raise KeyError(f"peft:{member}")
    sizes = {name: default for name, default in _numbers(member).items() if _is_size(name, default)}
    distributions: dict[str, BaseDistribution] = {name: _around(name, default) for name, default in sizes.items()}
    targets = {} if _is_prompt(member) else {"targets": "all_linear"}
    if targets:
        distributions["targets"] = CategoricalDistribution(["attention_qv", "attention", "feed_forward", "all_linear"])
    return SearchSpace(
        distributions={**training(1e-4, 1e-1), **distributions},
        default={**DEFAULT, "learning_rate": 2e-3, "weight_decay": 0.0, **sizes, **targets},
        sources={
            **SOURCES,
            "learning_rate": "from LoRA's (arXiv:2106.09685) to those of VeRA and FourierFT, some hundred times higher",
            **dict.fromkeys(sizes, "a quarter to four times peft's default"),
            **dict.fromkeys(targets, "query and value in arXiv:2106.09685; all linear layers in arXiv:2305.14314"),
        },
    )


def _is_size(name: str, default: float) -> bool:
    if 0 < default < 1:
        return _FRACTION.fullmatch(name) is not None
    return default >= 1 and bool(_COUNT.fullmatch(name) or _BLOCK.fullmatch(name))


def _around(name: str, default: float) -> BaseDistribution:
    if default < 1:  # the share of what trains or, above a half, of what does not
        trained = default if default < 0.5 else 1 - default
        return _shares(trained / 4, min(0.5, 4 * trained), default)
    lowest = 2 if _BLOCK.fullmatch(name) else 1
    sizes = {max(lowest, int(default // 4)), max(lowest, int(default // 2)), default, 2 * default, 4 * default}
    return CategoricalDistribution(sorted(sizes))


def _shares(low: float, high: float, default: float) -> BaseDistribution:
    return FloatDistribution(low, high, log=True) if default < 0.5 else FloatDistribution(1 - high, 1 - low)


@cache
def _configurations() -> dict[str, ast.ClassDef]:
    """Return the configuration class of every type: the class that assigns that type to itself."""
    classes: dict[str, ast.ClassDef] = {}
    for file in sorted(_tuners().glob("*/config.py")):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and (member := _declared_type(node)):
                classes[member] = node
    return classes


def _declared_type(node: ast.ClassDef) -> str | None:
    """Return the type that a class assigns to ``self.peft_type``."""
    for part in ast.walk(node):
        if isinstance(part, ast.Assign) and ast.unparse(part.targets[0]) == "self.peft_type":
            return ast.unparse(part.value).removeprefix("PeftType.").lower()
    return None


def _numbers(member: str) -> dict[str, float]:
    """Return the fields of a type whose default is a number, in the order of its configuration."""
    numbers: dict[str, float] = {}
    for part in _configurations()[member].body:
        if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
            default = _default(part.value)
            if isinstance(default, (int, float)) and not isinstance(default, bool):
                numbers[part.target.id] = default
    return numbers | (_REQUIRED if _is_prompt(member) else {})


def _is_prompt(member: str) -> bool:
    """Return whether a type is placed before the input, so that there are no layers to choose."""
    return any(ast.unparse(base) == "PromptLearningConfig" for base in _configurations()[member].bases)


def _default(value: ast.expr | None) -> object:
    """Return a field's default: a literal, or the ``default`` of a ``field(...)``; ``None`` for anything else."""
    if isinstance(value, ast.Call):
        value = next((keyword.value for keyword in value.keywords if keyword.arg == "default"), None)
    try:
        return ast.literal_eval(value) if value is not None else None
    except ValueError:
        return None


def _tuners() -> Path:
    spec = find_spec("peft")  # without importing it
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("peft is not installed")
    return Path(spec.origin).parent / "tuners"
