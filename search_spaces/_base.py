"""What a search space is: distributions by name, and the configuration that is tried first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from optuna.distributions import BaseDistribution


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """Where to look for one method's hyperparameters.

    Args:
        distributions: an Optuna distribution per parameter of the method.
        default: the literature's configuration, the method's first trial; a value for each distribution.
        sources: where each range comes from, by parameter.
    """

    distributions: Mapping[str, BaseDistribution]
    default: Mapping[str, Any]
    sources: Mapping[str, str]
