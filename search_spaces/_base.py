"""What a search space is: distributions by name, and the configuration that is tried first."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """Where to look for one method's hyperparameters.

    Args:
        distributions: an Optuna distribution per parameter of the method.
        default: the literature's configuration, the method's first trial; a value for each distribution.
        sources: where each range comes from, by parameter.
        switches: pattern of further parameters, which are true unless an override searches them.
        texts: parameters of which an override may say any text, whatever their choices; the method says what it is.
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
