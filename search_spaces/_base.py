"""The type of a search space: distributions by name, and the configuration that is tried first."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """The search space of one method's hyperparameters.

    Args:
        distributions: An Optuna distribution for each searched parameter of the method.
        default: The configuration of the method's first trial, from the literature; a value for each distribution.
        sources: The source of each range, by parameter.
        switches: Pattern of further parameters, which are true unless an override searches them.
        texts: Parameters whose overrides may be any text, whatever their choices; the method checks the text.
    """

    distributions: Mapping[str, BaseDistribution]
    default: Mapping[str, Any]
    sources: Mapping[str, str]
    switches: str = ""
    texts: frozenset[str] = frozenset()

    def distribution_of(self, name: str) -> BaseDistribution | None:
        """Return the distribution of a parameter or a switch; ``None`` if there is none of that name."""
        if self.switches and re.fullmatch(self.switches, name):
            return CategoricalDistribution([True, False])
        return self.distributions.get(name)
