"""The search space of a composition: its parts' spaces, with each parameter under its part's name and a dot.

Batch size, warm-up and weight decay are shared, and so are searched once. Each part keeps its range of learning rates;
``learning_rate`` itself is that of the head.
"""

from __future__ import annotations

from typing import Any

from optuna.distributions import BaseDistribution

import search_spaces
from search_spaces._base import SearchSpace
from search_spaces._training import DEFAULT, SOURCES, training

# whether a part is on, and in which blocks: true unless an override searches them (AutoPEFT, arXiv:2301.12132)
SWITCHES = r"layer_\d+|({parts})\.(on|layer_\d+)"


def space(member: str) -> SearchSpace:
    """Return the search space of a composition.

    Args:
        member: The parts, as in ``prefix+adapter`` or ``serial=adapter+parallel=adapter``.

    Raises:
        KeyError: If a part's method has no search space.
    """
    shared = training(1e-4, 1e-2)
    distributions: dict[str, BaseDistribution] = dict(shared)
    default: dict[str, Any] = {**DEFAULT, "learning_rate": 1e-3, "weight_decay": 0.0}
    sources = {**SOURCES, "learning_rate": "of the head: from an adapter's to a linear probe's rates"}
    parts = _parts(member)
    for part, part_space in parts.items():
        names = [name for name in part_space.distributions if name not in shared or name == "learning_rate"]
        distributions |= {f"{part}.{name}": part_space.distributions[name] for name in names}
        default |= {f"{part}.{name}": part_space.default[name] for name in names}
        sources |= {f"{part}.{name}": part_space.sources[name] for name in names}
    switches = SWITCHES.format(parts="|".join(parts))
    return SearchSpace(distributions=distributions, default=default, sources=sources, switches=switches)


def _parts(member: str) -> dict[str, SearchSpace]:
    parts = (text.rpartition("=") for text in member.split("+"))
    return {name or method.removeprefix("peft:"): search_spaces.get(method) for name, _, method in parts}
